# %% [markdown]
# # Sequence to Sequence
#
# Six letters, *k n i g h t*, become three sounds, *N AY T*. One network reads, another writes, and all that passes between them is one vector. You build both, feed them without letting padding in, decode word by word and with a beam, and hold the result against a table of rules that is hard to beat. Derivations are in the [README](README.md).

# %%
import itertools
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from say import Rules
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import atlas
from atlas import plot

lab = atlas.open("sequence-to-sequence")
device = atlas.device()
cmudict = atlas.data.load("cmudict")
cmudict

# %% [markdown]
# ## 1 · A task that everybody can judge (5 min)
#
# In *rnn-lstm-gru* a state read a sequence, and a state wrote one. But how does one sequence become another, of another length? Translation is the famous case, and hard to judge in a language that one does not speak. Saying aloud how an English word is spelled is the same kind of task, and you can hear the errors.
#
# The data are the CMU pronouncing dictionary (licence BSD-2-Clause): words of 2 to 14 letters (596 longer ones wait for section 10) and their sounds in 39 *phonemes*, such as AY in *knight* and SH in *shell*. We leave out the digits that mark stress. Some words are said in several ways; every one of them counts as right, and training uses the first.


# %%
def plain(pairs):
    """(word, pronunciations) with each pronunciation a list of phonemes, without stress."""
    return [(w, [[p.rstrip("012") for p in s.split()] for s in said]) for w, said in pairs]


parts = cmudict.train, cmudict.valid, cmudict.test, cmudict.more["long"]
train, valid, test, long = (plain(part) for part in parts)
symbols = ["<pad>", "<bos>", "<eos>", *sorted({p for _, said in train for p in said[0]})]
index = {symbol: n for n, symbol in enumerate(symbols)}
PAD, BOS, EOS = 0, 1, 2
spoken = {word: said for word, said in train}
for word in ("knight", "colonel", "xerox", "queen", "cough"):
    print(f"{word:8} {len(word)} letters  ", " or ".join(" ".join(s) for s in spoken[word]))
more = np.array([len(said[0]) - len(word) for word, said in train])
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
values, counts = np.unique(more, return_counts=True)
ax.bar(values, 100 * counts / len(more), color=plot.COLOURS[0])
ax.set(xlabel="phonemes minus letters", ylabel="share of the words (%)", xlim=(-7.5, 5.5))
title = f"Only {np.mean(more == 0):.0%} of the words have as many sounds as letters"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert 0.2 < (more == 0).mean() < 0.3 and len(symbols) == 42

# %% [markdown]
# **Question.** Last workshop's machine gave an output for each input. Why is that not enough here, even if it could say "no sound" at silent letters?
#
# <details><summary>Answer</summary>
#
# In *xerox* the last letter is two sounds, K S. And the output for a letter would have to be said before the next letters are read: the *k* of *knight* is silent because of the *n* after it, the *c* of *cease* is S because of its *e*. Read all first, then write: that is the plan. The table of rules below does it the other way, letter by letter, with up to four letters on both sides in view.
#
# </details>
#
# ## 2 · How wrong is wrong? (11 min)
#
# Before any model, a measure. One missing sound moves all that follow by one place, so comparing place by place would call nearly everything wrong. The *edit distance* counts the fewest insertions, deletions and substitutions, at 1 each, that make $b$ of $a$. Let $d_{i,j}$ be the distance of the first $i$ items of $a$ and the first $j$ of $b$. Look at the last items: either $a_i$ is deleted, or $b_j$ inserted, or one stands for the other:
#
# $$ d_{i,j} = \min\bigl(d_{i-1,j} + 1,\;\; d_{i,j-1} + 1,\;\; d_{i-1,j-1} + [a_i \neq b_j]\bigr), \qquad d_{i,0} = i,\; d_{0,j} = j $$
#
# By hand, K N AY T to N AY T: delete K, distance 1. Place by place all three would be wrong. The *phoneme error rate* (PER) is the sum of the distances over the number of phonemes in the right answers.
#
# ![The table of distances of K N AY T and N AY T S: each cell is the least of three.](figures/distance.svg)


# %%
def edit_distance(a, b):
    """The fewest insertions, deletions and substitutions, each counted as 1, that make b of a.

    a, b: sequences (lists, tuples or strings) of things of any kind, equal if == says so; they may
    be empty, and of different lengths. They stay as they are.
    Returns an int. Takes time in proportion to len(a) · len(b), not more.
    """
    # TODO: rows of d, the first is 0, 1, ..., len(b); fill row by row; the last number is it.
    ### BEGIN SOLUTION
    d = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        d.append([i])
        for j, y in enumerate(b, 1):
            d[i].append(min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (x != y)))
    return d[-1][-1]
    ### END SOLUTION


lab.check(edit_distance)

# %% [markdown]
# Now the opponent. `Rules` (in [say.py](say.py), pure counting; its other functions are best read after section 8) aligns each letter of a training word with 0, 1 or 2 phonemes so that the whole is likeliest, counts again, and so on. To say a new word it takes, letter by letter, the commonest sounds in the widest surroundings that it has seen, from four letters on both sides down to the letter alone. We give it 10,000 words: about 12 s.


# %%
def error_rates(said, pairs):
    """PER and share of words right, against the nearest pronunciation of each word."""
    errors = phonemes = right = 0
    for mine, (_, all_of) in zip(said, pairs, strict=True):
        wrong, length = min((edit_distance(mine, each), len(each)) for each in all_of)
        errors, phonemes, right = errors + wrong, phonemes + length, right + (wrong == 0)
    return errors / phonemes, right / len(pairs)


for count in (1_000, 10_000):
    rules = Rules(train[:count])
    by_rules = [rules(word) for word, _ in test]
    per, right = error_rates(by_rules, test)
    print(f"rules of {count:6,} words: PER {per:.3f}, words right {right:.1%}", flush=True)
wrong = [n for n, (_, said) in enumerate(test) if by_rules[n] not in said]
for n in wrong[:5]:
    print(f"{test[n][0]:12} {' '.join(by_rules[n]):28} and right is {' '.join(test[n][1][0])}")

# %% tags=["instructor"]
assert 0.11 < per < 0.19 and 0.35 < right < 0.5

# %% [markdown]
# **Question.** Six words in ten are wrong, and yet PER says 16 %. Is that a contradiction?
#
# <details><summary>Answer</summary>
#
# No. A word has about six phonemes, and one error spoils it. If errors fell independently with 0.16 a phoneme, a word of six would be right with $0.84^6 = 0.35$. Both numbers are worth having: PER for progress, words right for use. Note that PER may exceed 1, when a machine says far too much.
#
# </details>
#
# ## 3 · Padding, and a loss that ignores it (8 min)
#
# Words of several lengths share a batch, so short ones are filled up with `<pad>`. The loss is to count what was said and nothing else. Over a batch with logits $z$ and targets $y$, both over $T$ places,
#
# $$ L = -\frac{1}{N} \sum_{b,t:\; y_{b,t} \neq \text{pad}} \log \text{softmax}(z_{b,t})_{y_{b,t}}, \qquad N = \text{number of targets that are not pad} $$
#
# so each phoneme counts the same, in short words and long. Two traps: to *multiply* by a mask of 0 and 1 turns $-\infty \cdot 0$ into NaN; `torch.where(mask, loss, 0.0)`, or picking the entries, does not. And to divide by $B \cdot T$ makes the loss depend on the longest word in the batch.


# %%
def masked_cross_entropy(logits, targets, pad):
    """Mean cross-entropy over those targets that are not pad.

    logits: (B, T, K), unnormalised, floating. targets: int64 (B, T), the right symbols, at least
    one of them not pad. pad: the number that stands for padding, whatever it is, from 0 to K - 1.
    Returns a scalar tensor of the logits' dtype, through which gradients flow. Logits at padding
    count for nothing, even if one of them is -inf. Elsewhere -inf makes a symbol impossible, and it
    is never the target.
    """
    # TODO: log_softmax over K, gather the targets' entries, pick or torch.where, sum over count.
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(2).gather(2, targets[:, :, None])[:, :, 0]  # (B, T)
    real = targets != pad
    return -torch.where(real, log_p, 0.0).sum() / real.sum()
    ### END SOLUTION


lab.check(masked_cross_entropy)

# %% [markdown]
# (PyTorch's own: `F.cross_entropy(..., ignore_index=pad)`; the check compares with it.) What does the wrong mean do? A model that knows nothing of phonemes, all equally likely, but knows for certain where padding is:

# %%
lengths = torch.tensor([len(said[0]) + 1 for _, said in train[:128]])
print("columns   mine    mean over all cells   cells that are real")
for columns in (lengths.max(), 20, 40):
    cell = torch.arange(int(columns))[None] >= lengths[:, None]  # (B, T), True at padding
    targets = torch.where(cell, PAD, 5)
    z = torch.zeros(128, int(columns), len(symbols))
    z[..., PAD] = torch.where(cell, 1e4, 0.0)
    mine = masked_cross_entropy(z, targets, PAD)
    naive = F.cross_entropy(z.flatten(0, 1), targets.flatten())
    print(f"{int(columns):7} {mine:6.2f} {naive:16.2f} {(~cell).float().mean():21.0%}")

# %% [markdown]
# The network is as bad in each row, $\ln 42 = 3.74$, and the wrong mean says that it improves. Padding also costs computing, so from now on a batch holds words of like length.
#
# ## 4 · The encoder (9 min)
#
# The encoder is a GRU over the letters. Its last state, $s = h_S$, is all that the decoder will get. In *rnn-lstm-gru* `last_states` picked the state at the last letter out of the padded outputs. That fails for a GRU that also reads *backwards*: it begins in the padding, and every one of its outputs has been through it. Ours reads forwards only, where picking would do; but not to let padding in serves both, and saves its steps. `pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)` makes a form without padding, `gru(packed)` returns outputs in that form and the states, and `pad_packed_sequence(outputs, batch_first=True, total_length=T)` fills the outputs up with zeros again.


# %%
def encode(gru, embedded, lengths):
    """Run a GRU over sequences of several lengths as if there were no padding.

    gru: nn.GRU with batch_first=True; of any number of layers, and of one direction or two.
    embedded: (B, T, C), of which only the first lengths[b] steps of row b count.
    lengths: int64 (B,), in any order, from 1 to T; T may be larger than all of them.
    Returns (outputs, state). outputs: (B, T, D or 2D), zeros beyond each length. state: as the GRU
    returns it, (layers · directions, B, D), each row's after its own last step; rows in the order
    in which they came. Gradients flow through both.
    """
    # TODO: pack, run, fill up again. Packing wants the lengths on the CPU.
    ### BEGIN SOLUTION
    packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, state = gru(packed)
    outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])
    return outputs, state
    ### END SOLUTION


lab.check(encode)


# %%
def letters_of(words):
    """Letters as numbers, a is 1, padded with 0: int64 (B, S); and how many each word has: (B,)."""
    rows = [torch.tensor([ord(letter) - 96 for letter in word]) for word in words]
    return pad_sequence(rows, batch_first=True).to(device), torch.tensor([len(row) for row in rows])


torch.manual_seed(0)
table, gru = nn.Embedding(27, 64), nn.GRU(64, 192, batch_first=True)
x, lengths = letters_of(["knight"])
print("columns of padding   the GRU's state changed, padding read   by encode")
for columns in (0, 1, 5, 20):
    padded = table(F.pad(x.cpu(), (0, columns)))
    with torch.no_grad():
        alone, read, mine = gru(table(x.cpu()))[1], gru(padded)[1], encode(gru, padded, lengths)[1]
    changes = [((state - alone).norm() / alone.norm()).item() for state in (read, mine)]
    print(f"{columns:18} {changes[0]:38.0%} {changes[1]:11.0%}")

# %% tags=["instructor"]
assert changes[0] > 0.3 and changes[1] < 1e-5

# %% [markdown]
# **Question.** A friend says: "I use `ignore_index`, so padding cannot hurt me." Which padding does it not cover?
#
# <details><summary>Answer</summary>
#
# That of the *input*. `ignore_index` keeps the padding of the targets out of the loss; the letters' padding runs through the encoder and changes $s$, and with it every output. Then the same word is said differently next to a longer word. They are two measures against two leaks.
#
# </details>
#
# ## 5 · The decoder and its teacher (9 min)
#
# The decoder is a second GRU that begins with $s$ and writes. By the chain rule of probability,
#
# $$ P(y_1 \dots y_T \mid x) = \prod_{t=1}^{T} P(y_t \mid y_1 \dots y_{t-1}, s), $$
#
# so at step $t$ it gets $y_{t-1}$ and gives a distribution for $y_t$. Before the first phoneme stands `<bos>`, after the last comes `<eos>`: without it nobody would know when to stop. In training the inputs are the *right* phonemes, whatever the network would have said (*teacher forcing*), so all steps are known beforehand and one call computes them. For *knight*:
#
# | step | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|
# | input | `<bos>` | N | AY | T |
# | target | N | AY | T | `<eos>` |
#
# ![Six GRU cells read k n i g h t; their last state goes to four GRU cells that read bos N AY T and say N AY T eos.](figures/encdec.svg)


# %%
def decoder_pairs(phonemes, bos, eos, pad):
    """What the decoder reads and what it is to say, for a batch.

    phonemes: list of B lists of whole numbers, of any lengths, also 0. They stay as they are.
    Returns (inputs, targets), int64 (B, T) each, T = 1 + length of the longest. Row b of inputs is
    bos and then the phonemes, of targets the phonemes and then eos; the rest of a row is pad.
    """
    # TODO: a tensor for each row, pad_sequence(rows, batch_first=True, padding_value=pad), twice.
    ### BEGIN SOLUTION
    inputs = [torch.tensor([bos, *row]) for row in phonemes]
    targets = [torch.tensor([*row, eos]) for row in phonemes]
    fill = {"batch_first": True, "padding_value": pad}
    return pad_sequence(inputs, **fill), pad_sequence(targets, **fill)
    ### END SOLUTION


lab.check(decoder_pairs)


# %%
class Speaker(nn.Module):
    """Encoder and decoder; nothing but a state (B, D) goes from one to the other."""

    def __init__(self, D=192):
        super().__init__()
        self.letters = nn.Embedding(27, 64, padding_idx=PAD)
        self.encoder = nn.GRU(64, D, batch_first=True)
        self.phonemes = nn.Embedding(len(symbols), 64, padding_idx=PAD)
        self.decoder = nn.GRU(64, D, batch_first=True)
        self.out = nn.Linear(D, len(symbols))

    def encode(self, letters, lengths):
        """Letters (B, S) to a state (B, D)."""
        return encode(self.encoder, self.letters(letters), lengths)[1][0]

    def forward(self, letters, lengths, inputs):
        """Logits (B, T, K) for what follows each of the inputs (B, T): training, with a teacher."""
        state = self.encode(letters, lengths)
        return self.out(self.decoder(self.phonemes(inputs), state[None])[0])

    def step(self, tokens, state):
        """Tokens (N,), states (N, D) to log P of what is next (N, K) and new states (N, D)."""
        output, state = self.decoder(self.phonemes(tokens)[:, None], state[None])
        return self.out(output[:, 0]).log_softmax(1), state[0]


def as_batch(pairs):
    """(letters, lengths, inputs, targets) of some words."""
    said = decoder_pairs([[index[p] for p in said[0]] for _, said in pairs], BOS, EOS, PAD)
    return *letters_of([word for word, _ in pairs]), *(each.to(device) for each in said)


torch.manual_seed(0)
model = Speaker().to(device)
*given, targets = as_batch(train[:100])
untrained = masked_cross_entropy(model(*given), targets, PAD).item()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(f"loss untrained {untrained:.2f}, and ln {len(symbols)} = {np.log(len(symbols)):.2f}")

# %% tags=["instructor"]
assert abs(untrained - np.log(42)) < 0.15

# %% [markdown]
# **Question.** Somebody forgets the shift and gives the targets as inputs. What will the loss say, and what will the network say?
#
# <details><summary>Answer</summary>
#
# The loss falls to nearly 0 within a few dozen steps: the network only has to copy its input. Used alone, it is given `<bos>`, which it has never had to say; so it says some phoneme, and copies that for ever. A loss that is too good is a symptom.
#
# </details>
#
# **Break.**
#
# ## 6 · Training, and what it says (7 min)
#
# 420 steps of 128 words, half of the training set once: AdamW, the rate rising for 5 % of the steps and then falling as a cosine, gradients clipped to norm 1. About 30 s.


# %%
def batches(pairs, count, seed):
    """So many batches of 128 words of like length, in random order."""
    rng = np.random.default_rng(seed)
    chosen = [pairs[n] for n in rng.permutation(len(pairs))[: 128 * count]]
    chosen.sort(key=lambda pair: (len(pair[0]), len(pair[1][0])))
    for n in rng.permutation(count):
        yield as_batch(chosen[128 * n : 128 * (n + 1)])


def rate(step, steps):
    return min(1, step / (0.05 * steps)) * 0.5 * (1 + np.cos(np.pi * step / steps))


STEPS, SEED = 420, 0
torch.manual_seed(SEED)
model = Speaker().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
*held_out, answers = as_batch(valid)
history = {"train": ([], []), "validation": ([], [])}
begin = time.process_time()
for step, (letters, lengths, inputs, targets) in enumerate(batches(train, STEPS, SEED), 1):
    optimizer.param_groups[0]["lr"] = 8e-3 * rate(step, STEPS)
    loss = masked_cross_entropy(model(letters, lengths, inputs), targets, PAD)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    history["train"][0].append(step)
    history["train"][1].append(loss.item())
    if step % 60 == 0:
        with torch.no_grad():
            now = masked_cross_entropy(model(*held_out), answers, PAD).item()
        history["validation"][0].append(step)
        history["validation"][1].append(now)
        seconds = time.process_time() - begin
        print(f"step {step}: validation {now:.3f}  {seconds:.0f} s", flush=True)
smooth = np.convolve(history["train"][1], np.ones(15) / 15, "valid")
shown = {"train": (np.arange(15, STEPS + 1), smooth), "validation": history["validation"]}
_ = plot.curves(
    shown,
    xlabel="step (train: mean of 15)",
    ylabel="cross-entropy (nat)",
    title="Training and validation fall together: no word is seen twice",
)

# %% tags=["instructor"]
assert history["validation"][1][-1] < 0.85
assert abs(np.mean(history["train"][1][-60:]) - history["validation"][1][-1]) < 0.2

# %% [markdown]
# **Question.** A loss of about 0.6 nat a phoneme: how sure is the network of the right phoneme, and of a whole word of six and its end?
#
# <details><summary>Answer</summary>
#
# $e^{-0.6} = 0.55$ (the geometric mean), and $0.55^7 = 0.015$ for the word. But a right answer has to be *likelier than the others*, not likely, so far more words come out right. And this loss is the teacher's: each step was told what stood before it.
#
# </details>
#
# ## 7 · One phoneme at a time (10 min)
#
# Nobody forces the right phonemes now. *Greedy* decoding takes the likeliest phoneme, feeds it back, and so on until `<eos>`. All words of a batch go together; each ends when it ends. What a step needs to know of the model is one function, `step`: tokens $(N)$ and states $(N, D)$ in, $\log P$ of what is next $(N, K)$ and new states out.


# %%
def greedy(step, state, bos, eos, limit):
    """Always the likeliest next symbol, for a batch.

    step: tokens int64 (N,), states (N, D) → log probabilities (N, K), states (N, D), row by row: a
    row's results depend on that row alone. state: (B, D), with which row b begins; the first token
    of each row is bos. Tokens belong on the state's device.
    Returns a list of B lists of ints: what each row says before its first eos, or `limit` symbols
    where no eos came by then; step is called `limit` times at most, with all rows at once (or all
    open ones), and not again once all have ended. Any symbol but eos may be said, bos too. Rows end
    at different times. No graph is recorded.
    """
    # TODO: a loop with torch.no_grad(); keep the state that step returns; note which rows ended.
    ### BEGIN SOLUTION
    B = len(state)
    tokens = torch.full((B,), bos, device=state.device)
    said, ended = [[] for _ in range(B)], [False] * B
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            for b, token in enumerate(tokens.tolist()):
                ended[b] = ended[b] or token == eos
                if not ended[b]:
                    said[b].append(token)
            if all(ended):
                break
    return said
    ### END SOLUTION


lab.check(greedy)


# %%
LIMIT = 30  # the longest word of all has 28 phonemes


def pronounce(model, words):
    """The phonemes of each word, greedily."""
    model.eval()
    with torch.no_grad():
        state = model.encode(*letters_of(words))
    return [[symbols[p] for p in row] for row in greedy(model.step, state, BOS, EOS, LIMIT)]


by_network = pronounce(model, [word for word, _ in test])
net_per, net_right = error_rates(by_network, test)
print(f"encoder-decoder, {128 * STEPS:,} words: PER {net_per:.3f}, words right {net_right:.1%}")
print(f"rules of 10,000 words:          PER {per:.3f}, words right {right:.1%}")
asked = ["banana", "machine", "knight", "colonel", "transformer", "encyclopedic"]
for word, network_says in zip(asked, pronounce(model, asked), strict=True):
    print(f"{word:14} network {' '.join(network_says):36} rules {' '.join(rules(word))}")

# %% tags=["instructor"]
assert 0.22 < net_per < 0.38 and per < net_per - 0.08 and right > net_right + 0.05

# %% [markdown]
# A table of counts wins, and by far, with a fifth of the words. Say the network's answers aloud, though: it knows what English sounds like. Where do errors sit? Of the words with as many phonemes as they should have, which vowel is taken for which (*knight* said N IH T is AY taken for IH):

# %%
VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
pairs = [
    (a, b)
    for mine, (_, said) in zip(by_network, test, strict=True)
    if len(mine) == len(said[0])
    for a, b in zip(said[0], mine, strict=True)
    if a in VOWELS and b in VOWELS
]
true, given = ([VOWELS.index(v) for v in each] for each in zip(*pairs, strict=True))
share = np.mean(np.equal(true, given))
title = f"{share:.0%} of the vowels are right; the commonest, AH, draws most errors"
_ = plot.confusion(true, given, VOWELS, title=title)

# %% tags=["instructor"]
said_instead = [b for a, b in pairs if a != b]
assert max(VOWELS, key=said_instead.count) == "AH"

# %% [markdown]
# ## 8 · Several at once (17 min)
#
# The likeliest first phoneme need not begin the likeliest word. By hand: A has 0.6 and B 0.4. After A, A has 0.52 and C 0.48, and then the end 0.9; after B, the end has 0.85. Greedy takes A A and the end, $0.6 \cdot 0.52 \cdot 0.9 = 0.281$; B and the end have $0.4 \cdot 0.85 = 0.340$. To try all is hopeless: $K^T$ words. A *beam* keeps the `width` best beginnings (*hypotheses*), lengthens each by every symbol, and keeps the best `width` of all those. A hypothesis's score is the sum of its $\log P$, the end sign's included. What has ended stays in the beam, is no longer lengthened, and competes with its score.
#
# ![A beam of width 2: two hypotheses are lengthened by every symbol, the scores are added, the best two of all are kept; one of them has ended and keeps its place.](figures/beam.svg)
#
# The trap is the state. Where both survivors come from the second hypothesis, both need the second's state: `state[rows]`.


# %%
def beam_search(step, state, bos, eos, width, limit):
    """The best that a beam finds for one word.

    step: as for greedy; it takes any number of rows N ≥ 1. state: (1, D); tokens belong on its
    device. The beam begins with one hypothesis, no symbols, score 0. Then `limit` times, or until
    all in it have ended: each open one is lengthened by each of the K symbols, bos too (by eos: it
    has ended). Candidates are the lengthened ones and, unchanged, those that had ended before. The
    `width` candidates with the largest scores are the new beam (fewer where there are fewer).
    Returns (tokens, score) of the largest score in the beam at the end, ended or not. tokens: list
    of ints, what is said, so without the first bos and without eos. score: a float, the sum of log
    probabilities, eos's included where
    it has ended. No graph is recorded.
    """
    # TODO: hypotheses as (score, tokens, ended) in a list; for the open ones a row of state each.
    ### BEGIN SOLUTION
    beam = [(0.0, [], False)]
    tokens = torch.full((1,), bos, device=state.device)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            candidates = [(score, said, True, None) for score, said, ended in beam if ended]
            open_ones = [(score, said) for score, said, ended in beam if not ended]
            for row, (score, said) in enumerate(open_ones):
                for token, more in enumerate(log_p[row].tolist()):
                    longer = said if token == eos else [*said, token]
                    candidates.append((score + more, longer, token == eos, row))
            kept = sorted(candidates, key=lambda each: -each[0])[:width]
            beam = [(score, said, ended) for score, said, ended, _ in kept]
            going = [(row, said[-1]) for _, said, ended, row in kept if not ended]
            if not going:
                break
            rows, last = zip(*going, strict=True)
            state = state[list(rows)]
            tokens = torch.tensor(last, device=state.device)
    score, said, _ = max(beam, key=lambda each: each[0])
    return said, score
    ### END SOLUTION


lab.check(beam_search)

# %% [markdown]
# What does a wider beam bring? Two hundred test words, four widths.

# %%
some = test[:200]
with torch.no_grad():
    states = model.encode(*letters_of([word for word, _ in some]))
widths, by_width, found = (1, 2, 4, 8), [], {}
for width in widths:
    begin = time.process_time()
    search = (beam_search(model.step, h[None], BOS, EOS, width, LIMIT) for h in states)
    found[width] = list(search)
    said = [[symbols[p] for p in tokens] for tokens, _ in found[width]]
    mean = np.mean([score for _, score in found[width]])
    by_width.append((mean, *error_rates(said, some)))
    _, width_per, width_right = by_width[-1]
    print(f"width {width}: mean log P {mean:.3f}  PER {width_per:.3f}", end="  ")
    print(f"right {width_right:.1%}  {time.process_time() - begin:.1f} s", flush=True)
worse = sum(b < a - 1e-3 for (_, a), (_, b) in zip(found[1], found[8], strict=True))
print(f"words for which width 8 found a less likely answer than width 1: {worse}")
means, pers, _ = map(np.array, zip(*by_width, strict=True))
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharex=True)
axes[0].plot(widths, means, "o-", color=plot.COLOURS[0])
axes[1].plot(widths, 100 * pers, "o-", color=plot.COLOURS[1])
axes[0].set(xlabel="width of the beam", ylabel="mean log probability found (nat)", xscale="log")
axes[1].set(xlabel="width of the beam", ylabel="phoneme error rate (%)", ylim=(0, 130 * max(pers)))
axes[0].set_xticks(widths, widths)
axes[0].minorticks_off()
title = "A wider beam finds likelier answers, and about as many errors"
_ = fig.suptitle(title, size=11, weight="bold")

# %% tags=["instructor"]
assert means[1] > means[0] and means[3] > means[0] + 0.02 and means[3] >= means[2] - 0.01
assert abs(pers[3] - pers[0]) < 0.06

# %% [markdown]
# **Question.** From width 4 on the beam finds next to nothing more, and most words are still wrong. What is to blame, the search or the model? And how would you find out for a single word?
#
# <details><summary>Answer</summary>
#
# Compare the score of what was found with the score of the right answer. If the right one scores *higher*, the search missed it; if lower, the model prefers something wrong, and a better search only finds that more surely. The next lines count both: here all errors are the model's, or nearly all. (A wider beam may even find something *less* likely, see the README; the printed count says for how many words.)
#
# </details>


# %%
def score_of(model, word, phonemes):
    """Log probability that the model gives to these phonemes and the end."""
    *given, targets = as_batch([(word, [phonemes])])
    with torch.no_grad():
        return -masked_cross_entropy(model(*given), targets, PAD).item() * targets.numel()


blame = {"search": 0, "model": 0}
for (word, said), (tokens, score) in zip(some, found[4], strict=True):
    if [symbols[p] for p in tokens] not in said:
        best = max(score_of(model, word, each) for each in said)
        blame["search" if best > score + 1e-4 else "model"] += 1
print(f"errors with a beam of 4: {blame}")

# %% tags=["instructor"]
assert blame["search"] < 0.15 * blame["model"]

# %% [markdown]
# **Break.**
#
# ## 9 · On its own words (7 min)
#
# In training every step had the right past. In use the past is the network's own, errors included, and it has never seen a past with an error: *exposure bias* (Ranzato et al., 2016). How much does one error cost? We force the first $k$ right phonemes, let the network go on alone, and count the errors in the rest. Then the same with the $k$-th phoneme replaced by a random one, which is a coarser error than the network's own (IH for AY).


# %%
def rest_after(prefix, state):
    """What the model says after a forced prefix (N, k): a list of lists."""
    calls = itertools.count()  # greedy calls step once for each place, so this counts the places

    def step(tokens, state):
        t = next(calls)
        if 1 <= t <= prefix.shape[1]:
            tokens = prefix[:, t - 1]
        log_p, state = model.step(tokens, state)
        if t < prefix.shape[1]:
            log_p[:, EOS] = -torch.inf  # it may not end within the prefix
        return log_p, state

    return [row[prefix.shape[1] :] for row in greedy(step, state, BOS, EOS, LIMIT)]


lengthy = [pair for pair in test if len(pair[1][0]) >= 8][:400]
true = [[index[p] for p in said[0]] for _, said in lengthy]
with torch.no_grad():
    states = model.encode(*letters_of([word for word, _ in lengthy]))
rng, cost = np.random.default_rng(0), {"all right": [], "k-th wrong": []}
for k in range(1, 7):
    prefix = torch.tensor([row[:k] for row in true], device=device)
    spoiled = prefix.clone()
    shift = torch.tensor(rng.integers(1, 39, len(true)), device=device)
    spoiled[:, -1] = 3 + (prefix[:, -1] - 3 + shift) % 39  # one of the 38 others
    for name, forced in (("all right", prefix), ("k-th wrong", spoiled)):
        rest = rest_after(forced, states)
        errors = [edit_distance(a, b[k:]) for a, b in zip(rest, true, strict=True)]
        cost[name].append(np.mean(errors))
gap = np.subtract(cost["k-th wrong"], cost["all right"])
print("one wrong phoneme costs further errors:", " ".join(f"{g:.2f}" for g in gap))
_ = plot.curves(
    {name: (np.arange(1, 7), values) for name, values in cost.items()},
    xlabel="k phonemes given",
    ylabel="errors in the rest, a word",
    title=f"One wrong phoneme brings {gap.mean():.1f} more, on average",
)

# %% tags=["instructor"]
assert 0.2 < gap.mean() < 2 and min(gap) > 0

# %% [markdown]
# **Question.** Name a way to train a network so that it meets errors. What could go wrong?
#
# <details><summary>Answer</summary>
#
# *Scheduled sampling* (Bengio et al., 2015) feeds the network's own phoneme instead of the right one, with a probability that grows during training. But the target stays what it was: after one phoneme too many, the network is taught to say a phoneme that no longer fits the place. Others train on the error rate itself (Ranzato et al., 2016).
#
# </details>
#
# ## 10 · Where it breaks: length (9 min)
#
# Is it only too little training? The program of the last section trained the same network for 8 epochs, 434 s of computing, and left its weights in `checkpoints/long.pt` ([log](checkpoints/long.txt)). Words right by length, and 596 words of 15 and more letters, which no model here has trained on.

# %%
checkpoint = lab.workshop.folder / "checkpoints" / "long.pt"
saved = torch.load(checkpoint, map_location=device, weights_only=True)
trained = Speaker().to(device)
trained.load_state_dict({name: value.float() for name, value in saved["model"].items()})
answers = {"rules, 10,000 words": (by_rules, [rules(word) for word, _ in long])}
for name, net in ((f"{STEPS} steps", model), ("8 epochs", trained)):
    said = (pronounce(net, [word for word, _ in part]) for part in (test, long))
    answers[f"network, {name}"] = tuple(said)
sizes = np.array([len(word) for word, _ in test])
groups = [(n, n + 1) for n in range(3, 15, 2)]
by_length = {}
for name, (said, said_long) in answers.items():
    hit = np.array([mine in all_of for mine, (_, all_of) in zip(said, test, strict=True)])
    at = [100 * hit[np.isin(sizes, group)].mean() for group in groups]
    (p, r), (p_long, r_long) = error_rates(said, test), error_rates(said_long, long)
    by_length[name] = ([*map(np.mean, groups), 16.5], [*at, 100 * r_long])
    print(f"{name:20} test PER {p:.3f} right {r:5.1%}", end="   ")
    print(f"long words PER {p_long:.3f} right {r_long:5.1%}")
_ = plot.curves(
    by_length,
    xlabel="letters of the word (last point: 15 and more)",
    ylabel="words right (%)",
    title="Trained long, it beats these rules, but not on the longest words",
)

# %% tags=["instructor"]
rules_at, few_at, long_at = (np.array(y) for _, y in by_length.values())
assert long_at[0] > rules_at[0] + 10 and long_at[-1] < rules_at[-1] - 5
assert few_at[-1] < 2 and few_at[-2] < 8 and few_at[0] > 40
assert 0.11 < p < 0.14 and 0.56 < r < 0.63

# %% [markdown]
# The rules may use all words, too. By the same log, made of all 113,871 they have a PER of 0.096 and 59.1 % of the words right, in 109 s; of the long words 49.3 %. So with all words both say the same share of words rightly. The network makes more errors in each word that it gets wrong, and on long words it is lost.
#
# What does the state still know of the letters? A linear probe, as in *transfer-learning*: from $s$, least squares, which letter stood first, second, ... in words of ten letters.


# %%
def states_of(net, words):
    with torch.no_grad():
        return net.encode(*letters_of(words)).cpu()


ten = [word for word, _ in train if len(word) == 10][:6000]
letters = torch.tensor([[ord(letter) - 97 for letter in word] for word in ten])
fit, look = slice(0, 5000), slice(5000, None)
known = {}
networks = {"untrained": Speaker().to(device), f"{STEPS} steps": model, "8 epochs": trained}
for name, net in networks.items():
    s = F.pad(states_of(net, ten), (0, 1), value=1.0).double()  # a column of ones for the bias
    gram = s[fit].T @ s[fit] + torch.eye(s.shape[1])
    W = torch.linalg.solve(gram, s[fit].T @ F.one_hot(letters[fit], 26).flatten(1).double())
    answer = (s[look] @ W).view(-1, 10, 26).argmax(2)
    known[name] = (np.arange(1, 11), 100 * (answer == letters[look]).double().mean(0).numpy())
    print(f"{name:12}", " ".join(f"{v:3.0f}" for v in known[name][1]))
most = [100 * letters[look, n].bincount().max() / len(letters[look]) for n in range(10)]
known["always the commonest"] = (np.arange(1, 11), np.array(most))
_ = plot.curves(
    known,
    xlabel="place of the letter in a word of ten",
    ylabel="letter read from the state (%)",
    title="The trained state blurs the middle of the word",
)

# %% tags=["instructor"]
for name in (f"{STEPS} steps", "8 epochs"):
    at = known[name][1]
    assert min(at[0], at[9]) > 80 > 70 > max(at[4:6])
assert known["untrained"][1][0] < 35 < 90 < known["untrained"][1][9]

# %% [markdown]
# **Question.** Which remedy would you try: more training, a wider state, or something else?
#
# <details><summary>Answer</summary>
#
# More training and a wider state both help, and move the limit: the vector is of one size, words are not. The rules show something else: they never put the word into a vector. They look at the letters that matter *when* they matter. A decoder that could look back at the letters would not need to have it all in $s$. That is the next workshop.
#
# </details>
#
# ## 11 · From notebook to program (8 min)
#
# [say.py](say.py) trains the network, keeps and resumes it, and pronounces words; with `--beam` it prints the best that the beam holds. A sum of logarithms falls with each phoneme, so between hypotheses of different lengths short ones have the advantage. Wu et al. (2016) divide the sum by
#
# $$ \Bigl(\frac{5 + T}{5 + 1}\Bigr)^{\alpha}. $$
#
# By hand: $\log P = -2.4$ with $T = 3$ and $-2.7$ with $T = 7$. At $\alpha = 0$ the first wins; at $\alpha = 1$ they are $-2.4/(8/6) = -1.8$ and $-2.7/2 = -1.35$, and the second wins. Yours to write is `length_score`. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/sequence-modeling/sequence-to-sequence`):
#
#     atlas check length_score
#     python say.py --say knight colonel --checkpoint checkpoints/long.pt
#     python say.py --say rhythm --beam 5 --checkpoint checkpoints/long.pt
#     python say.py --say rhythm --beam 5 --alpha 0.6 --checkpoint checkpoints/long.pt
#     python say.py --words 20000
#
# With $\alpha = 0.6$ *rhythm* moves from R IH TH to R IH TH M; right is neither. It is a rare case: of the first 600 validation words, $\alpha = 0.6$ moves no first place with a beam of 5, for the hypotheses of a word are of nearly equal lengths. In translation they are not. The last line trains on 20,000 words, some 20 s of computing; PER 0.38 is what to expect (a second call wants `--overwrite`).
#
# **Question.** *colonel* was among the training words, eight times, and is still said wrongly. Why does the network not know it?
#
# <details><summary>Answer</summary>
#
# In *colony* and its like the same letters are K AA L AH, and that is what it says. K ER would have to be learned by heart, and one word (and its plural) among 113,871 has little pull on weights that all of them share.
#
# </details>
