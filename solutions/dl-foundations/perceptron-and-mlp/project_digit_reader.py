"""A digit reader that may say "not sure": the project's reference.

Trains the MLP (or loads the one of train_mlp.py with --checkpoint), calibrates it by temperature scaling (Guo et al.,
2017), sets a threshold on validation images so that what it answers is right in 99.5 % of cases, and measures accuracy
against coverage on test digits, clean and corrupted. Writes digit_reader.{json,csv,png} to --out.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
import train_mlp
from scipy import ndimage
from scipy.optimize import minimize_scalar
from torch import nn

import atlas
from atlas import program

# ------------------------------------------------------------------------------------------------ corruptions
# x: (N, 28, 28) in 0...1 → the same shape and range


def noise(x, strength, rng):
    """Grain: normal, standard deviation `strength`."""
    return (x + rng.normal(0, strength, x.shape)).clip(0, 1)


def blur(x, strength, rng):
    """Out of focus: a Gaussian of `strength` pixels."""
    return ndimage.gaussian_filter(x, (0, strength, strength))


def rotation(x, strength, rng):
    """A crooked page: up to `strength` degrees, either way."""
    angles = rng.uniform(-strength, strength, len(x))
    return np.stack([ndimage.rotate(each, a, reshape=False, order=1) for each, a in zip(x, angles, strict=True)])


def contrast(x, strength, rng):
    """Faint ink on paper that is not quite black: the range shrinks to 1 - strength, about a grey of 0.3."""
    return 0.3 * strength + x * (1 - strength)


def occlusion(x, strength, rng):
    """A blot of ink: a white square of `strength` × `strength` pixels within the middle 20 × 20."""
    x = x.copy()
    for each, (top, left) in zip(x, rng.integers(4, 25 - strength, (len(x), 2)), strict=True):
        each[top : top + strength, left : left + strength] = 1
    return x


CORRUPTIONS = {noise: (0.2, 0.4, 0.6), blur: (0.8, 1.4, 2.0), rotation: (15, 30, 45), contrast: (0.3, 0.5, 0.7)}
CORRUPTIONS[occlusion] = (4, 7, 10)


# ------------------------------------------------------------------------------------------------ calibration


@torch.no_grad()
def logits_of(model, x):
    """x: (N, 28, 28) array in 0...1. Returns the logits (N, 10) as an array."""
    device = next(model.parameters()).device
    return model(torch.tensor(x, dtype=torch.float32, device=device)).cpu().numpy().astype(float)


def loss(logits, y, T):
    """Mean cross-entropy of softmax(logits / T)."""
    return nn.functional.cross_entropy(torch.tensor(logits / T), torch.tensor(y)).item()


def temperature(logits, y):
    """The T between 1/20 and 20 for which softmax(logits / T) has the least cross-entropy on these examples."""
    return float(np.exp(minimize_scalar(lambda t: loss(logits, y, np.exp(t)), bounds=(-3, 3), method="bounded").x))


def confidence(logits, T):
    """The largest probability of each row of softmax(logits / T): (N,)."""
    return torch.tensor(logits / T).softmax(1).max(1).values.numpy()


def reliability(sure, right, bins=15):
    """(B, 3) for the bins of equal width that hold examples: mean confidence, accuracy, share of examples."""
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    chosen = [bin_of == b for b in np.unique(bin_of)]
    return np.array([(sure[c].mean(), right[c].mean(), c.mean()) for c in chosen])


def calibration_error(sure, right):
    """ECE: the mean distance between confidence and accuracy over the bins, weighted by their share."""
    confidence, accuracy, share = reliability(sure, right).T
    return float((share * np.abs(confidence - accuracy)).sum())


# ------------------------------------------------------------------------------------------------ the reader


def accuracy_and_coverage(sure, right):
    """Accuracy of the n surest answers and their share of all, for n = 1, ..., N."""
    order = np.argsort(-sure, kind="stable")
    n = np.arange(1, len(sure) + 1)
    return right[order].cumsum() / n, n / len(sure)


def threshold(sure, right, target):
    """The lowest confidence to answer at, so that the answers on these examples are right in `target` of cases."""
    accuracy, _ = accuracy_and_coverage(sure, right)
    enough = np.flatnonzero(accuracy >= target)
    if not enough.size:
        sys.exit(f"No threshold reaches {target:.2%} on the validation images: choose a lower --target.")
    return float(np.sort(sure)[::-1][enough[-1]])


def measure(logits, y, T, t):
    """What the reader does on a set: accuracy of all, coverage, accuracy of its answers, mean confidence, ECE."""
    right, sure = logits.argmax(1) == y, confidence(logits, T)
    answers = sure >= t
    return {
        "accuracy": float(right.mean()),
        "coverage": float(answers.mean()),
        "accuracy_of_answers": float(right[answers].mean()) if answers.any() else None,
        "mean_confidence": float(sure.mean()),
        "loss_before": loss(logits, y, 1),
        "loss": loss(logits, y, T),
        "ece_before": calibration_error(confidence(logits, 1), right),
        "ece": calibration_error(sure, right),
    }


# ------------------------------------------------------------------------------------------------ the report


def draw(path, test, sets, y, T, t, target):
    """Reliability before and after; accuracy against coverage; coverage and accuracy as corruptions grow."""
    from matplotlib.figure import Figure

    colours = atlas.plot.COLOURS
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    (reliable, covered), (asked, kept) = figure.subplots(2, 2)
    right = test.argmax(1) == y
    for name, each, marker, colour in (("T = 1", 1, "o", colours[1]), (f"T = {T:.2f}", T, "s", colours[0])):
        sure = confidence(test, each)
        c, a, share = (rows := reliability(sure, right))[rows[:, 2] * len(sure) >= 20].T  # fewer say nothing
        spread = 2 * np.sqrt(c * (1 - c) / (share * len(sure)))  # two standard deviations of a bin's accuracy
        name += f": ECE {calibration_error(sure, right):.2%}, loss {loss(test, y, each):.4f}"
        reliable.errorbar(c, a, spread, fmt=marker + "-", color=colour, elinewidth=0.8, label=name)
    reliable.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="says what it does")
    reliable.set(
        xlabel="confidence", ylabel="accuracy", title="Clean test digits, before and after calibration", ylim=(0, 1.02)
    )
    for (name, logits), colour in zip({"clean": test, **strongest(sets, 1)}.items(), colours, strict=False):
        accuracy, coverage = accuracy_and_coverage(confidence(logits, T), logits.argmax(1) == y)
        from_here = len(coverage) // 50  # the mean of a few answers says little
        covered.plot(100 * coverage[from_here:], 100 * accuracy[from_here:], color=colour, label=name)
        at = int((confidence(logits, T) >= t).sum()) - 1
        covered.plot(100 * coverage[at], 100 * accuracy[at], "o", color=colour)
    covered.axhline(100 * target, color="0.6", linestyle=":")
    covered.set(xlabel="coverage (%)", ylabel="accuracy of answers (%)", title="The surest first; dots: the threshold")
    clean = measure(test, y, T, t)
    for function, colour in zip(CORRUPTIONS, colours[1:], strict=False):
        rows = [clean] + [measure(logits, y, T, t) for (name, _), logits in sets.items() if name == function.__name__]
        asked.plot(range(len(rows)), [100 * row["coverage"] for row in rows], "o-", color=colour)
        wrong = [100 * (1 - (row["accuracy_of_answers"] or np.nan)) for row in rows]
        kept.plot(range(len(rows)), wrong, "o-", color=colour, label=function.__name__)
    kept.axhline(100 * (1 - target), color="0.6", linestyle=":", label=f"promised on clean digits: {1 - target:.1%}")
    asked.set(ylabel="coverage (%)", title="The harder the digits, the fewer it answers", ylim=(0, 102))
    kept.set(ylabel="errors among its answers (%)", title="but not few enough: the promise breaks", ylim=(0, None))
    for ax in (asked, kept):
        ax.set(xlabel="strength of the corruption (0: clean)", xticks=range(4))
    for ax in (reliable, covered, asked, kept):
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set(fontsize=11)
    for ax in (reliable, covered, kept):
        ax.legend(frameon=False)
    figure.savefig(path)


def strongest(sets, index):
    """Of each corruption the set at that strength."""
    return {
        f"{function.__name__} {strengths[index]}": sets[function.__name__, strengths[index]]
        for function, strengths in CORRUPTIONS.items()
    }


def report(out, summary, rows):
    """Print the table, and write it as JSON and CSV."""
    (out / "digit_reader.json").write_text(json.dumps({**summary, "sets": rows}, indent=1) + "\n")
    with (out / "digit_reader.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{'set':>14} {'accuracy':>9} {'answers':>9} {'right of those':>15} {'confidence':>11} {'ECE':>7}")
    for row in rows:
        answered = "-" if row["accuracy_of_answers"] is None else f"{row['accuracy_of_answers']:.2%}"
        name = f"{row['set']} {row['strength'] or ''}"
        print(
            f"{name:>14} {row['accuracy']:9.2%} {row['coverage']:9.2%} {answered:>15}"
            f" {row['mean_confidence']:11.2%} {row['ece']:7.2%}"
        )


def trained_model(options, device):
    """The model of train_mlp.py's checkpoint, or a new one, trained and kept in --out."""
    if options.checkpoint:
        saved = program.load(options.checkpoint, train_mlp.CONFIG)
        model = train_mlp.make_model(saved["config"]["width"], saved["config"]["depth"]).to(device)
        model.load_state_dict(saved["model"])
        return model
    settings = argparse.Namespace(epochs=2 if options.quick else 8, checkpoint=options.out / "mlp.pt")
    config = {**train_mlp.CONFIG, "seed": options.seed, "limit": 12_000 if options.quick else 55_000}
    return train_mlp.train(settings, config, device)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.995, help="accuracy wanted of what it answers (0.995)")
    parser.add_argument("--checkpoint", type=Path, help="a model of train_mlp.py instead of a new one")
    parser.add_argument("--out", type=Path, default=Path("runs/digit_reader"), help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of training and corruptions (0)")
    parser.add_argument("--quick", action="store_true", help="a weaker network and 2,000 test digits, in seconds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = trained_model(options, atlas.device())

    mnist = atlas.data.load("mnist")
    n = 2000 if options.quick else 10_000
    x, y, y_val = mnist.x_test[:n] / 255, mnist.y_test[:n], mnist.y_train[55_000:]
    val = logits_of(model, mnist.x_train[55_000:] / 255)  # (5000, 10): never trained on
    T = temperature(val, y_val)
    t = threshold(confidence(val, T), val.argmax(1) == y_val, options.target)
    print(f"temperature {T:.2f}; answers from a confidence of {t:.1%} on")

    rng = np.random.default_rng(options.seed)
    sets = {(f.__name__, s): logits_of(model, f(x, s, rng)) for f, strengths in CORRUPTIONS.items() for s in strengths}
    test = logits_of(model, x)
    rows = [
        {"set": name, "strength": strength, **measure(logits, y, T, t)}
        for (name, strength), logits in {("clean", 0): test, **sets}.items()
    ]
    report(options.out, {"seed": options.seed, "target": options.target, "temperature": T, "threshold": t}, rows)
    draw(options.out / "digit_reader.png", test, sets, y, T, t, options.target)
    print(f"\ntable and figure: {options.out}")


if __name__ == "__main__":
    main()
