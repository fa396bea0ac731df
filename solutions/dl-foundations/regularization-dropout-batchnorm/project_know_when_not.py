"""A classifier that knows when it does not know: the project's reference.

A shop sorts photographs of returned clothes. What the classifier is sure of is answered at once, the rest goes to a
person. Of the answers at most 5 % may be wrong. The threshold on the confidence is chosen on validation images; the
test images are used once. Compares a plain network, a regularised one and an ensemble of five regularised ones, with
two ways to choose the threshold: by the error that is counted, and by an upper bound of it (Clopper and Pearson, 1934).
Writes know_when_not.{json,png} to --out.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import train_few
from scipy.stats import beta

import atlas
from atlas import plot

LIMIT = 0.05  # of the answers given, so many may be wrong
PLAIN = {**train_few.CONFIG}
REGULARISED = {**train_few.CONFIG, "batch_norm": True, "dropout": 0.3, "weight_decay": 1.0, "shift": 1}


def probabilities(config, data, background, seed, epochs):
    """Train one network with a rate that falls along half a cosine. Returns probabilities of val and test, (N, 10)."""
    torch.manual_seed(seed)
    model = train_few.make_model(config).to(data["train"][0].device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config["weight_decay"], fused=True)
    x, y = data["train"]
    for epoch in range(epochs):
        model.train()
        optimizer.param_groups[0]["lr"] = config["lr"] * (1 + np.cos(np.pi * epoch / epochs)) / 2
        for batch in train_few.batches(len(x), config["batch_size"]):
            batch = batch.to(x.device)
            images = train_few.shifted(x[batch], config["shift"], background) if config["shift"] else x[batch]
            loss = torch.nn.functional.cross_entropy(model(images), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return [train_few.predict(model, data[split][0]) for split in ("val", "test")]


def ranked(p, y):
    """Confidences in falling order, (N,), and the number of wrong answers among the first 1, 2, ..., N, (N,)."""
    confidence, predicted = (part.cpu().numpy() for part in p.max(1))
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], np.cumsum((predicted != y.cpu().numpy())[order])


def upper_bound(wrong, answered, certainty=0.95):
    """The error rate that is exceeded with probability 1 - certainty at most (Clopper and Pearson), like the inputs."""
    return beta.ppf(certainty, wrong + 1, np.maximum(answered - wrong, 1e-9))


def threshold(p, y, cautious):
    """The lowest confidence at which the error on these images, or its upper bound, is within the limit; inf for none."""
    confidence, wrong = ranked(p, y)
    answered = np.arange(1, len(wrong) + 1)
    error = upper_bound(wrong, answered) if cautious else wrong / answered
    fine = np.flatnonzero(error <= LIMIT)
    return float(confidence[fine[-1]]) if fine.size else float("inf")


def outcome(p, y, least):
    """Coverage and error among the answers with at least this confidence, both in per cent."""
    confidence, predicted = p.max(1)
    given = confidence >= least
    wrong = (predicted != y)[given].float().mean().item() if given.any() else 0.0
    return 100 * given.float().mean().item(), 100 * wrong


def study(seeds, epochs, members, device):
    """All results, {method: {measure: [one for each seed]}}, and the last seed's test probabilities by method."""
    results, shown = {}, {}
    for seed in range(seeds):
        data, background = train_few.load_data(1000, seed, device)
        runs = {"plain": [probabilities(PLAIN, data, background, seed, epochs)]}
        runs["regularised"] = [probabilities(REGULARISED, data, background, seed, epochs)]
        others = [probabilities(REGULARISED, data, background, 1000 * k + seed, epochs) for k in range(1, members)]
        runs[f"ensemble of {members}"] = runs["regularised"] + others
        for name, all_runs in runs.items():
            val, test = (torch.stack(split).mean(0) for split in zip(*all_runs, strict=True))
            row = dict(zip(("loss", "accuracy", "calibration"), train_few.scores(test, data["test"][1]), strict=True))
            for how, cautious in (("counted", False), ("bounded", True)):
                least = threshold(val, data["val"][1], cautious)
                row[f"coverage, {how}"], row[f"error, {how}"] = outcome(test, data["test"][1], least)
            for measure, value in row.items():
                results.setdefault(name, {}).setdefault(measure, []).append(value)
            shown[name] = test, data["test"][1]
    return results, shown


def draw(path, shown):
    """Error among the answers against the share that is answered."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    ax = figure.subplots()
    series = {}
    for name, (p, y) in shown.items():
        _, wrong = ranked(p, y)
        answered = np.arange(1, len(wrong) + 1)
        series[name] = (100 * answered[199:] / len(wrong), 100 * wrong[199:] / answered[199:])
    labels = {"xlabel": "answered (% of the test images)", "ylabel": "wrong among the answers (%)"}
    plot.curves(series, **labels, title="The further right a curve meets 5 %, the less is left to people", ax=ax)
    ax.axhline(100 * LIMIT, color="0.4", linestyle=":")
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="each with other images and weights (3)")
    parser.add_argument("--epochs", type=int, default=40, help="(40)")
    parser.add_argument("--members", type=int, default=5, help="networks in an ensemble (5)")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 1 seed, 10 epochs, 2 members")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.epochs, options.members = 1, 10, 2
    device = atlas.device(options.device)
    torch.set_num_threads(1)  # layers this small are slower on two cores
    results, shown = study(options.seeds, options.epochs, options.members, device)
    print(f"{'':14} " + " ".join(f"{measure:>17}" for measure in next(iter(results.values()))))
    for name, row in results.items():
        spread = [f"{np.mean(v):.2f} ± {np.std(v, ddof=1):.2f}" if len(v) > 1 else f"{v[0]:.2f}" for v in row.values()]
        print(f"{name:14} " + " ".join(f"{text:>17}" for text in spread))
    for how in ("counted", "bounded"):
        errors = [error for row in results.values() for error in row[f"error, {how}"]]
        broken = sum(error > 100 * LIMIT for error in errors)
        print(f"threshold {how}: the limit is broken on test images in {broken} of {len(errors)} cases")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "know_when_not.json").write_text(json.dumps(results, indent=2))
        draw(options.out / "know_when_not.png", shown)
    except OSError as error:
        sys.exit(f"Cannot write to {options.out}: {error}. Choose another place with --out.")
    print(f"written to {options.out}: know_when_not.json, know_when_not.png")


if __name__ == "__main__":
    main()
