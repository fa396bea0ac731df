"""Pronounce words by a decoder that looks back at the letters, and show where it looked.

python align.py                                    train on CMUdict; keeps runs/align.pt, draws runs/align.png
python align.py --attention additive               the same with scores from a small network; or mean, or none
python align.py --resume --epochs 4                go on with that training, to 4 epochs
python align.py --say knight colonel               what it says, and the letters it looked at; draws runs/align-say.png
python align.py --test                             phoneme error rate and words right, on words that it has not seen
python align.py --rules 30000                      the same for a table of rules made of so many words

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
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import atlas
from atlas import plot, program

CONFIG = {
    "words": 113_871,
    "width": 192,
    "attention": "dot",
    "lr": 8e-3,
    "decay": 0.1,
    "batch_size": 128,
    "seed": 0,
}
PAD, BOS, EOS = 0, 1, 2
LIMIT = 30  # phonemes; the longest of all words has 28


# ------------------------------------------------------------------------------------------------ words


def load_words():
    """Split → list of (word, pronunciations), and the symbols: <pad>, <bos>, <eos>, then the phonemes."""
    data = atlas.data.load("cmudict")
    splits = {"train": data.train, "valid": data.valid, "test": data.test, "long": data.more["long"]}

    def symbols_of(text):
        return [symbol.rstrip("012") for symbol in text.split()]

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


class Additive(nn.Module):
    """Scores (B, T, S) of queries (B, T, D) and keys (B, S, E) by a small network (Bahdanau et al., 2015)."""

    def __init__(self, width, hidden=128):
        super().__init__()
        self.W_q = nn.Parameter(torch.randn(width, hidden) / width**0.5)
        self.W_k = nn.Parameter(torch.randn(width, hidden) / width**0.5)
        self.v = nn.Parameter(torch.randn(hidden) / hidden**0.5)

    def forward(self, queries, keys):
        hidden = (queries @ self.W_q).unsqueeze(2) + (keys @ self.W_k).unsqueeze(1)  # (B, T, S, A)
        return hidden.tanh() @ self.v


class Dot(nn.Module):
    """The same by a product (Luong et al., 2015), divided by the root of its length."""

    def __init__(self, width):
        super().__init__()
        self.W = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, queries, keys):
        return torch.einsum("btd,de,bse->bts", queries, self.W, keys) / keys.shape[2] ** 0.5


class Mean(nn.Module):
    """No preference: all scores are 0, so every letter counts the same."""

    def __init__(self, width):
        super().__init__()

    def forward(self, queries, keys):
        return queries.new_zeros(len(queries), queries.shape[1], keys.shape[1])


SCORES = {"dot": Dot, "additive": Additive, "mean": Mean}


class Speaker(nn.Module):
    """Encoder and decoder. attention none: nothing but a state goes from one to the other, as in sequence-to-sequence;
    else the encoder reads in both directions, and the decoder looks at its outputs.

    What a decoder knows of a word is its memory: keys (B, S, D) and mask (B, S), True at letters.
    """

    def __init__(self, symbols, width, attention, sources=27):
        super().__init__()
        looks = attention != "none"
        self.letters = nn.Embedding(sources, 64, padding_idx=PAD)
        self.encoder = nn.GRU(64, width // 2 if looks else width, batch_first=True, bidirectional=looks)
        self.phonemes = nn.Embedding(symbols, 64, padding_idx=PAD)
        self.decoder = nn.GRU(64, width, batch_first=True)
        self.score = SCORES[attention](width) if looks else None
        mix = [nn.Linear(2 * width, width), nn.Tanh()] if looks else []
        self.out = nn.Sequential(*mix, nn.Linear(width, symbols))

    def encode(self, letters, lengths):
        """Letters (B, S) and lengths (B,) to a state (B, D) and the memory."""
        packed = pack_padded_sequence(self.letters(letters), lengths.cpu(), batch_first=True, enforce_sorted=False)
        keys, state = self.encoder(packed)
        keys, _ = pad_packed_sequence(keys, batch_first=True, total_length=letters.shape[1])
        return state.transpose(0, 1).flatten(1), (keys, letters != PAD)

    def look(self, states, memory):
        """States (B, T, D) to logits (B, T, K), and the weights of the letters (B, T, S), or None where it looks not."""
        keys, mask = memory
        if self.score is None:
            return self.out(states), None
        weights = self.score(states, keys).masked_fill(~mask[:, None], -torch.inf).softmax(2)
        return self.out(torch.cat([weights @ keys, states], 2)), weights

    def forward(self, letters, lengths, inputs):
        """Logits (B, T, K) for what follows each of the inputs (B, T)."""
        state, memory = self.encode(letters, lengths)
        return self.look(self.decoder(self.phonemes(inputs), state[None])[0], memory)[0]


@torch.no_grad()
def greedy(model, letters, lengths):
    """The likeliest phoneme, then the likeliest after it, ...: a list of numbers for each word; and the weights
    (T, letters of the word) of each, or None where the model looks not."""
    state, memory = model.encode(letters, lengths)
    tokens = torch.full((len(letters),), BOS, device=letters.device)
    open_ones, said, maps = torch.ones_like(tokens, dtype=torch.bool), [], []
    while open_ones.any() and len(said) < LIMIT:
        output, state = model.decoder(model.phonemes(tokens)[:, None], state[None])
        logits, weights = model.look(output, memory)
        state, tokens = state[0], logits[:, 0].argmax(1)
        open_ones &= tokens != EOS
        said.append(torch.where(open_ones, tokens, PAD))
        maps.append(weights)
    rows = [[p for p in row if p != PAD] for row in torch.stack(said, 1).tolist()]
    if maps[0] is None:
        return rows, [None] * len(rows)
    whole = torch.cat(maps, 1).cpu()
    return rows, [whole[n, : len(row), : lengths[n]] for n, row in enumerate(rows)]


def attention_table(word, phonemes, weights):
    """Where the decoder looked, as a table for a terminal.

    word: str of S letters. phonemes: list of T strings. weights: tensor (T, S), each row sums to 1.
    Returns a str of T + 1 lines, joined by a line break, none after the last. The first line: 5 blanks,
    then each letter, right-aligned in 4 columns. Then for each phoneme a line: the phoneme, left-aligned
    in 5 columns, and its weights in percent, rounded to whole numbers, each right-aligned in 4 columns.
    """
    # TODO: f"{letter:>4}" puts a text to the right of 4 columns, f"{100 * w:4.0f}" rounds a number.
    ### BEGIN SOLUTION
    lines = [" " * 5 + "".join(f"{letter:>4}" for letter in word)]
    for phoneme, row in zip(phonemes, weights.tolist(), strict=True):
        lines.append(f"{phoneme:<5}" + "".join(f"{100 * w:4.0f}" for w in row))
    return "\n".join(lines)
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
    """Phonemes of each word, by greedy decoding, and the weights of each."""
    model.eval()
    said, maps = [], []
    for n in range(0, len(words), 500):
        letters, lengths = letters_of(words[n : n + 500])
        rows, weights = greedy(model, letters.to(device), lengths)
        said += [[symbols[p] for p in row] for row in rows]
        maps += weights
    return said, maps


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
        self.costs, self.reach = costs, reach
        self.chunks = {window: found.most_common(1)[0][0] for window, found in seen.items()}

    def __call__(self, word):
        """The phonemes of a word."""
        word, said = f"^{word}$", []
        for n in range(len(word)):
            said += next((self.chunks[w] for w in self._windows(word, n, self.reach) if w in self.chunks), ())
        return said

    def letters(self, word, phonemes):
        """For each phoneme the place of the letter that it is aligned with; None where no alignment fits."""
        chunks = self._align(f"^{word}$", phonemes, self.costs)
        places = [n for n, chunk in enumerate(chunks or ()) for _ in chunk]
        return [min(max(n - 1, 0), len(word) - 1) for n in places] if chunks else None

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
    """Each word once. The rate rises in the first 5 % of the first epoch, and falls by `decay` from epoch to epoch.
    Returns the loss of each step, and how many phonemes it had."""
    model.train()
    losses = []
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
        losses.append((loss.item(), int((targets != PAD).sum())))
    return losses


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
    model = Speaker(len(symbols), config["width"], config["attention"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    history, steps = {"train loss": [], "val loss": [], "val PER": []}, []
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history, steps = saved["history"], saved["steps"]
    pairs, valid = words["train"][: config["words"]], words["valid"]

    def on_device(batches):
        return [tuple(each.to(device) for each in batch) for batch in batches]

    show("before", model, symbols, device)
    held_out = on_device(batches_of(valid, symbols, 250))
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        generator = torch.Generator().manual_seed(1000 * config["seed"] + epoch)
        batches = on_device(batches_of(pairs, symbols, config["batch_size"], generator))
        losses = train_epoch(model, batches, optimizer, config, epoch)
        steps += [loss for loss, _ in losses]
        mean = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        said, _ = pronounce(model, symbols, [word for word, _ in valid], device)
        now = mean, validation_loss(model, held_out), error_rates(said, valid)[0]
        for name, value in zip(history, now, strict=True):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": steps}
        program.save(options.checkpoint, {**states, "symbols": symbols, "history": history, "config": config})
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time():.0f} s", flush=True)
    return model, history


# ------------------------------------------------------------------------------------------------ the program


def restore(path):
    """The network of a checkpoint, its symbols, and the checkpoint."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        model = Speaker(len(saved["symbols"]), saved["config"]["width"], saved["config"]["attention"])
        model.load_state_dict({name: value.float() for name, value in saved["model"].items()})
        return model.eval(), saved["symbols"], saved


def say(words, checkpoint, figure):
    """Print what the checkpoint's network makes of each word, and where it looked; draw that."""
    for word in words:
        if not (word.isascii() and word.isalpha()):
            sys.exit(f"{word!r} has something other than the letters a to z in it; leave that out.")
    model, symbols, _ = restore(checkpoint)
    words = [word.lower() for word in words]
    said, maps = pronounce(model, symbols, words)
    for word, phonemes, weights in zip(words, said, maps, strict=True):
        print(f"{word:16} {' '.join(phonemes)}")
        if weights is not None:
            print(attention_table(word, phonemes, weights))
    if maps[0] is not None:
        draw_maps(figure, words, said, maps)


def show(when, model, symbols, device, word="knight"):
    """Print where the network looks for the first phonemes that it says of a word."""
    (phonemes,), (weights,) = pronounce(model, symbols, [word], device)
    print(f"{when}: {word} {' '.join(phonemes[:4])}")
    if weights is not None:
        print(attention_table(word, phonemes[:4], weights[:4]), flush=True)


def draw_maps(path, words, said, maps):
    """Write the figure: one map a word, letters along, phonemes down."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 0.36 * sum(map(len, words)) + len(words), 4), layout="constrained")
    panels = figure.subplots(1, len(words), squeeze=False, width_ratios=[len(word) for word in words])
    for ax, word, phonemes, weights in zip(panels[0], words, said, maps, strict=True):
        ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
        ax.set_xticks(range(len(word)), list(word))
        ax.set_yticks(range(len(phonemes)), phonemes)
        ax.set(xlabel="letters", title=word)
    panels[0][0].set_ylabel("phonemes")
    program.save_figure(figure, path)


def report(name, said, pairs):
    rate, right = error_rates(said, pairs)
    print(f"{name}: phoneme error rate {rate:.4f}, words right {100 * right:.2f} %", flush=True)


def test(model, symbols, words, device="cpu"):
    for name in ("test", "long"):
        report(name, pronounce(model, symbols, [word for word, _ in words[name]], device)[0], words[name])


def measure_rules(count, words, export):
    """Rules of so many words: how good they are; with export, what they say, and the letter they give each phoneme."""
    rules, answers = Rules(words["train"][:count]), {}
    for name in ("test", "long"):
        answers[name] = [rules(word) for word, _ in words[name]]
        report(name, answers[name], words[name])
    print(f"computed {time.process_time():.0f} s")
    if export:
        program.save(export, {"answers": answers, "letters": [rules.letters(w, said[0]) for w, said in words["test"]]})


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
    add("--words", type=program.number(int, 1, 113_871), help="train on the first so many words only (all)")
    add("--width", type=program.number(int, 2, 2048), help=f"numbers in the state, even ({CONFIG['width']})")
    add("--attention", choices=[*SCORES, "none"], help=f"how letters are scored ({CONFIG['attention']})")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"highest learning rate ({CONFIG['lr']})")
    add("--decay", type=program.number(float, 0.001, 1), help=f"its factor from epoch to epoch ({CONFIG['decay']})")
    add("--batch-size", type=program.number(int, 1, 10_000), help=f"words in a step ({CONFIG['batch_size']})")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/align.pt"), metavar="PATH", help="the network (runs/align.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--say", nargs="+", metavar="TEXT", help="pronounce these words, show where it looked, and end")
    add("--test", action="store_true", help="measure the network on words that it has not seen, and end")
    add("--rules", type=program.number(int, 1, 113_871), help="measure rules of so many words, and end")
    add(
        "--export", type=Path, metavar="PATH", help="write the weights in half precision, and end; with --rules, theirs"
    )
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.say:
        return say(options.say, options.checkpoint, options.figure or Path("runs/align-say.png"))
    if options.rules:
        return measure_rules(options.rules, load_words()[0], options.export)
    if options.export:
        _, _, saved = restore(options.checkpoint)
        weights = {name: value.half() for name, value in saved["model"].items()}
        return program.save(options.export, saved | {"model": weights, "optimizer": {}})
    if options.test:
        model, symbols, _ = restore(options.checkpoint)
        return test(model, symbols, load_words()[0])
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if config["width"] % 2:
        parser.error(f"--width {config['width']}: half of it reads forwards and half backwards, so it has to be even")
    words, symbols = load_words()
    program.reserve(options)
    model, history = train(options, config, words, symbols, device, saved)
    test(model, symbols, words, device)
    show("after", model, symbols, device)
    draw(options.figure or options.checkpoint.with_suffix(".png"), history)
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
