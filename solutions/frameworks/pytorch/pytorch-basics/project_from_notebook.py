"""From a research notebook to a program: the project's reference.

Takes the notebook's code from the workshop's README, writes one test for each of its six faults, and runs them on it and
on the repaired program below. Then both train on 10,000 images of Fashion-MNIST: what each reports, and what it is worth
on test images. Writes from_notebook.{json,png} to --out.
"""

import argparse
import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import atlas
from atlas import course, plot

# ------------------------------------------------------------------------------------------------ the program


class Net(nn.Module):
    """Images (B, 784) to logits (B, 10); `depth` hidden layers with dropout."""

    def __init__(self, width: int = 64, depth: int = 3, p: float = 0.3):
        super().__init__()
        self.mean, self.spread = nn.Buffer(torch.zeros(())), nn.Buffer(torch.ones(()))
        self.first, self.last = nn.Linear(784, width), nn.Linear(width, 10)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.drop = nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = functional.relu(self.first((x.float() - self.mean) / self.spread))
        for layer in self.hidden:
            a = self.drop(functional.relu(layer(a)))
        return self.last(a)


def split(n_train: int, n_val: int) -> tuple[range, range]:
    """The rows to train on and those to validate on, which lie behind them."""
    return range(n_train), range(n_train, n_train + n_val)


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The share of right answers in evaluation mode; the model's mode stays."""
    mode = model.training
    model.eval()
    right = (model(x).argmax(1) == y).float().mean().item()
    model.train(mode)
    return right


def run(x: torch.Tensor, y: torch.Tensor, n_train: int, n_val: int, epochs: int = 6, seed: int = 0):
    """Train. x: (N, 784) uint8, y: (N,). Returns the model with the best validation accuracy, and that accuracy."""
    torch.manual_seed(seed)
    model = Net().to(x.device)
    rows, val = split(n_train, n_val)
    x_train, y_train = x[rows.start : rows.stop].float(), y[rows.start : rows.stop]
    x_val, y_val = x[val.start : val.stop], y[val.start : val.stop]
    model.mean.copy_(x_train.mean())
    model.spread.copy_(x_train.std())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    best, best_state = -1.0, None
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(n_train).to(x.device).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x_train[batch]), y_train[batch]).backward()
            optimizer.step()
        now = accuracy(model, x_val, y_val)
        if now > best:
            best, best_state = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return model.eval(), best


# ------------------------------------------------------------------------------------------------ the tests


def toy(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of noise with random labels: nothing can be learned but by heart."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 784), generator=generator), torch.randint(10, (n,), generator=generator)


def learns_with_every_layer(code) -> bool:
    """A network of three hidden layers has the weights of five layers to learn."""
    return len(list(code.Net(depth=3).parameters())) == 10


def gives_logits(code) -> bool:
    """cross_entropy wants logits: rows need not add up to 1."""
    return not torch.allclose(code.Net()(torch.randn(5, 784)).sum(1), torch.ones(5))


def repeats_itself(code) -> bool:
    """The same seed gives the same weights, whatever was drawn before."""
    weights = []
    for drawn in (1, 2):
        torch.rand(drawn)
        model, _ = code.run(*toy(), 200, 100, epochs=1)
        weights.append(model.first.weight.detach())
    return torch.equal(*weights)


def validates_on_other_images(code) -> bool:
    """No row of a pass over the validation images is in a pass over a batch; the two are told apart by their lengths."""
    seen, forward = {True: set(), False: set()}, code.Net.forward

    def noting(model, x):
        seen[len(x) == 90].update(row.double().numpy().tobytes() for row in x)
        return forward(model, x)

    code.Net.forward = noting
    try:
        code.run(*toy(), 200, 90, epochs=1)
    finally:
        code.Net.forward = forward
    return not seen[True] & seen[False]


def evaluates_without_dropout(code) -> bool:
    """In the passes that measure, dropout is off: watched from a layer that all passes go through."""
    seen, forward = [], nn.Dropout.forward

    def noting(layer, x):
        seen.append((layer.training, torch.is_grad_enabled(), len(x)))
        return forward(layer, x)

    nn.Dropout.forward = noting
    try:
        code.run(*toy(), 200, 90, epochs=1)
    finally:
        nn.Dropout.forward = forward
    return not any(training for training, _, count in seen if count == 90)


def returns_its_best_weights(code) -> bool:
    """What is restored at the end is what was taken at the best epoch, untouched by the epochs after it.

    Labels are random, so the best epoch is the last one only by chance: four seeds.
    """
    taken, restored = [], []
    load, state = nn.Module.load_state_dict, nn.Module.state_dict

    def taking(module, *args, **kwargs):
        found = state(module, *args, **kwargs)
        if not args and not kwargs:  # the call from outside, and not those for the layers within
            taken.append(found["first.weight"].clone())
        return found

    def restoring(module, values, *args, **kwargs):
        restored.append(values["first.weight"].clone())
        return load(module, values, *args, **kwargs)

    nn.Module.load_state_dict, nn.Module.state_dict = restoring, taking
    try:
        for seed in range(4):
            code.run(*toy(seed=seed), 200, 90, epochs=6, seed=seed)
            if not torch.equal(restored[-1], taken[-1]):
                return False
    finally:
        nn.Module.load_state_dict, nn.Module.state_dict = load, state
    return True


TESTS: dict[str, Callable] = {
    "every layer learns": learns_with_every_layer,
    "logits, no probabilities": gives_logits,
    "the seed governs all": repeats_itself,
    "validation images are others": validates_on_other_images,
    "measured without dropout": evaluates_without_dropout,
    "the best weights come back": returns_its_best_weights,
}


def notebook() -> SimpleNamespace:
    """What the notebook's code defines: the block in the README of the workshop that begins with `import torch`."""
    text = (course.find("pytorch-basics").folder / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    names: dict = {"__name__": "notebook"}
    exec(compile(block, "notebook", "exec"), names)
    return SimpleNamespace(Net=names["Net"], run=names["run"])


# ------------------------------------------------------------------------------------------------ the report


def compare(codes: dict, n_train: int, epochs: int, seeds: int, device: torch.device) -> dict:
    """By name of the code: the accuracies reported and those on test images, one for each seed."""
    fashion = atlas.data.load("fashion-mnist")
    rows = n_train + 1000
    x, y = torch.tensor(fashion.x_train[:rows]).flatten(1).to(device), torch.tensor(fashion.y_train[:rows]).to(device)
    x_test, y_test = torch.tensor(fashion.x_test).flatten(1).to(device), torch.tensor(fashion.y_test).to(device)
    results = {}
    for name, code in codes.items():
        results[name] = {"reported": [], "test": []}
        for seed in range(seeds):
            model, reported = code.run(x, y, n_train, 1000, epochs, seed)
            standardised = x_test if hasattr(model, "mean") else (x_test.float() - x.float().mean()) / x.float().std()
            results[name]["reported"].append(reported)
            results[name]["test"].append(accuracy(model, standardised, y_test))
        told = {key: f"{100 * np.mean(v):.1f} ± {100 * np.std(v, ddof=1):.1f} %" for key, v in results[name].items()}
        print(f"{name:9} reported {told['reported']}   on test images {told['test']}   ({seeds} seeds)")
    return results


def draw(path: Path, results: dict) -> None:
    """For each code what it reports and what it is worth, a dot for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    for row, values in enumerate(results.values()):
        for k, (key, scores) in enumerate(values.items()):
            shift = 0.24 * k - 0.12
            style = {"color": plot.COLOURS[k], "label": key if row == 0 else None}
            ax.plot(100 * np.array(scores), [row + shift] * len(scores), plot.MARKERS[k], **style)
    ax.set_yticks(range(len(results)), results)
    ax.set_xlabel("accuracy (%)")
    ax.legend(frameon=False)
    ax.set_title("What each program reports, and what it is worth", loc="left", size=11, weight="bold")
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="(10)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (3)")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 2,000 images, 2 epochs, 2 seeds")
    options = parser.parse_args(arguments)
    n_train = 10_000
    if options.quick:
        n_train, options.epochs, options.seeds = 2_000, 2, 2
    codes = {"notebook": notebook(), "program": SimpleNamespace(Net=Net, run=run)}
    passed = {name: {words: test(code) for words, test in TESTS.items()} for name, code in codes.items()}
    print(f"{'':30} notebook   program")
    for words in TESTS:
        print(f"{words:30} " + "   ".join(f"{'passes' if passed[name][words] else 'fails':8}" for name in codes))
    results = compare(codes, n_train, options.epochs, options.seeds, atlas.device(options.device))
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "from_notebook.json").write_text(json.dumps({"tests": passed, "accuracy": results}, indent=2))
        draw(options.out / "from_notebook.png", results)
    except OSError as error:
        sys.exit(f"Cannot write to {options.out}: {error}. Choose another place with --out.")
    print(f"written to {options.out}: from_notebook.json, from_notebook.png")
    if not all(passed["program"].values()) or any(passed["notebook"].values()):
        sys.exit("A test does not tell the notebook from the program.")


if __name__ == "__main__":
    main()
