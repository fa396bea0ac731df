"""Watch attention learn to copy: tokens that repeat after a period, and where each layer looks, epoch by epoch.

python watch_copy.py                            train two layers; keeps runs/copy.pt, draws runs/copy.png
python watch_copy.py --layers 1 --checkpoint runs/one.pt    the same with one layer
python watch_copy.py --period 20 --checkpoint runs/20.pt    a period that is always 20, not drawn from 10 to 20
python watch_copy.py --resume --epochs 12       go on with that training, to 12 epochs
python watch_copy.py --test                     what the checkpoint's network copies, by period

An epoch is so many --steps of fresh sequences. The figure is a strip: a row for each layer and head, a column an epoch.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from atlas import program

CONFIG = {
    "layers": 2,
    "heads": 1,
    "width": 64,
    "period": "random",
    "steps": 30,
    "batch_size": 64,
    "lr": 3e-3,
    "seed": 0,
}
LENGTH, TOKENS = 40, 48
SHORTEST, LONGEST = 10, 20
EXAM = (5, 8, 10, 12, 14, 16, 18, 19, 20, 21, 22, 25, 30)


# ------------------------------------------------------------------------------------------------ sequences


def copies(count, periods, generator):
    """Sequences that repeat: tokens (count, LENGTH), and the period of each, drawn from a tensor of them."""
    period = periods[torch.randint(len(periods), (count,), generator=generator)]
    tokens = torch.rand(count, TOKENS, generator=generator).argsort(1)  # all different
    return tokens.gather(1, torch.arange(LENGTH) % period[:, None]), period


def periods_of(text):
    """What --period says, as a tensor of those that may be drawn."""
    return torch.arange(SHORTEST, LONGEST + 1) if text == "random" else torch.tensor([int(text)])


@torch.no_grad()
def right(model, period, device="cpu", count=200):
    """Share of next tokens that are right, among those that can be known, in fresh sequences of that period."""
    x = copies(count, torch.tensor([period]), torch.Generator().manual_seed(99))[0].to(device)
    logits, _ = model(x)
    return (logits[:, period:-1].argmax(2) == x[:, period + 1 :]).float().mean().item()


# ------------------------------------------------------------------------------------------------ the network


class Copier(nn.Module):
    """Tokens (B, T) to logits (B, T, TOKENS) for the next one, and the weights (B, H, T, T) of each layer."""

    def __init__(self, layers, heads, width):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, width), nn.Embedding(LENGTH, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, TOKENS))

    def forward(self, x):
        T, maps = x.shape[1], []
        hidden = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)  # True here: may not be looked at
        h = self.tokens(x) + self.places.weight[:T]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            y = norm(h)
            found, weights = layer(y, y, y, attn_mask=hidden, average_attn_weights=False)
            h = h + found
            maps.append(weights)
        return self.out(h), maps


def attention_entropy(weights, mask):
    """How wide each query looks, from 0, at one key, to 1, at all that it may look at alike.

    weights: (..., T, S), of any floating dtype, rows that sum to 1 and are 0 where the mask is False. mask: bool,
    of a shape that broadcasts to (..., T, S), True where a query may look. Both stay as they are.
    Returns (..., T), of the weights' dtype: the entropy of each row, -sum of w ln w with 0 ln 0 = 0,
    divided by ln n, where n is the number of keys that this query may look at; 0 where n is 0 or 1.
    """
    # TODO: torch.special.entr(w) is -w ln w, and 0 at 0; mask.expand(weights.shape).sum(-1) counts; mind ln 1 = 0.
    ### BEGIN SOLUTION
    visible = mask.expand(weights.shape).sum(-1)
    entropy = torch.special.entr(weights).sum(-1)
    return torch.where(visible > 1, entropy / visible.clamp(min=2).to(weights.dtype).log(), 0.0)
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ training


def train_epoch(model, optimizer, config, epoch, device):
    """So many steps of fresh sequences; the mean loss of what can be known."""
    generator = torch.Generator().manual_seed(1000 * config["seed"] + epoch)
    total, periods = 0.0, periods_of(config["period"])
    for _ in program.progress(range(config["steps"]), f"epoch {epoch}"):
        x, period = (each.to(device) for each in copies(config["batch_size"], periods, generator))
        known = torch.arange(LENGTH - 1, device=device) >= period[:, None]
        loss = F.cross_entropy(model(x)[0][:, :-1][known], x[:, 1:][known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / config["steps"]


@torch.no_grad()
def look(model, device):
    """The mean weights of each layer's heads (layers · H, T, T), and how wide they look, on fresh sequences of 20."""
    x = copies(100, torch.tensor([20]), torch.Generator().manual_seed(7))[0].to(device)
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=device).tril()
    maps = torch.cat(model(x)[1], 1)  # (B, layers · H, T, T)
    return maps.mean(0).cpu(), attention_entropy(maps, mask).mean((0, 2)).cpu()


def train(options, config, device, saved=None):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch."""
    torch.manual_seed(config["seed"])
    model = Copier(config["layers"], config["heads"], config["width"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    history = {"loss": [], "right at 20": [], "right at 14": [], "entropy": []}
    strip = [look(model, device)[0].half()]  # before training
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history, strip = saved["history"], list(saved["strip"])
    for epoch in range(len(history["loss"]) + 1, options.epochs + 1):
        loss = train_epoch(model, optimizer, config, epoch, device)
        maps, wide = look(model, device)
        strip.append(maps.half())
        now = loss, right(model, 20, device), right(model, 14, device), wide.mean().item()
        for name, value in zip(history, now, strict=True):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "strip": torch.stack(strip)}
        program.save(options.checkpoint, {**states, "history": history, "config": config})
        heads = " ".join(f"{each:.2f}" for each in wide.tolist())
        line = "   ".join(f"{name} {values[-1]:.3f}" for name, values in list(history.items())[:3])
        print(f"epoch {epoch:3}   {line}   entropy {heads}   computed {time.process_time():.0f} s", flush=True)
    return model, torch.stack(strip).float()


# ------------------------------------------------------------------------------------------------ the program


def restore(path):
    """The network of a checkpoint."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        config = saved["config"]
        model = Copier(config["layers"], config["heads"], config["width"])
        model.load_state_dict(saved["model"])
        return model.eval()


def test(model, device="cpu"):
    """Print what is copied, by period."""
    for period in EXAM:
        share = right(model, period, device)
        print(f"period {period:2}   right {share:6.1%}   {'#' * round(40 * share)}")


def draw(path, strip, heads):
    """Write the strip: strip (epochs + 1, layers · H, T, T), a row for each head, at most nine columns."""
    from matplotlib.figure import Figure

    shown = sorted({round(n * (len(strip) - 1) / 8) for n in range(9)})
    rows = strip.shape[1]
    figure = Figure(figsize=(1.25 * len(shown) + 0.8, 1.4 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, len(shown), squeeze=False)
    for row in range(rows):
        for ax, epoch in zip(panels[row], shown, strict=True):
            ax.imshow(strip[epoch, row].numpy(), cmap="Blues", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(f"epoch {epoch}", size=9)
        panels[row][0].set_ylabel(f"layer {row // heads + 1}, head {row % heads + 1}", size=8)
    figure.supxlabel("key, from left to right; queries from top to bottom", size=8)
    program.save_figure(figure, path)


def period(text):
    """An argparse type: random, or a whole number that leaves something to copy."""
    if text != "random" and not (text.isdecimal() and 1 <= int(text) <= LENGTH - 2):
        raise argparse.ArgumentTypeError(f"{text} is neither random nor a whole number from 1 to {LENGTH - 2}")
    return text


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=8, help="train until so many are done (8)")
    add("--layers", type=program.number(int, 1, 12), help=f"layers of attention ({CONFIG['layers']})")
    add("--heads", type=program.number(int, 1, 64), help=f"heads of a layer ({CONFIG['heads']})")
    add("--width", type=program.number(int, 1, 1024), help=f"a multiple of the heads ({CONFIG['width']})")
    add("--period", type=period, help=f"a number, or random: from {SHORTEST} to {LONGEST} ({CONFIG['period']})")
    add("--steps", type=program.number(int, 1, 10_000), help=f"steps in an epoch ({CONFIG['steps']})")
    add("--batch-size", type=program.number(int, 1, 10_000), help=f"sequences in a step ({CONFIG['batch_size']})")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"learning rate ({CONFIG['lr']})")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and sequences (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/copy.pt"), metavar="PATH", help="the network (runs/copy.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--test", action="store_true", help="measure the network by period, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.test:
        return test(restore(options.checkpoint).to(device), device)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if config["width"] % config["heads"]:
        parser.error(f"--width {config['width']} is no multiple of --heads {config['heads']}")
    program.reserve(options)
    model, strip = train(options, config, device, saved)
    test(model, device)
    draw(options.figure or options.checkpoint.with_suffix(".png"), strip, config["heads"])
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
