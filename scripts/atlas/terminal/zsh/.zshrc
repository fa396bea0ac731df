# What zsh reads next: the person's own file, then the course's environment. From here on all is as in other terminals.
HISTFILE=${HISTFILE/#$ZDOTDIR/$ATLAS_ZDOTDIR}
ZDOTDIR=$ATLAS_ZDOTDIR
if [[ -r $ZDOTDIR/.zshrc ]]; then . $ZDOTDIR/.zshrc; fi
path=($ATLAS_BIN $path)
