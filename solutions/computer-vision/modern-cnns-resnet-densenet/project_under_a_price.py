"""Find the best network under a price, in multiplications a picture: the project's reference.

For each kind of block and each depth the widest network that the price allows; then successive halving: all are trained
a little, the better half longer, and so on; the winner is trained on all pictures. The opponent is the small CNN of
cnn-basics, as wide as the price allows, with the better of several learning rates. Only validation pictures decide; the
test pictures are looked at once, at the end. Writes price.{json,png} to --out.
"""

import argparse
import bisect
import json
import time
from pathlib import Path

import compare_architectures as arch
import torch

from atlas import plot, program

DEPTHS = (1, 2, 3)
RATES = (0.003, 0.01, 0.03)
ROUNDS = ((10_000, 1), (15_000, 2), (20_000, 3))  # pictures and epochs; after each the better half stays
SHAPE = (1, 28, 28)


def candidate(network, depth, price, lr=0.01):
    """The configuration of the widest network of this kind within the price, or None where none is."""
    fixed = arch.CONFIG | {"network": network, "depth": depth, "lr": lr}

    def costs(width):
        return arch.count_macs(arch.make_model(fixed | {"width": width}, SHAPE, 10), SHAPE)

    width = bisect.bisect_right(range(4, 257), price, key=costs) + 3  # costs grow with the width
    return fixed | {"width": width} if width >= 4 else None


def name_of(config):
    rate = f", η {config['lr']:g}" if config["network"] == "small-cnn" else ""
    return f"{config['network']} {config['width']} × {config['depth']}{rate}"


def trained(config, data, epochs, limit, seed):
    """A model trained on the first `limit` pictures, and its accuracy on the validation pictures."""
    torch.manual_seed(seed)
    model = arch.make_model(config, SHAPE, 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.05)
    x, y = data["train"]
    for epoch in range(1, epochs + 1):
        arch.train_epoch(model, x[:limit], y[:limit], optimizer, config, epoch)
    return model, arch.evaluate(model, *data["val"])[1]


def halve(configs, data, rounds, seed):
    """Successive halving. Returns the winner and, for each round, name → accuracy."""
    told = []
    for limit, epochs in rounds:
        scores = {}
        for config in configs:
            scores[name_of(config)] = trained(config, data, epochs, limit, seed)[1]
            print(f"{limit:6,} × {epochs}   {name_of(config):24} {scores[name_of(config)]:6.2f} %", flush=True)
        told.append(scores)
        configs = sorted(configs, key=lambda config: -scores[name_of(config)])[: max(1, len(configs) // 2)]
    return configs[0], told


def draw(path, told, rounds, results):
    """Left the rounds of the search, right the two finalists on the test pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    steps = [f"{limit:,} × {epochs}" for limit, epochs in rounds]
    kept = list(told[-1])
    for name in told[0]:
        line = [scores[name] for scores in told if name in scores]
        colour = plot.COLOURS[kept.index(name) % 8] if name in kept else "0.75"
        left.plot(range(len(line)), line, marker="o", color=colour, label=name if name in kept else None)
    left.set_xticks(range(len(steps)), steps)
    left.set(xlabel="pictures × epochs", ylabel="validation accuracy (%)")
    left.set_title("The search: half of them go after each round", loc="left", size=11, weight="bold")
    left.legend(frameon=False)
    for name, each in results.items():
        right.scatter(each["multiplications"] / 1e3, each["test accuracy"], s=60, label=name)
    right.set(xlabel="thousand multiplications", ylabel="test accuracy (%)")
    right.margins(0.5, 1)
    right.legend(frameon=False)
    right.set_title("The finalists", loc="left", size=11, weight="bold")
    with program.writing(path, "figure") as part:
        figure.savefig(part)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--price", type=program.number(int, 50_000, 10**8), default=500_000, help="multiplications (500000)")
    add("--epochs", type=program.number(int, 1, 100), default=3, help="of the finalists on all pictures (3)")
    add("--out", type=Path, default=Path("runs/price"), help="folder of the results")
    add("--seed", type=program.number(int, 0, 2**32 - 1), default=0, help="of weights and order (0)")
    add("--quick", action="store_true", help="a rehearsal: few pictures, two depths, one epoch")
    options = parser.parse_args(arguments)
    rounds = ((300, 1), (600, 1)) if options.quick else ROUNDS
    epochs, limit = (1, 1000) if options.quick else (options.epochs, 55_000)
    data, _ = arch.load_data("fashion-mnist", limit, torch.device("cpu"))
    if options.quick:
        data = {part: (x[:1000], y[:1000]) for part, (x, y) in data.items()}
    depths = DEPTHS[:1] if options.quick else DEPTHS
    found = [candidate(network, depth, options.price) for network in arch.BLOCKS for depth in depths]
    own, told = halve([config for config in found if config], data, rounds, options.seed)
    opponents = [candidate("small-cnn", 1, options.price, lr) for lr in RATES]
    opponent, _ = halve([config for config in opponents if config], data, rounds[-2:-1], options.seed)
    results = {}
    for config in (own, opponent):
        begin = time.process_time()
        model, val = trained(config, data, epochs, limit, options.seed)
        results[name_of(config)] = {
            "multiplications": arch.count_macs(model, SHAPE),
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(time.process_time() - begin),
            "validation accuracy": round(val, 2),
            "test accuracy": round(arch.evaluate(model, *data["test"])[1], 2),
        }
        print(name_of(config), *(f"{what} {value:,}" for what, value in results[name_of(config)].items()), sep="   ")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "price.json").write_text(json.dumps({"rounds": told, "finalists": results}, indent=1) + "\n")
    draw(options.out / "price.png", told, rounds, results)
    print(f"written to {options.out}: price.json, price.png")


if __name__ == "__main__":
    main()
