"""Phonemes with their stress: is the error the phoneme, or its stress? The reference.

The same encoder-decoder learns the dictionary with stress marks (69 symbols instead of 39) and without, on as many words,
with several seeds; beside it the rules on the same symbols. What is said with marks is measured three times: as it is,
with the marks taken off both sides, and by the marks alone, in words whose phonemes are all right. A baseline for those
knows no spelling: it gives each word the commonest marks among training words with as many vowels.
Writes stress.{json,png} to --out.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import say
import torch

from atlas import plot, program

TRAINED = {"epochs": 1, "decay": 0.1}


def marks(phonemes):
    """The stress of the vowels in order, such as "10" for N EH1 V ER0."""
    return "".join(p[-1] for p in phonemes if p[-1].isdigit())


def bare(phonemes):
    return [p.rstrip("012") for p in phonemes]


def network(words, symbols, count, seed, width):
    """A model trained as say.py trains it, and what it says of the test words."""
    config = say.CONFIG | {"words": count, "width": width, "seed": seed, "decay": TRAINED["decay"]}
    torch.manual_seed(seed)
    model = say.Speaker(len(symbols), width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    batches = list(say.batches_of(words["train"][:count], symbols, config["batch_size"], generator))
    for epoch in range(1, TRAINED["epochs"] + 1):
        say.train_epoch(model, batches, optimizer, config, epoch)
    return say.pronounce(model, symbols, [word for word, _ in words["test"]])


def commonest_marks(pairs):
    """Number of vowels → the marks that most training words with so many have."""
    found = defaultdict(Counter)
    for _, all_of in pairs:
        own = marks(all_of[0])
        found[len(own)][own] += 1
    return {n: counts.most_common(1)[0][0] for n, counts in found.items()}


def measure(said, test, common):
    """PER and words right, with marks and without; and of words whose phonemes are right: marks right, by baseline."""
    with_marks = say.error_rates(said, test)
    plain = [(word, [bare(each) for each in all_of]) for word, all_of in test]
    without = say.error_rates([bare(each) for each in said], plain)
    right = baseline = several = 0
    for mine, (_, all_of) in zip(said, test, strict=True):
        true = [marks(each) for each in all_of if bare(each) == bare(mine)]
        if true and len(true[0]) > 1:  # with one vowel there is nothing to choose
            several += 1
            right += marks(mine) in true
            baseline += common.get(len(true[0]), "") in true
    share = right / max(several, 1), baseline / max(several, 1)
    return {"with": with_marks, "without": without, "marks right": share[0], "commonest": share[1], "of": several}


def draw(path, results):
    """PER with the marks, and without them, of each machine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    ax, names = figure.subplots(), list(results)
    for n, (part, colour) in enumerate((("with", plot.COLOURS[0]), ("without", plot.COLOURS[1]))):
        rates = [100 * np.mean([run[part][0] for run in results[name]]) for name in names]
        ax.bar(np.arange(len(names)) + 0.38 * n - 0.19, rates, 0.36, color=colour, label=f"{part} the marks")
    ax.set_xticks(range(len(names)), names)
    ax.set(ylabel="phoneme error rate (%)")
    ax.legend(frameon=False)
    cost = [100 * np.mean([run["with"][0] - run["without"][0] for run in results[name]]) for name in names]
    title = (
        "Stress marks cost " + ", ".join(f"the {name} {c:.1f}" for name, c in zip(names, cost, strict=True)) + " points"
    )
    ax.set_title(title, loc="left", size=11, weight="bold")
    program.save_figure(figure, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=57_600, help="the network trains on so many words, once (57600)")
    parser.add_argument("--rules", type=int, default=30_000, help="rules are made of so many words (30000)")
    parser.add_argument("--seeds", type=int, default=3, help="so many trainings (3)")
    parser.add_argument("--out", type=Path, default=Path("runs/stress"), help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few words, a small network")
    options = parser.parse_args(arguments)
    count, of_rules, seeds, width = options.words, options.rules, options.seeds, say.CONFIG["width"]
    if options.quick:
        count, of_rules, seeds, width = 600, 300, 1, 16
    marked, symbols = say.load_words(stress=True)
    plain, plain_symbols = say.load_words(stress=False)
    for words in (marked, plain):
        words["test"] = words["test"][: 200 if options.quick else None]
    common, test = commonest_marks(marked["train"]), marked["test"]
    print(f"{len(symbols) - 3} symbols with stress, {len(plain_symbols) - 3} without")
    rules = say.Rules(marked["train"][:of_rules])
    results = {"rules": [measure([rules(word) for word, _ in test], test, common)], "network": []}
    taught_without = []
    for seed in range(seeds):
        results["network"].append(measure(network(marked, symbols, count, seed, width), test, common))
        taught_without.append(say.error_rates(network(plain, plain_symbols, count, seed, width), plain["test"]))
        print(f"seed {seed} done", flush=True)
    for name, runs in results.items():
        for part in ("with", "without"):
            per, right = np.mean([run[part] for run in runs], 0)
            print(f"{name:8} {part:8} the marks: PER {per:.3f}   words right {right:.3f}")
        share, baseline = (np.mean([run[key] for run in runs]) for key in ("marks right", "commonest"))
        print(
            f"{name:8} of words with right phonemes and several vowels, marks right {share:.3f}, commonest {baseline:.3f}"
        )
    per, right = np.mean(taught_without, 0)
    print(f"network  taught without marks: PER {per:.3f}   words right {right:.3f}")
    options.out.mkdir(parents=True, exist_ok=True)
    written = results | {"taught without": taught_without}
    (options.out / "stress.json").write_text(json.dumps(written, indent=1) + "\n")
    draw(options.out / "stress.png", results)


if __name__ == "__main__":
    main()
