"""An autograd engine whose nodes hold NumPy arrays, and an MLP that it trains on MNIST. No framework is imported.

python numpy_mlp.py                        train; keeps runs/numpy_mlp.npz, draws runs/numpy_mlp.png
python numpy_mlp.py --resume --epochs 10   go on with that training, to 10 epochs
python numpy_mlp.py --check                hold the engine's gradients against central differences
python numpy_mlp.py --sample digit.png     write a test digit as an image file
python numpy_mlp.py --predict digit.png    read the digit in image files: light ink on black, as MNIST has it
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

import atlas
from atlas import plot, program

CONFIG = {"width": 128, "depth": 1, "lr": 0.05, "momentum": 0.9, "batch_size": 64, "seed": 0, "limit": 55_000}
DECAY = 0.65  # of the learning rate, epoch by epoch


# ------------------------------------------------------------------------------------------------ the engine


class Node:
    """An array in a graph of operations: data, grad (of data's shape), parents, and push, as in the notebook's Value.

    made: how many nodes there were before. A node is made after its parents, so the order of making is topological.
    """

    count = 0

    def __init__(self, data, parents=()):
        self.data, self.parents = data, parents
        self.grad, self.push = None, lambda: None
        self.made = Node.count
        Node.count += 1

    def receive(self, gradient):
        """Add a share of the gradient, of the shape that self was broadcast to."""
        extra = gradient.ndim - self.data.ndim
        ones = tuple(extra + axis for axis, size in enumerate(self.data.shape) if size == 1)
        gradient = gradient.sum(axis=(*range(extra), *ones), keepdims=True).reshape(self.data.shape)
        self.grad = gradient if self.grad is None else self.grad + gradient

    def __add__(self, other):
        out = Node(self.data + other.data, (self, other))

        def push():
            self.receive(out.grad)
            other.receive(out.grad)

        out.push = push
        return out

    def __mul__(self, other):
        out = Node(self.data * other.data, (self, other))

        def push():
            self.receive(out.grad * other.data)
            other.receive(out.grad * self.data)

        out.push = push
        return out

    def __matmul__(self, other):
        """(B, n) @ (n, m)."""
        out = Node(self.data @ other.data, (self, other))

        def push():
            self.receive(out.grad @ other.data.T)
            other.receive(self.data.T @ out.grad)

        out.push = push
        return out

    @property
    def T(self):
        out = Node(self.data.T, (self,))
        out.push = lambda: self.receive(out.grad.T)
        return out

    def relu(self):
        out = Node(np.maximum(0, self.data), (self,))
        out.push = lambda: self.receive(out.grad * (out.data > 0))
        return out

    def backward(self):
        """Set grad of all nodes that self, one number, was computed from."""
        nodes, stack = {self}, [self]
        while stack:
            for parent in stack.pop().parents:
                if parent not in nodes:
                    nodes.add(parent)
                    stack.append(parent)
        for node in nodes:
            node.grad = None
        self.grad = np.ones_like(self.data)
        for node in sorted(nodes, key=lambda node: node.made, reverse=True):
            node.push()


def cross_entropy(logits, y):
    """Mean cross-entropy of a Node (B, K) and the right classes y (B,): one node, so that backward is p − y."""
    Z = logits.data - logits.data.max(axis=1, keepdims=True)
    log_p = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))  # (B, K)
    rows = np.arange(len(y))
    out = Node(-log_p[rows, y].mean(), (logits,))

    def push():
        d = np.exp(log_p)
        d[rows, y] -= 1
        logits.receive(out.grad * d / len(y))

    out.push = push
    return out


def differences(f, x, h=1e-5):
    """The gradient of f at x by central differences; x moves for a moment and is put back."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + h
        up = f()
        x[i] = kept - h
        gradient[i] = (up - f()) / (2 * h)
        x[i] = kept
    return gradient


# ------------------------------------------------------------------------------------------------ network and step


def make_model(width, depth, rng, inputs=784, classes=10):
    """Arrays W (out, in), b (out,) for `depth` hidden layers of `width` neurons and an output layer, in one list."""
    widths = [inputs] + depth * [width] + [classes]
    arrays = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        arrays += [rng.normal(0, np.sqrt(2 / n_in), (n_out, n_in)).astype(np.float32), np.zeros(n_out, np.float32)]
    return arrays


def forward(nodes, x):
    """x: (B, D) array. nodes: W1, b1, W2, b2, ... Returns the logits as a Node (B, K)."""
    A = Node(x)
    for n in range(0, len(nodes), 2):
        A = (A.relu() if n else A) @ nodes[n].T + nodes[n + 1]
    return A


def momentum_step(W, g, V, eta, mu):
    """One step of gradient descent with momentum: V ← μV + g, then W ← W − ηV with the new V.

    W: weights, g: their gradient, V: the velocity, arrays of one shape, which stay as they are.
    eta: η > 0, mu: 0 ≤ μ < 1. Returns the new (W, V).
    """
    # TODO: the two lines of the rule, as new arrays.
    ### BEGIN SOLUTION
    V = mu * V + g
    return W - eta * V, V
    ### END SOLUTION


def train_epoch(state, x, y, config, epoch, rng):
    """Each example once, in batches, in a new order. Changes state["weights"] and ["velocity"]; returns the mean loss."""
    eta, total = np.float32(config["lr"] * DECAY**epoch), 0.0
    order, size = rng.permutation(len(x)), config["batch_size"]
    for batch in program.progress(np.split(order, range(size, len(x), size)), f"epoch {epoch + 1}"):
        nodes = [Node(W) for W in state["weights"]]
        loss = cross_entropy(forward(nodes, x[batch]), y[batch])
        loss.backward()
        steps = [
            momentum_step(node.data, node.grad, V, eta, np.float32(config["momentum"]))
            for node, V in zip(nodes, state["velocity"], strict=True)
        ]
        state["weights"], state["velocity"] = map(list, zip(*steps, strict=True))
        total += float(loss.data) * len(batch)
    return total / len(x)


def evaluate(weights, x, y):
    """Loss and accuracy in per cent."""
    logits = forward([Node(W) for W in weights], x)
    return float(cross_entropy(logits, y).data), 100 * float(np.mean(logits.data.argmax(1) == y))


def load_data(limit):
    """Train, validation and test split, each (x (N, 784) float32 in 0...1, y (N,))."""
    mnist = atlas.data.load("mnist")
    x, x_test = (x.reshape(-1, 784).astype(np.float32) / 255 for x in (mnist.x_train, mnist.x_test))
    y = mnist.y_train
    return {"train": (x[:limit], y[:limit]), "val": (x[55_000:], y[55_000:]), "test": (x_test, mnist.y_test)}


def train(options, config, saved):
    """Train until options.epochs are done, or go on with the training of the checkpoint `saved`; one checkpoint an epoch.

    Returns the weights, the data and the history.
    """
    rng = np.random.default_rng(config["seed"])
    weights = make_model(config["width"], config["depth"], rng)
    state = {"weights": weights, "velocity": [np.zeros_like(W) for W in weights]}
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if saved:
        state, history = {name: saved[name] for name in state}, saved["history"]
        rng.bit_generator.state = saved["random"]
    data = load_data(config["limit"])
    for epoch in range(len(history["val loss"]), options.epochs):
        loss = train_epoch(state, *data["train"], config, epoch, rng)
        for name, value in zip(history, (loss, *evaluate(state["weights"], *data["val"])), strict=True):
            history[name].append(value)
        random = rng.bit_generator.state
        program.save_arrays(options.checkpoint, {**state, "history": history, "random": random, "config": config})
        print(f"epoch {epoch + 1:3}   " + "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))
    return state["weights"], data, history


# ------------------------------------------------------------------------------------------------ the program


def check(config):
    """Hold the gradients of a small network, in 64-bit, against central differences; print the largest difference."""
    rng = np.random.default_rng(config["seed"])
    x, y = rng.normal(size=(5, 6)), rng.integers(4, size=5)
    arrays = [W.astype(float) for W in make_model(7, max(config["depth"], 1), rng, inputs=6, classes=4)]
    nodes = [Node(W) for W in arrays]
    cross_entropy(forward(nodes, x), y).backward()
    worst = 0.0
    for n, node in enumerate(nodes):
        expected = differences(lambda: float(cross_entropy(forward([Node(W) for W in arrays], x), y).data), arrays[n])
        difference = np.abs(node.grad - expected).max()
        worst = max(worst, difference)
        print(f"{'bW'[n % 2 == 0]}{n // 2 + 1} {node.data.shape!s:8} largest difference {difference:.1e}")
    if worst > 1e-7:
        sys.exit("The gradients are wrong.")
    print("The gradients are right.")


def sample(path, rng):
    """Write a test digit to `path`."""
    try:
        Image.fromarray(rng.choice(atlas.data.load("mnist").x_test)).save(path)
    except (OSError, ValueError) as error:  # ValueError: an unknown format
        sys.exit(f"Cannot write {path}: {error}")
    print(f"{path} is written; to read it: python numpy_mlp.py --predict {path}")


def predict(paths, checkpoint):
    """Print, for each image file, the digit and the probabilities of all ten."""
    weights = program.load_arrays(checkpoint, CONFIG)["weights"]
    for path in paths:
        try:
            with Image.open(path) as file:
                pixels = np.asarray(file.convert("L").resize((28, 28)), np.float32) / 255
        except FileNotFoundError:
            sys.exit(f"There is no file {path}.")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            sys.exit(f"{path} is not an image that can be read: {error}")
        Z = forward([Node(W) for W in weights], pixels.reshape(1, 784)).data[0]  # (10,)
        p = np.exp(Z - Z.max()) / np.exp(Z - Z.max()).sum()
        print(f"{path}: {p.argmax()}   " + "  ".join(f"{digit}: {100 * each:.1f} %" for digit, each in enumerate(p)))


def draw(path, weights, history, x, y):
    """Write the figure: how the training went, and what is mistaken for what on x (N, 784), y (N,)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    curves, confusion = figure.subplots(1, 2)
    losses = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", yscale="log", title="Training", ax=curves)
    answers = forward([Node(W) for W in weights], x).data.argmax(1)
    plot.confusion(y, answers, title=f"{np.mean(answers == y):.2%} of {len(y):,} test digits", ax=confusion)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=6, help="train until so many are done (6)")
    add("--lr", type=program.number(float, 1e-6, 10), help=f"learning rate of the first epoch ({CONFIG['lr']})")
    add(
        "--momentum",
        type=program.number(float, 0, 0.999),
        help=f"μ, the share of the old velocity ({CONFIG['momentum']})",
    )
    add("--batch-size", type=program.number(int, 1, 55_000), help=f"examples in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 10_000), help=f"neurons in a hidden layer ({CONFIG['width']})")
    add("--depth", type=program.number(int, 0, 20), help=f"hidden layers ({CONFIG['depth']})")
    add("--limit", type=program.number(int, 1, 55_000), help="train on so many images only (55,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", choices=["auto", "cpu"], default="auto", help="NumPy computes on the processor, always")
    add("--checkpoint", type=Path, default=Path("runs/numpy_mlp.npz"), metavar="PATH", help="(runs/numpy_mlp.npz)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--check", action="store_true", help="compare gradients with central differences, and end")
    add("--sample", type=Path, metavar="PATH", help="write a test digit as an image file, and end")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="read the digits in these files, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    threadpool_limits(1, "blas")  # matrices this small are multiplied faster by one core
    saved = program.load_arrays(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if options.check:
        return check(config)
    if options.sample:
        return sample(options.sample, np.random.default_rng(config["seed"]))
    if options.predict:
        return predict(options.predict, options.checkpoint)
    program.reserve(options)
    weights, data, history = train(options, config, saved)
    print(f"test accuracy {evaluate(weights, *data['test'])[1]:.2f} %; checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), weights, history, *data["test"])


if __name__ == "__main__":
    program.run(main)
