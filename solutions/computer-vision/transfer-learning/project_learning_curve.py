"""How many more pictures are worth taking? A learning curve, and its forecast held to what it forecasts: the reference.

Features of the frozen network (finetune.py) and a linear probe, with n pictures of each class, in many draws. A power law
e(n) = a·n^-b is fitted to the errors of the smaller n and forecasts the largest; then it is fitted to all of them and
says what twice as many pictures would bring, with an interval from redrawn draws. For pictures of your own: --folder.
Writes learning_curve.{json,png} to --out.
"""

import argparse
import json
from pathlib import Path

import finetune
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from atlas import plot, program


def features_of(paths, size):
    """What the whole frozen network makes of each picture, (N, 1280)."""
    base = finetune.load_network()
    maps = finetune.frozen_maps(base, paths, {"size": size, "frozen": 17}, {})
    with torch.no_grad():
        return torch.cat([base.features[17](part).mean((2, 3)) for part in maps.split(64)]).numpy()


def errors(X, labels, groups, counts, draws, rng):
    """Error on the test pictures, (len(counts), draws). A draw has its own test things; its smaller sets lie in larger ones."""
    groups, classes, found = np.array(groups), np.unique(labels), np.empty((len(counts), draws))
    for d in range(draws):
        train, test = [], []
        for c in classes:
            things = rng.permutation(np.unique(groups[labels == c]))
            train.append([np.flatnonzero(groups == thing)[0] for thing in things[: counts[-1]]])
            test += [n for n in np.flatnonzero(labels == c) if groups[n] in things[counts[-1] :]]
        for row, n in enumerate(counts):
            rows = np.concatenate([of[:n] for of in train])
            probe = LogisticRegression(C=1, max_iter=3000).fit(X[rows], labels[rows])
            wrong = probe.predict(X[test]) != labels[test]
            found[row, d] = np.mean([wrong[labels[test] == c].mean() for c in classes])  # each class counts alike
    return found


def power_law(counts, mean_errors):
    """(a, b) of e(n) = a·n^-b, least squares in the logarithms."""
    slope, start = np.polyfit(np.log(counts), np.log(np.maximum(mean_errors, 1e-4)), 1)
    return np.exp(start), -slope


def forecast(counts, found, n, rng, times=500):
    """Forecast of the error at n and its 90 % interval, from draws redrawn with replacement."""
    draws, said = found.shape[1], []
    for _ in range(times):
        a, b = power_law(counts, found[:, rng.integers(draws, size=draws)].mean(1))
        said.append(a * n**-b)
    a, b = power_law(counts, found.mean(1))
    return a * n**-b, *np.quantile(said, (0.05, 0.95))


def draw(path, counts, found, held, ahead):
    """The measured errors, the forecast that could be tested, and the one that cannot yet."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    mean, spread = 100 * found.mean(1), 100 * found.std(1)
    ax.errorbar(
        counts, mean, spread, fmt="o-", color=plot.COLOURS[0], capsize=3, label="measured, ± spread of the draws"
    )
    for (n, middle, low, high), colour, label in (
        (held, plot.COLOURS[1], "forecast from the smaller"),
        (ahead, plot.COLOURS[2], "forecast for twice as many"),
    ):
        bar = [[100 * (middle - low)], [100 * (high - middle)]]
        ax.errorbar([1.03 * n], [100 * middle], bar, fmt="s", color=colour, capsize=5, label=label)
    ax.set(xscale="log", yscale="log", xlabel="training pictures a class", ylabel="error, mean over the classes (%)")
    ticks = [*counts, ahead[0]]
    ax.set_xticks(ticks, ticks)
    ax.set_yticks(shown := [n for n in (5, 10, 15, 20, 30, 50, 70) if n > 60 * ahead[2]], shown)
    ax.minorticks_off()
    ax.legend(frameon=False)
    ax.set_title("Nearly a straight line: each doubling buys less", loc="left", size=11, weight="bold")
    program.save_figure(figure, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="", help="with a folder for each class (the course's stamps)")
    parser.add_argument("--size", type=int, default=96, help="pixels of a side (96)")
    parser.add_argument("--draws", type=int, default=40, help="so many splits (40)")
    parser.add_argument("--out", type=Path, default=Path("runs/learning_curve"), help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of the splits (0)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: small pictures, four splits")
    options = parser.parse_args(arguments)
    size, draws = (32, 4) if options.quick else (options.size, options.draws)
    rng = np.random.default_rng(options.seed)
    paths, labels, groups, classes = finetune.find_pictures(options.folder, 10_000)
    fewest = min(len({g for g, y in zip(groups, labels, strict=True) if y == c}) for c in range(len(classes)))
    most = max(2, round(0.75 * fewest))  # the rest of the smallest class is there to test on
    counts = sorted({n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n < most} | {most})
    found = errors(features_of(paths, size), labels, groups, counts, draws, rng)
    print(f"{len(paths)} pictures, {len(classes)} classes, at most {most} of each to train on, {draws} draws")
    for n, row in zip(counts, found, strict=True):
        print(f"{n:3} a class   error {100 * row.mean():5.1f} % ± {100 * row.std():.1f}")
    held = forecast(counts[1:-2], found[1:-2], most, rng) if len(counts) > 5 else forecast(counts, found, most, rng)
    measured = found[-1].mean()
    print(
        f"forecast for {most}, without {counts[-2]} and {most}: {100 * held[0]:.1f} % ({100 * held[1]:.1f} to"
        f" {100 * held[2]:.1f}), measured {100 * measured:.1f} %"
    )
    ahead = forecast(counts[1:], found[1:], 2 * most, rng)
    gain = 100 * (measured - np.array(ahead))
    print(
        f"{most * len(classes)} more pictures, {2 * most} a class: error {100 * ahead[0]:.1f} % ({100 * ahead[1]:.1f} to"
        f" {100 * ahead[2]:.1f}), a gain of {gain[0]:.1f} points"
    )
    print(f"that is {most * len(classes) / max(gain[0], 1e-9):.0f} pictures for each point")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"counts": counts, "errors": found.tolist(), "held": held, "measured": measured, "ahead": ahead}
    (options.out / "learning_curve.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
    draw(options.out / "learning_curve.png", counts, found, (most, *held), (2 * most, *ahead))


if __name__ == "__main__":
    main()
