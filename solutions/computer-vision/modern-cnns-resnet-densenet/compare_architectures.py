"""Train one of seven architectures on small pictures, and compare what they cost with what they reach.

python compare_architectures.py --network residual              train it; keeps runs/residual.pt, draws runs/residual.png
python compare_architectures.py --network vit --width 64 --depth 4 --lr 1e-3
python compare_architectures.py --network residual --resume --epochs 8       go on with that training, to 8 epochs
python compare_architectures.py --table checkpoints/*.pt        parameters, multiplications, seconds, test accuracy
python compare_architectures.py --network residual --dataset cifar10         after: atlas data fetch cifar10

The checkpoints of the workshop were made by this program; the text file beside each has the command and its log.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import nn

import atlas
from atlas import plot, program

CONFIG = {"dataset": "fashion-mnist", "network": "residual", "width": 12, "depth": 2, "patch": 4}
CONFIG |= {"lr": 1e-2, "batch_size": 128, "seed": 0, "limit": 60_000}
DECAY = 0.5  # of the learning rate, epoch by epoch: it has no end built in, so training can go on
VALIDATION = 5000  # so many pictures at the end of the training set are for validation


# ------------------------------------------------------------------------------------------------ blocks


def conv_norm(n_in, n_out, kernel=3, stride=1, groups=1):
    """Convolution without bias, batch norm."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(n_out)


class Plain(nn.Module):
    """Two convolutions, as deep networks were built before 2015."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        first, second = conv_norm(n_in, n_out, stride=stride), conv_norm(n_out, n_out)
        self.branch = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x):
        return torch.relu(self.branch(x))


class Residual(Plain):
    """The same, and what came in is added (He et al. 2015)."""

    def __init__(self, n_in, n_out, stride):
        super().__init__(n_in, n_out, stride)
        same = stride == 1 and n_in == n_out
        self.skip = nn.Identity() if same else nn.Sequential(*conv_norm(n_in, n_out, 1, stride))

    def forward(self, x):
        return torch.relu(self.branch(x) + self.skip(x))


class Concatenate(nn.Module):
    """Each layer gets all maps made so far, and adds `growth` more (Huang et al. 2016)."""

    def __init__(self, n_in, growth, layers):
        super().__init__()
        counts = range(n_in, n_in + layers * growth, growth)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1, bias=False)) for n in counts
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Dense(nn.Sequential):
    """Four layers that add n_out/4 maps each, then a transition to n_out maps, averaged where there is a stride."""

    def __init__(self, n_in, n_out, stride):
        layers = Concatenate(n_in, n_out // 4, 4), nn.BatchNorm2d(n_in + n_out // 4 * 4), nn.ReLU()
        conv = nn.Conv2d(n_in + n_out // 4 * 4, n_out, 1, bias=False)
        super().__init__(*layers, conv, nn.AvgPool2d(stride, ceil_mode=True))


class Separable(nn.Sequential):
    """A convolution for each channel by itself, then one across channels (Howard et al. 2017)."""

    def __init__(self, n_in, n_out, stride):
        depthwise = conv_norm(n_in, n_in, 3, stride, groups=n_in)
        super().__init__(*depthwise, nn.ReLU(), *conv_norm(n_in, n_out, 1), nn.ReLU())


class Squeeze(nn.Module):
    """Each channel times a factor that all channels' means decide on (Hu et al. 2017)."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.down, self.up = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x):
        gates = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))  # (B, C)
        return x * gates[:, :, None, None]


class MBConv(nn.Module):
    """EfficientNet's block: widen, convolve each channel, squeeze and excite, narrow, add (Tan and Le 2019)."""

    def __init__(self, n_in, n_out, stride, expand=4):
        super().__init__()
        wide = expand * n_in
        self.branch = nn.Sequential(
            *(*conv_norm(n_in, wide, 1), nn.SiLU()),
            *(*conv_norm(wide, wide, 3, stride, groups=wide), nn.SiLU()),
            *(Squeeze(wide, max(1, n_in // 4)), *conv_norm(wide, n_out, 1)),
        )
        self.same = stride == 1 and n_in == n_out

    def forward(self, x):
        return self.branch(x) + x if self.same else self.branch(x)


BLOCKS = {"plain": Plain, "residual": Residual, "dense": Dense, "separable": Separable, "mbconv": MBConv}
"""Name → class of a block: made by block(n_in, n_out, stride), it takes (B, n_in, H, W) to (B, n_out, H/stride, ...)."""


def build(name, width, depth, channels=1, classes=10):
    """A network of blocks of one kind, as an nn.Sequential of 3 + 3·depth + 3 parts:

    stem: nn.Conv2d(channels, width, 3, stride 2, padding 1, no bias), nn.BatchNorm2d, nn.ReLU;
    three stages of `depth` blocks each, BLOCKS[name](n_in, n_out, stride): stage s = 0, 1, 2 gives width·2^s channels,
    and its first block has stride 2 in stages 1 and 2; every other block has stride 1;
    head: nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear to `classes`.

    width, depth >= 1. Raises ValueError for a name that is not in BLOCKS.
    """
    # TODO: the name, then a list of parts. What does a block take in: what the one before it gave.
    ### BEGIN SOLUTION
    if name not in BLOCKS:
        raise ValueError(f"no block {name!r}: there are {', '.join(BLOCKS)}")
    parts = [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    n_in = width
    for stage in range(3):
        n_out = width * 2**stage
        for n in range(depth):
            parts.append(BLOCKS[name](n_in, n_out, 2 if stage and not n else 1))
            n_in = n_out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, classes))
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ the other two


def small_cnn(width, channels, size, classes):
    """The network of cnn-basics, the baseline: three convolutions, and a linear layer that sees every place."""
    side = (size + 1) // 2 // 2
    first, second, third = (
        conv_norm(channels, width, 5, 2),
        conv_norm(width, 2 * width),
        conv_norm(2 * width, 4 * width),
    )
    features = *first, nn.ReLU(), *second, nn.ReLU(), nn.MaxPool2d(2), *third, nn.ReLU()
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(4 * width * side**2, classes))


class Embedding(nn.Module):
    """Pictures (B, C, H, W) to tokens (B, 1 + N, D): a class token, then the N patches, plus their positions."""

    def __init__(self, channels, size, patch, width):
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(channels * patch**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, width))

    def forward(self, x):
        patches = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # (B, N, C·p·p)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.project(patches)], 1)
        return tokens + self.positions


class Encoder(nn.Module):
    """A transformer's block: tokens look at one another, then each is changed by itself; both are added."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, t):
        n = self.norm1(t)
        t = t + self.attention(n, n, n, need_weights=False)[0]
        return t + self.mlp(self.norm2(t))


def vit(width, depth, patch, channels, size, classes):
    """A small Vision Transformer (Dosovitskiy et al. 2020): the class token's last state is classified."""
    model = nn.Sequential()
    model.embed = Embedding(channels, size, patch, width)
    model.blocks = nn.Sequential(*(Encoder(width, max(1, width // 16)) for _ in range(depth)))
    model.first = First()
    model.norm = nn.LayerNorm(width)
    model.head = nn.Linear(width, classes)
    return model


class First(nn.Module):
    """The first token."""

    def forward(self, t):
        return t[:, 0]


# ------------------------------------------------------------------------------------------------ training


def make_model(config, shape, classes):
    """The network of a configuration: pictures (B, C, H, W) in 0...1 to logits (B, classes)."""
    (channels, size, _), name = shape, config["network"]
    if name == "vit":
        if size % config["patch"]:
            sys.exit(f"Patches of {config['patch']} pixels do not fill pictures of {size}: choose another --patch.")
        return vit(config["width"], config["depth"], config["patch"], channels, size, classes)
    if name == "small-cnn":
        model = small_cnn(config["width"], channels, size, classes)
    else:
        model = build(name, config["width"], config["depth"], channels, classes)
    # Channels last is faster, but not safe for a strided 1 × 1 convolution of few channels, which only the residual
    # block has: its backward pass writes past its memory there (github.com/uxlfoundation/oneDNN/issues/6035).
    return model if name == "residual" else model.to(memory_format=torch.channels_last)


def as_batch(images, device):
    """uint8 (N, H, W) or (N, H, W, 3) as float (N, C, H, W) in 0...1 on the device."""
    x = torch.tensor(images, device=device)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return (x / 255).contiguous()


def load_data(name, limit, device):
    """Train, validation and test split, each (x (N, C, H, W), y (N,)), and the names of the classes."""
    try:
        loaded = atlas.data.load(name, fetch=False)
    except atlas.data.DataError as error:
        sys.exit(str(error))
    y, y_test = (torch.tensor(y, device=device) for y in (loaded.y_train, loaded.y_test))
    of_train = min(limit, len(y) - VALIDATION)
    data = {"train": (as_batch(loaded.x_train[:of_train], device), y[:of_train])}
    data["val"] = as_batch(loaded.x_train[-VALIDATION:], device), y[-VALIDATION:]
    data["test"] = as_batch(loaded.x_test, device), y_test
    return data, loaded.classes


def train_epoch(model, x, y, optimizer, config, epoch):
    """Each picture once, in a new order, in batches. Returns the mean loss."""
    model.train()
    total = 0.0
    order = torch.randperm(len(x)).to(x.device)  # drawn on the CPU: its generator's state is in the checkpoint
    batches = order.split(config["batch_size"])
    for n, batch in enumerate(program.progress(batches, f"epoch {epoch}"), 1):
        warm = min(1.0, 2 * n / len(batches)) if epoch == 1 else 1.0
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * warm * DECAY ** (epoch - 1)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def predict(model, x):
    """Logits (N, K), in batches, in evaluation mode."""
    model.eval()
    return torch.cat([model(batch) for batch in x.split(500)])


def evaluate(model, x, y):
    """Loss and accuracy in per cent."""
    logits = predict(model, x)
    return nn.functional.cross_entropy(logits, y).item(), 100 * (logits.argmax(1) == y).float().mean().item()


def train(options, config, data, classes, device, saved=None):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    Returns the model and the history.
    """
    torch.manual_seed(config["seed"])
    shape = tuple(data["train"][0].shape[1:])
    model = make_model(config, shape, len(classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.05)
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        loss = train_epoch(model, *data["train"], optimizer, config, epoch)
        for name, value in zip(history, (loss, *evaluate(model, *data["val"])), strict=True):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        facts = {"shape": shape, "classes": list(classes), "random": torch.get_rng_state()}
        program.save(options.checkpoint, {**states, **facts, "history": history, "config": config})
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time():.0f} s", flush=True)
    return model, history


# ------------------------------------------------------------------------------------------------ comparing


@torch.no_grad()
def count_macs(model, shape):
    """Multiplications for one picture (C, H, W), in convolutions, linear layers and attention."""
    total = 0

    def count(layer, _, out):
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += out[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += out[0].numel() * layer.in_features
        elif isinstance(layer, nn.MultiheadAttention):
            tokens, width = out[0].shape[1:]
            total += 4 * tokens * width**2 + 2 * tokens**2 * width  # projections; queries · keys, weights · values

    counted = nn.Conv2d, nn.Linear, nn.MultiheadAttention
    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, counted)]
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # it goes past the hooks
    model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    torch.backends.mha.set_fastpath_enabled(True)
    for hook in hooks:
        hook.remove()
    return total


def milliseconds(model, x):
    """Computing time for one picture, in batches of 100; the best of three."""
    batches, best = x[:300].split(100), float("inf")
    predict(model, batches[0])
    for _ in range(3):
        begin = time.process_time()
        for batch in batches:
            predict(model, batch)
        best = min(best, time.process_time() - begin)
    return 1000 * best / sum(map(len, batches))


def restore(path):
    """The model of a checkpoint, and the checkpoint."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        model = make_model(saved["config"], saved["shape"], len(saved["classes"]))
        model.load_state_dict(saved["model"])
    return model, saved


def table(paths, figure, device):
    """Print what the checkpoints' networks cost and reach on the test pictures, and draw one against the other."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    axes, datasets = drawn.subplots(), {}
    print("network              parameters  multiplications  ms a picture  epochs  test accuracy")
    for path, colour, marker in zip(paths, 2 * plot.COLOURS, 2 * plot.MARKERS, strict=False):
        model, saved = restore(path)
        name = saved["config"]["dataset"]
        if name not in datasets:
            datasets[name] = load_data(name, 1, device)[0]["test"]
        parameters = sum(p.numel() for p in model.parameters())
        macs = count_macs(model, saved["shape"])
        score, x = evaluate(model.to(device), *datasets[name])[1], datasets[name][0]
        epochs = len(saved["history"]["val loss"])
        line = f"{path.stem:20} {parameters:10,} {macs:16,} {milliseconds(model, x):13.2f} {epochs:7} {score:12.2f} %"
        print(line, flush=True)
        axes.scatter(
            macs / 1e6, score, color=colour, marker=marker, s=60, label=f"{path.stem} ({parameters / 1e3:.0f}k)"
        )
    axes.set(xlabel="million multiplications a picture", ylabel="test accuracy (%)", xscale="log")
    axes.set_title("What it costs, and what it reaches", loc="left", size=11, weight="bold")
    axes.grid(color=plot.GRID)
    axes.legend(frameon=False, title="network (parameters)", loc="upper left", bbox_to_anchor=(1, 1))
    program.save_figure(drawn, figure)


def draw(path, history, name):
    """Write the figure: how the training went."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    losses = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", title=f"Training of {name}", ax=figure.subplots())
    program.save_figure(figure, path)


# ------------------------------------------------------------------------------------------------ the program


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", choices=[*BLOCKS, "small-cnn", "vit"], help="what to train (residual)")
    add("--dataset", choices=["fashion-mnist", "mnist", "cifar10"], help="what to learn (fashion-mnist)")
    add("--epochs", type=program.number(int, 1, 1000), default=4, help="train until so many are done (4)")
    add("--lr", type=program.number(float, 1e-6, 1), help=f"highest learning rate ({CONFIG['lr']}; vit wants less)")
    add("--batch-size", type=program.number(int, 2, 10_000), help=f"pictures in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 4, 512), help=f"channels after the stem, of a token ({CONFIG['width']})")
    add("--depth", type=program.number(int, 1, 50), help=f"blocks in a stage, blocks of vit ({CONFIG['depth']})")
    add("--patch", type=program.number(int, 1, 32), help=f"side of vit's patches in pixels ({CONFIG['patch']})")
    add("--limit", type=program.number(int, 1, 60_000), help="train on so many pictures only (all)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, metavar="PATH", help="kept here (runs/<network>.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--table", type=Path, nargs="+", metavar="PATH", help="compare these checkpoints on the test pictures, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.table:
        return table(options.table, options.figure or Path("runs/table.png"), device)
    options.checkpoint = options.checkpoint or Path(f"runs/{options.network or CONFIG['network']}.pt")
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    data, classes = load_data(config["dataset"], config["limit"], device)
    program.reserve(options)
    model, history = train(options, config, data, classes, device, saved)
    print(f"test accuracy {evaluate(model, *data['test'])[1]:.2f} %")
    draw(options.figure or options.checkpoint.with_suffix(".png"), history, config["network"])
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
