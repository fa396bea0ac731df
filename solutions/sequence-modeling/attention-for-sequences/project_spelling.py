"""The project's reference: the way back, from sound to spelling, by rules and by a decoder that looks.

python project_spelling.py              train on 57,600 words, two seeds; writes spelling.json and spelling.png
python project_spelling.py --quick      the same with so little that it only shows that everything runs

A spelling counts as right if any word of the dictionary is spelled so and said so (knight, night). What is spelled
wrongly may still sound right, so the network of checkpoints/long.pt says it back.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from align import (
    BOS,
    EOS,
    PAD,
    Rules,
    Speaker,
    draw_maps,
    edit_distance,
    error_rates,
    greedy,
    load_words,
    pronounce,
    restore,
)
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from atlas import program

ALPHABET = ["<pad>", "<bos>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]
HERE = Path(__file__).parent


def sounds_of(said, symbols):
    """Phonemes as numbers, padded with 0: (B, S), and how many each has: (B,)."""
    index = {symbol: n for n, symbol in enumerate(symbols)}
    rows = [torch.tensor([index[p] for p in each]) for each in said]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def batches_of(pairs, symbols, size, generator):
    """(sounds, lengths, inputs, targets) of words of like length, in random order."""
    shuffled = torch.randperm(len(pairs), generator=generator).tolist()
    order = sorted(shuffled, key=lambda n: (len(pairs[n][1][0]), len(pairs[n][0])))
    for n in torch.randperm(len(order) // size, generator=generator).tolist():
        some = [pairs[k] for k in order[n * size : (n + 1) * size]]
        rows = [torch.tensor([BOS, *(ALPHABET.index(letter) for letter in word), EOS]) for word, _ in some]
        inputs = pad_sequence([row[:-1] for row in rows], batch_first=True)
        targets = pad_sequence([row[1:] for row in rows], batch_first=True)
        yield *sounds_of([said[0] for _, said in some], symbols), inputs, targets


def train(pairs, symbols, width, seed):
    """A network from sounds to letters; every word once, as in align.py."""
    torch.manual_seed(seed)
    model = Speaker(len(ALPHABET), width, "dot", sources=len(symbols))
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    batches = list(batches_of(pairs, symbols, 128, torch.Generator().manual_seed(seed)))
    for n, (*given, targets) in enumerate(program.progress(batches, f"seed {seed}"), 1):
        done = n / len(batches)
        optimizer.param_groups[0]["lr"] = 8e-3 * min(1, done / 0.05) * 0.1**done
        loss = F.cross_entropy(model(*given).flatten(0, 1), targets.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def spell(model, said, symbols):
    """The spelling of each pronunciation, and the maps."""
    spelled, maps = [], []
    for n in range(0, len(said), 500):
        rows, weights = greedy(model, *sounds_of(said[n : n + 500], symbols))
        spelled += ["".join(ALPHABET[c] for c in row) for row in rows]
        maps += weights
    return spelled, maps


class ReversedRules:
    """The same table of rules with the sounds as its letters."""

    def __init__(self, pairs, symbols):
        self.letter = {symbol: chr(0x100 + n) for n, symbol in enumerate(symbols)}
        self.rules = Rules([(self.written(said[0]), [list(word)]) for word, said in pairs])

    def written(self, said):
        return "".join(self.letter[p] for p in said)

    def __call__(self, said):
        return "".join(self.rules(self.written(said)))


def homophones(words):
    """Pronunciation → all words of the dictionary that are said so."""
    found = defaultdict(set)
    for part in words.values():
        for word, said in part:
            for each in said:
                found[tuple(each)].add(word)
    return found


def measure(spelled, pairs, same_sound, listener, symbols):
    """Letter error rate and share right, against the nearest homophone, and the share that is said back rightly."""
    errors = letters = right = 0
    for mine, (_, said) in zip(spelled, pairs, strict=True):
        wrong, length = min((edit_distance(mine, w), len(w)) for w in sorted(same_sound[tuple(said[0])]))
        errors, letters, right = errors + wrong, letters + length, right + (wrong == 0)
    heard, _ = pronounce(listener, symbols, [mine or "a" for mine in spelled])
    _, back = error_rates(heard, [(word, [said[0]]) for word, said in pairs])
    return {"letter error": errors / letters, "right": right / len(pairs), "sounds right": back}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="very few words, one seed")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="write here (runs)")
    options = parser.parse_args(arguments)
    count, seeds, width = (1280, [0], 32) if options.quick else (57_600, [0, 1], 192)

    words, symbols = load_words()
    pairs, test = words["train"][:count], words["test"][: 200 if options.quick else None]
    same_sound, asked = homophones(words), [said[0] for _, said in test]
    listener, _, _ = restore(next(p for p in _checkpoints() if p.exists()))
    results = {}
    for name, spelled in _answers(pairs, symbols, asked, seeds, width, options.out):
        results[name] = measure(spelled, test, same_sound, listener, symbols)
        line = "   ".join(f"{what} {value:.3f}" for what, value in results[name].items())
        print(f"{name:12} {line}   computed {time.process_time():.0f} s", flush=True)
    results["the word itself"] = measure([word for word, _ in test], test, same_sound, listener, symbols)
    print(f"the words themselves, said back rightly: {results['the word itself']['sounds right']:.3f}")
    with program.writing(options.out / "spelling.json", "out") as part:
        part.write_text(json.dumps(results, indent=1) + "\n")


def _checkpoints():
    """In the learner's folder, or from solutions/ in the course's."""
    name = Path("checkpoints") / "long.pt"
    return [HERE / name, *(top / "workshops" / HERE.parent.name / HERE.name / name for top in HERE.parents)]


def _answers(pairs, symbols, asked, seeds, width, out):
    rules = ReversedRules(pairs, symbols)
    yield "rules", [rules(said) for said in asked]
    for seed in seeds:
        model = train(pairs, symbols, width, seed)
        yield f"dot, seed {seed}", spell(model, asked, symbols)[0]
    words = ["N AY T", "K ER N AH L", "W EY L", "IH SH M AH L"]
    spelled, maps = spell(model, [said.split() for said in words], symbols)
    print("   ".join(f"{said}: {word}" for said, word in zip(words, spelled, strict=True)))
    draw_maps(out / "spelling.png", [said.split() for said in words], spelled, maps)


if __name__ == "__main__":
    program.run(main)
