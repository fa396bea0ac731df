"""Pronounce words: an encoder-decoder that reads letters and writes phonemes, and a table of rules to hold it against.

python say.py                                 train on CMUdict; keeps runs/say.pt, draws runs/say.png
python say.py --resume --epochs 4             go on with that training, to 4 epochs
python say.py --say knight colonel            what the trained network says of these words
python say.py --say knight --beam 5           the five best that a beam of width 5 finds
python say.py --test                          phoneme error rate and words right, on words that it has not seen
python say.py --rules 30000                   the same for a table of rules made of so many words

--checkpoint names another network, such as checkpoints/long.pt. --export writes its weights in half precision.
"""

import argparse
import math
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

import atlas
from atlas import plot, program

CONFIG = {
    "words": 113_871,
    "width": 192,
    "lr": 8e-3,
    "decay": 0.6,
    "batch_size": 128,
    "stress": False,
    "seed": 0,
}
PAD, BOS, EOS = 0, 1, 2
LIMIT = 30  # phonemes; the longest of all words has 28


# ------------------------------------------------------------------------------------------------ words


def load_words(stress=False):
    """Split → list of (word, pronunciations), and the symbols: <pad>, <bos>, <eos>, then the phonemes."""
    data = atlas.data.load("cmudict")
    splits = {"train": data.train, "valid": data.valid, "test": data.test, "long": data.more["long"]}

    def symbols_of(text):
        return [symbol if stress else symbol.rstrip("012") for symbol in text.split()]

    words = {name: [(w, [symbols_of(said) for said in all_of]) for w, all_of in part] for name, part in splits.items()}
    return words, ["<pad>", "<bos>", "<eos>", *sorted({p for _, said in words["train"] for p in said[0]})]


def letters_of(words):
    """Letters as numbers, a is 1, padded with 0: (B, S), and how many each word has: (B,)."""
    rows = [torch.tensor([ord(letter) - 96 for letter in word]) for word in words]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def batches_of(pairs, symbols, size, generator=None):
    """Lists of (letters, lengths, inputs, targets), of words of like length, in a random order where it is asked for."""
    index = {symbol: n for n, symbol in enumerate(symbols)}
    shuffled = torch.randperm(len(pairs), generator=generator).tolist() if generator else range(len(pairs))
    order = sorted(shuffled, key=lambda n: (len(pairs[n][0]), len(pairs[n][1][0])))
    parts = [order[n : n + size] for n in range(0, len(order), size)]
    for n in torch.randperm(len(parts), generator=generator).tolist() if generator else range(len(parts)):
        some = [pairs[k] for k in parts[n]]
        said = [torch.tensor([BOS, *(index[p] for p in each[0]), EOS]) for _, each in some]
        inputs = pad_sequence([row[:-1] for row in said], batch_first=True)
        targets = pad_sequence([row[1:] for row in said], batch_first=True)
        yield *letters_of([word for word, _ in some]), inputs, targets


# ------------------------------------------------------------------------------------------------ the network


class Speaker(nn.Module):
    """Encoder and decoder, one GRU each; nothing but a state (B, D) goes from one to the other."""

    def __init__(self, symbols, width):
        super().__init__()
        self.letters = nn.Embedding(27, 64, padding_idx=PAD)
        self.encoder = nn.GRU(64, width, batch_first=True)
        self.phonemes = nn.Embedding(symbols, 64, padding_idx=PAD)
        self.decoder = nn.GRU(64, width, batch_first=True)
        self.out = nn.Linear(width, symbols)

    def encode(self, letters, lengths):
        """Letters (B, S) and lengths (B,) to a state (B, D)."""
        packed = pack_padded_sequence(self.letters(letters), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.encoder(packed)[1][0]

    def forward(self, letters, lengths, inputs):
        """Logits (B, T, K) for what follows each of the inputs (B, T)."""
        state = self.encode(letters, lengths)
        return self.out(self.decoder(self.phonemes(inputs), state[None])[0])

    def step(self, tokens, state):
        """Tokens (N,) and states (N, D) to log probabilities of what is next (N, K), and new states (N, D)."""
        output, state = self.decoder(self.phonemes(tokens)[:, None], state[None])
        return self.out(output[:, 0]).log_softmax(1), state[0]


@torch.no_grad()
def beam_search(step, state, width):
    """The `width` best (score, phonemes) that a beam finds for one word; finished ones stay in it and compete."""
    beam = [(0.0, [], False)]
    tokens = torch.full((1,), BOS, device=state.device)
    for _ in range(LIMIT):
        log_p, state = step(tokens, state)
        found = [(score, said, None, True) for score, said, done in beam if done]
        opened = [each for each in beam if not each[2]]
        for row, (score, said, _) in enumerate(opened):
            best = log_p[row].topk(min(width, log_p.shape[1]))
            for more, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                longer = said if token == EOS else [*said, token]
                found.append((score + more, longer, (row, token), token == EOS))
        found = sorted(found, key=lambda each: -each[0])[:width]
        beam = [(score, said, done) for score, said, _, done in found]
        rows = [where for _, _, where, done in found if not done]
        if not rows:
            break
        state = state[[row for row, _ in rows]]
        tokens = torch.tensor([token for _, token in rows], device=state.device)
    return [(score, said) for score, said, _ in beam]


@torch.no_grad()
def greedy(model, letters, lengths):
    """The likeliest phoneme, then the likeliest after it, ...: a list of numbers for each word."""
    state = model.encode(letters, lengths)
    tokens = torch.full((len(letters),), BOS, device=letters.device)
    open_ones, said = torch.ones_like(tokens, dtype=torch.bool), []
    while open_ones.any() and len(said) < LIMIT:
        log_p, state = model.step(tokens, state)
        tokens = log_p.argmax(1)
        open_ones &= tokens != EOS
        said.append(torch.where(open_ones, tokens, PAD))
    return [[p for p in row if p != PAD] for row in torch.stack(said, 1).tolist()]


def length_score(log_probability, length, alpha):
    """What a beam's hypotheses are ranked by, so that long ones are not put last for their length alone.

    log_probability: the sum of the logarithms, at most 0. length: phonemes without the end sign, 0 or more.
    alpha: 0 leaves the sum as it is, larger ones favour longer hypotheses.
    Returns log_probability / ((5 + length) / 6) ** alpha (Wu et al., 2016), a number.
    """
    # TODO: the formula. The brackets matter: what is raised to alpha, and what is divided.
    ### BEGIN SOLUTION
    return log_probability / ((5 + length) / 6) ** alpha
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ how wrong


def edit_distance(a, b):
    """The least number of insertions, deletions and substitutions that make b of a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def error_rates(said, pairs):
    """Phoneme error rate and share of words right, against the nearest pronunciation of each word."""
    errors = phonemes = right = 0
    for mine, (_, all_of) in zip(said, pairs, strict=True):
        wrong, length = min((edit_distance(mine, each), len(each)) for each in all_of)
        errors, phonemes, right = errors + wrong, phonemes + length, right + (wrong == 0)
    return errors / phonemes, right / len(pairs)


def pronounce(model, symbols, words, device="cpu"):
    """Phonemes of each word, by greedy decoding."""
    model.eval()
    said = []
    for n in range(0, len(words), 500):
        letters, lengths = letters_of(words[n : n + 500])
        said += [[symbols[p] for p in row] for row in greedy(model, letters.to(device), lengths)]
    return said


# ------------------------------------------------------------------------------------------------ rules


class Rules:
    """Spelling to sound without a network: the commonest chunk of phonemes for a letter in its surroundings.

    Each letter of a training word is aligned with 0, 1 or 2 phonemes, so that the whole is likeliest, and the
    likelihoods are counted anew (hard EM). Of a new word's letter the widest surroundings that were seen decide, from
    four letters on both sides down to the letter alone.
    """

    def __init__(self, pairs, rounds=4, reach=4):
        words = [(f"^{word}$", all_of[0]) for word, all_of in pairs]
        counts = defaultdict(Counter)
        for word, phonemes in words:  # to begin with: whatever lies near the diagonal
            for n, letter in enumerate(word):
                middle = round(n * len(phonemes) / len(word))
                for begin in range(max(0, middle - 1), min(len(phonemes), middle + 1) + 1):
                    for end in range(begin, min(len(phonemes), begin + 2) + 1):
                        counts[letter][tuple(phonemes[begin:end])] += 0.1 if end - begin == 2 else 1
        for each in program.progress(range(rounds), "rules"):
            costs = self._costs(counts)
            aligned = [self._align(word, phonemes, costs) for word, phonemes in words]
            if each < rounds - 1:
                counts = defaultdict(Counter)
                for (word, _), chunks in zip(words, aligned, strict=True):
                    for letter, chunk in zip(word, chunks or (), strict=bool(chunks)):
                        counts[letter][chunk] += 1
        seen = defaultdict(Counter)
        for (word, _), chunks in zip(words, aligned, strict=True):
            for n, chunk in enumerate(chunks or ()):
                for window in self._windows(word, n, reach):
                    seen[window][chunk] += 1
        self.reach, self.chunks = reach, {window: found.most_common(1)[0][0] for window, found in seen.items()}

    def __call__(self, word):
        """The phonemes of a word."""
        word, said = f"^{word}$", []
        for n in range(len(word)):
            said += next((self.chunks[w] for w in self._windows(word, n, self.reach) if w in self.chunks), ())
        return said

    @staticmethod
    def _windows(word, n, reach):
        """(letters, place of the letter in them), from wide to narrow."""
        for width in range(2 * reach, -1, -1):
            left, right = (width + 1) // 2, width // 2
            yield word[max(0, n - left) : n + right + 1], min(n, left)

    @staticmethod
    def _costs(counts):
        return {
            letter: {chunk: -math.log(n / found.total()) for chunk, n in found.items()}
            for letter, found in counts.items()
        }

    @staticmethod
    def _align(word, phonemes, costs):
        """The cheapest chunk for each letter; None where none fits."""
        m, best = len(phonemes), {0: (0.0, None, None)}  # phonemes used → cost, the chunk, what came before
        for letter in word:
            known, after = costs[letter], {}
            for used, step in best.items():
                for end in range(used, min(used + 2, m) + 1):
                    chunk = tuple(phonemes[used:end])
                    cost = step[0] + known.get(chunk, 12.0)
                    if end not in after or cost < after[end][0]:
                        after[end] = cost, chunk, step
            best = after
        step, chunks = best.get(m), []
        while step and step[2] is not None:
            chunks.append(step[1])
            step = step[2]
        return chunks[::-1] or None


# ------------------------------------------------------------------------------------------------ training


def train_epoch(model, batches, optimizer, config, epoch):
    """Each word once. The rate rises in the first 5 % of the first epoch, and falls by `decay` from epoch to epoch."""
    model.train()
    total = count = 0
    for n, (letters, lengths, inputs, targets) in enumerate(program.progress(batches, f"epoch {epoch}"), 1):
        done = n / len(batches)
        warm = min(1.0, done / 0.05) if epoch == 1 else 1.0
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * warm * config["decay"] ** (epoch - 1 + done)
        logits = model(letters, lengths, inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        known = int((targets != PAD).sum())
        total, count = total + loss.item() * known, count + known
    return total / count


@torch.no_grad()
def validation_loss(model, batches):
    """Cross-entropy for each phoneme and end sign."""
    model.eval()
    total = count = 0
    for letters, lengths, inputs, targets in batches:
        logits = model(letters, lengths, inputs).flatten(0, 1)
        total += F.cross_entropy(logits, targets.flatten(), ignore_index=PAD, reduction="sum").item()
        count += int((targets != PAD).sum())
    return total / count


def train(options, config, words, symbols, device, saved=None):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch."""
    torch.manual_seed(config["seed"])
    model = Speaker(len(symbols), config["width"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.01)
    history = {"train loss": [], "val loss": [], "val PER": []}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
    pairs, valid = words["train"][: config["words"]], words["valid"]

    def on_device(batches):
        return [tuple(each.to(device) for each in batch) for batch in batches]

    held_out = on_device(batches_of(valid, symbols, 250))
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        generator = torch.Generator().manual_seed(1000 * config["seed"] + epoch)
        batches = on_device(batches_of(pairs, symbols, config["batch_size"], generator))
        loss = train_epoch(model, batches, optimizer, config, epoch)
        said = pronounce(model, symbols, [word for word, _ in valid], device)
        for name, value in zip(
            history, (loss, validation_loss(model, held_out), error_rates(said, valid)[0]), strict=True
        ):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        program.save(options.checkpoint, {**states, "symbols": symbols, "history": history, "config": config})
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time():.0f} s", flush=True)
    return model, history


# ------------------------------------------------------------------------------------------------ the program


def restore(path):
    """The network of a checkpoint, its symbols, and the checkpoint."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        model = Speaker(len(saved["symbols"]), saved["config"]["width"])
        model.load_state_dict({name: value.float() for name, value in saved["model"].items()})
        return model.eval(), saved["symbols"], saved


def say(words, checkpoint, beam, alpha):
    """Print what the checkpoint's network makes of each word; with a beam, the best that it finds and their scores."""
    for word in words:
        if not (word.isascii() and word.isalpha()):
            sys.exit(f"{word!r} has something other than the letters a to z in it; leave that out.")
    model, symbols, _ = restore(checkpoint)
    show(model, symbols, words, beam, alpha)


@torch.no_grad()
def encoded(model, word):
    letters, lengths = letters_of([word.lower()])
    return model.encode(letters.to(model.out.weight.device), lengths)


def show(model, symbols, words, beam, alpha):
    """Print what a network makes of each word; with a beam, in the order of length_score."""
    for word in words:
        if beam == 1:
            device = model.out.weight.device
            print(f"{word:16} {' '.join(pronounce(model, symbols, [word.lower()], device)[0])}")
            continue
        found = beam_search(model.step, encoded(model, word), beam)
        scored = [(length_score(score, len(tokens), alpha), score, tokens) for score, tokens in found]
        for rank, (scaled, score, tokens) in enumerate(sorted(scored, reverse=True)):
            text = " ".join(symbols[p] for p in tokens)
            print(f"{word if rank == 0 else '':16} {text:40} score {scaled:7.3f}   probability {math.exp(score):.3f}")


def report(name, said, pairs):
    rate, right = error_rates(said, pairs)
    print(f"{name}: phoneme error rate {rate:.4f}, words right {100 * right:.2f} %", flush=True)


def test(model, symbols, words, device="cpu"):
    for name in ("test", "long"):
        report(name, pronounce(model, symbols, [word for word, _ in words[name]], device), words[name])


def draw(path, history):
    """Write the figure: how the training went."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, rates = figure.subplots(1, 2)
    shown = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(shown, ylabel="cross-entropy (nat)", title="Loss", ax=losses)
    plot.curves({"validation": history["val PER"]}, ylabel="phoneme error rate", title="Errors", ax=rates)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=1, help="train until so many are done (1)")
    add("--words", type=program.number(int, 1, 113_871), help="train on so many words only (all)")
    add("--width", type=program.number(int, 1, 2048), help=f"numbers in the state ({CONFIG['width']})")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"highest learning rate ({CONFIG['lr']})")
    add("--decay", type=program.number(float, 0.001, 1), help=f"its factor from epoch to epoch ({CONFIG['decay']})")
    add("--batch-size", type=program.number(int, 1, 10_000), help=f"words in a step ({CONFIG['batch_size']})")
    add("--stress", action="store_true", default=None, help="learn the vowels' stress, too")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/say.pt"), metavar="PATH", help="the network (runs/say.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--say", nargs="+", metavar="TEXT", help="pronounce these words, and end")
    add("--beam", type=program.number(int, 1, 1000), default=1, help="width of the beam (1; after training at least 2)")
    add("--alpha", type=program.number(float, 0, 10), default=0.0, help="with --beam: favour for long ones (0)")
    add("--test", action="store_true", help="measure the network on words that it has not seen, and end")
    add("--rules", type=program.number(int, 1, 113_871), help="measure rules of so many words, and end")
    add("--export", type=Path, metavar="PATH", help="write the weights alone, in half precision, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.say:
        return say(options.say, options.checkpoint, options.beam, options.alpha)
    if options.export:
        _, symbols, saved = restore(options.checkpoint)
        weights = {name: value.half() for name, value in saved["model"].items()}
        facts = {"symbols": symbols, "history": saved["history"], "config": saved["config"]}
        return program.save(options.export, {"model": weights, **facts})
    if options.test:
        model, symbols, saved = restore(options.checkpoint)
        return test(model, symbols, load_words(saved["config"]["stress"])[0])
    if options.rules:
        words, _ = load_words(bool(options.stress))
        rules = Rules(words["train"][: options.rules])
        for name in ("test", "long"):
            report(name, [rules(word) for word, _ in words[name]], words[name])
        return print(f"computed {time.process_time():.0f} s")
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    words, symbols = load_words(config["stress"])
    program.reserve(options)
    model, history = train(options, config, words, symbols, device, saved)
    show(model.eval(), symbols, [word for word, _ in words["test"][:2]], max(2, options.beam), options.alpha)
    test(model, symbols, words, device)
    draw(options.figure or options.checkpoint.with_suffix(".png"), history)
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
