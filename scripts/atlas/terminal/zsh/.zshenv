# What zsh reads first in a terminal of the course's JupyterLab: the person's own file, which may name another ZDOTDIR.
atlas_zdotdir=$ZDOTDIR
ZDOTDIR=${ATLAS_ZDOTDIR:-$HOME}
if [[ -r $ZDOTDIR/.zshenv ]]; then . $ZDOTDIR/.zshenv; fi
ATLAS_ZDOTDIR=${ZDOTDIR:-$HOME}
ZDOTDIR=$atlas_zdotdir
