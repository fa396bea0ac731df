"""The project's reference: an encoder-decoder Transformer that reads spelling and writes sound.

python project_speak.py              57,600 words once: two seeds, and without positions; writes speak.json and speak.png
python project_speak.py --quick      the same with so little that it only shows that everything runs

The network of attention-for-sequences had the same words, once, and is what it is held against (PER 0.126).
"""

import argparse
import json
import time
from pathlib import Path

import torch
from gpt import sines
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import atlas
from atlas import plot, program

PAD, BOS, EOS, LIMIT = 0, 1, 2, 30


def load_words():
    """Split → list of (word, pronunciations), and the symbols: <pad>, <bos>, <eos>, then the phonemes."""
    data = atlas.data.load("cmudict")

    def said(text):
        return [symbol.rstrip("012") for symbol in text.split()]

    splits = {"train": data.train, "test": data.test}
    words = {name: [(w, [said(s) for s in all_of]) for w, all_of in part] for name, part in splits.items()}
    return words, ["<pad>", "<bos>", "<eos>", *sorted({p for _, all_of in words["train"] for p in all_of[0]})]


def letters_of(words):
    """Letters as numbers, a is 1, padded with 0: (B, S)."""
    return pad_sequence([torch.tensor([ord(c) - 96 for c in word]) for word in words], batch_first=True)


def batches_of(pairs, symbols, size, generator):
    """(letters, inputs, targets) of words of like length, in random order."""
    index = {symbol: n for n, symbol in enumerate(symbols)}
    shuffled = torch.randperm(len(pairs), generator=generator).tolist()
    order = sorted(shuffled, key=lambda n: (len(pairs[n][0]), len(pairs[n][1][0])))
    for n in torch.randperm(len(order) // size, generator=generator).tolist():
        some = [pairs[k] for k in order[n * size : (n + 1) * size]]
        rows = [torch.tensor([BOS, *(index[p] for p in said[0]), EOS]) for _, said in some]
        inputs, targets = ([row[a:b] for row in rows] for a, b in ((0, -1), (1, None)))
        yield (letters_of([word for word, _ in some]), *(pad_sequence(x, batch_first=True) for x in (inputs, targets)))


class Speaker(nn.Module):
    """Encoder and decoder of PyTorch's layers, norm first: each of them is the notebook's block or decoder_block."""

    def __init__(self, symbols, width=96, layers=2, heads=4, positions=True):
        super().__init__()
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.letters, self.phonemes = nn.Embedding(27, width, PAD), nn.Embedding(symbols, width, PAD)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(layers)
        )
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, 4 * width, **options) for _ in range(layers)
        )
        self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out, self.positions = nn.Linear(width, symbols), positions

    def placed(self, x):
        return x + sines(x.shape[1], x.shape[2]) if self.positions else x

    def encode(self, letters):
        """Letters (B, S) to the memory (B, S, D), and the mask of what is to be ignored."""
        x, ignored = self.placed(self.letters(letters)), letters == PAD
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=ignored)
        return self.memory_norm(x), ignored

    def decode(self, inputs, memory, ignored):
        """Logits (B, T, K) for what follows each of the inputs (B, T)."""
        x, T = self.placed(self.phonemes(inputs)), inputs.shape[1]
        later = torch.ones(T, T, dtype=torch.bool).triu(1)
        for layer in self.decoder:
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=ignored)
        return self.out(self.norm(x))


def train(pairs, symbols, config, seed, positions):
    """A network after every word once, and the loss of each step."""
    torch.manual_seed(seed)
    model, losses = Speaker(len(symbols), config["width"], positions=positions), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    batches = list(batches_of(pairs, symbols, config["size"], torch.Generator().manual_seed(seed)))
    for n, (letters, inputs, targets) in enumerate(program.progress(batches, f"seed {seed}"), 1):
        done = n / len(batches)
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, done / 0.1) * 0.05**done
        logits = model.decode(inputs, *model.encode(letters))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


@torch.no_grad()
def pronounce(model, words, symbols):
    """Phonemes of each word, greedily, without a cache."""
    said = []
    for n in range(0, len(words), 250):
        memory, ignored = model.encode(letters_of(words[n : n + 250]))
        tokens = torch.full((len(memory), 1), BOS)
        ended = torch.zeros(len(memory), dtype=torch.bool)
        while not ended.all() and tokens.shape[1] <= LIMIT:
            new = model.decode(tokens, memory, ignored)[:, -1].argmax(1)
            ended |= new == EOS
            tokens = torch.cat([tokens, torch.where(ended, EOS, new)[:, None]], 1)
        said += [[symbols[p] for p in row if p > EOS] for row in tokens.tolist()]
    return said


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="so little that it only shows that everything runs")
    parser.add_argument("--words", type=program.number(int, 128, 113_871), default=57_600, help="to train on (57,600)")
    options = parser.parse_args()
    config = {"size": 32, "width": 16} if options.quick else {"size": 128, "width": 96}
    words, symbols = load_words()
    count, tested = (320, 100) if options.quick else (options.words, 2000)
    found, curves = {}, {}
    for name, seed, positions in (("seed 0", 0, True), ("seed 1", 1, True), ("without positions", 0, False)):
        begin = time.process_time()
        model, losses = train(words["train"][:count], symbols, config, seed, positions)
        trained = time.process_time() - begin
        test = words["test"][:tested]
        rate, right = error_rates(pronounce(model, [word for word, _ in test], symbols), test)
        found[name] = {
            "PER": rate,
            "right": right,
            "training": trained,
            "decoding": time.process_time() - begin - trained,
        }
        curves[name] = [sum(losses[n : n + 10]) / 10 for n in range(0, len(losses) - 9, 10)]
        line = "   ".join(f"{key} {value:.3f}" for key, value in found[name].items())
        print(f"{name:18} {line}", flush=True)
    Path("speak.json").write_text(json.dumps(found, indent=1))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    plot.curves(curves, xlabel="tens of steps", ylabel="cross-entropy (nat)", title="Loss", ax=figure.subplots())
    program.save_figure(figure, Path("speak.png"))


if __name__ == "__main__":
    program.run(main)
