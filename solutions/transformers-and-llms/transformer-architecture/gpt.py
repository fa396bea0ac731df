"""Train a GPT on the characters of a text, measure it window by window, and let it write.

python gpt.py                                       Moby Dick, a small GPT; keeps runs/gpt.pt
python gpt.py --positions sinusoidal                the same with added sines; or learned, or none
python gpt.py --text diary.txt --layers 2           yours: any text file in UTF-8
python gpt.py --resume --epochs 3                   go on with that training, to 3 epochs
python gpt.py --test --stride 32                    bits per character of the test text, and end
python gpt.py --prompt "Call me"                    write on from there
python gpt.py --checkpoint checkpoints/char-gpt.pt --prompt "Call me" --temperature 0.6

The text is cut by position: 90 % to train, 5 % to choose the best epoch, 5 % for the test. Moby Dick is a book of 1851: it
holds slurs and racist descriptions, and what is trained on it may write such things. checkpoints/char-gpt.pt was made by
this program; the text file beside it has the command and its log.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from atlas import plot, program

CONFIG = {
    **{"text": "", "layers": 3, "heads": 4, "width": 64, "positions": "rope", "window": 64, "batch_size": 16},
    **{"lr": 4e-3, "decay": 0.3, "limit": 10**9, "seed": 0},
}
BASE = 10_000.0  # of the wavelengths


# ------------------------------------------------------------------------------------------------ measuring


def window_loss(model, ids, window, stride):
    """Mean cross-entropy of a text, in nat, where a model sees `window` symbols at most at once.

    model: model(x) of ids (1, T), 1 ≤ T ≤ window, gives (logits, cache), logits (1, T, V): position t
    predicts what follows x[0, t]. ids: int64 (N,), N ≥ 2. window and stride: ints, 1 ≤ stride ≤ window.
    Windows begin at 0, stride, 2 · stride, ...; the one that reaches the end of the text is the last, and
    may be shorter. Each of ids[1], ..., ids[N - 1] counts exactly once: in the first window that predicts it.
    Returns the mean over these N - 1, a float. No graph is recorded.
    """
    # TODO: for each window the losses of all its predictions (reduction="none"); add up those that are new.
    ### BEGIN SOLUTION
    total, scored, last = 0.0, 0, len(ids) - 1  # ids[1] ... ids[scored] are counted
    for start in range(0, last, stride):
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        losses = F.cross_entropy(logits[0], ids[start + 1 : end + 1], reduction="none")
        total += losses[scored - start :].sum().item()
        scored = end
        if end == last:
            break
    return total / last
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ the network


def turned(x, start, base=BASE):
    """Rotary positions: x (B, H, T, E), the pair (i, i + E/2) turned by position · base^(-2i/E); first is `start`."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(start, start + x.shape[-2], device=x.device)[:, None] * rates  # (T, E/2)
    cos, sin, a, b = angles.cos(), angles.sin(), x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def sines(length, width):
    """Rows of sine and cosine, interleaved (Vaswani et al., 2017): (length, width)."""
    angles = torch.arange(length)[:, None] * BASE ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


class Attention(nn.Module):
    """Causal attention with H heads, of new symbols to themselves and to those in the cache."""

    def __init__(self, width, heads, rotary):
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def project(self, x, start=0):
        """Queries, keys and values of x (B, T, D), each (B, H, T, E)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return (turned(q, start), turned(k, start), v) if self.rotary else (q, k, v)

    def forward(self, x, cache=None):
        """x (B, T, D) -> the same shape, and the cache with keys and values of x behind those that were there."""
        q, k, v = self.project(x, 0 if cache is None else cache[0].shape[-2])
        if cache is not None:
            k, v = torch.cat([cache[0], k], -2), torch.cat([cache[1], v], -2)
        T, S = q.shape[-2], k.shape[-2]
        if T == S:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            may_look = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=may_look)
        return self.out(mixed.transpose(1, 2).flatten(2)), (k, v)


class Block(nn.Module):
    """Attention, then a small network at each position; a norm before each, a residual path around both."""

    def __init__(self, width, heads, rotary):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, rotary)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x, cache=None):
        mixed, cache = self.attention(self.norm1(x), cache)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), cache


class GPT(nn.Module):
    """Symbols to logits of the next ones; the embedding's matrix is also the last layer's."""

    def __init__(self, symbols, config):
        super().__init__()
        D, L = config["width"], config["layers"]
        self.embed = nn.Embedding(symbols, D)
        kind = config["positions"]
        self.places = nn.Parameter(0.02 * torch.randn(config["window"], D)) if kind == "learned" else None
        self.sines = kind == "sinusoidal"
        self.blocks = nn.ModuleList(Block(D, config["heads"], kind == "rope") for _ in range(L))
        self.norm = nn.LayerNorm(D)
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and name != "places":
                nn.init.normal_(weight, std=0.02)
            if name.endswith(("out.weight", "mlp.2.weight")):  # 2L branches add up
                nn.init.normal_(weight, std=0.02 / (2 * L) ** 0.5)

    def forward(self, ids, caches=None):
        """ids (B, T), caches as before -> logits (B, T, V), caches: keys and values of each block."""
        start, x = 0 if caches is None else caches[0][0].shape[-2], self.embed(ids)
        end = start + ids.shape[1]
        if self.places is not None:
            x = x + self.places[start:end]
        if self.sines:  # as large as the embedding
            x = x + 0.02 * sines(end, x.shape[-1])[start:].to(x)
        after = []
        for n, block in enumerate(self.blocks):
            x, kept = block(x, None if caches is None else caches[n])
            after.append(kept)
        return self.norm(x) @ self.embed.weight.T, after


# ------------------------------------------------------------------------------------------------ training


def bits(loss):
    """Nats as bits."""
    return loss / math.log(2)


def batches(ids, window, size):
    """The text once, cut into windows at a place drawn anew, in a random order: lists of (inputs, targets) (B, T)."""
    begin = int(torch.randint(min(window, len(ids) - window), ()))
    n = (len(ids) - 1 - begin) // window
    x = ids[begin : begin + n * window].view(n, window)
    y = ids[begin + 1 : begin + n * window + 1].view(n, window)
    return [(x[rows], y[rows]) for rows in torch.randperm(n).to(ids.device).split(size)]


@torch.no_grad()
def quick_loss(model, ids, window):
    """Mean loss over windows side by side: a little too high, as each begins without anything before it."""
    n = (len(ids) - 1) // window
    x, y = ids[: n * window].view(n, window), ids[1 : n * window + 1].view(n, window)
    sums = [
        F.cross_entropy(model(a)[0].flatten(0, 1), b.flatten(), reduction="sum").item()
        for a, b in zip(x.split(64), y.split(64), strict=True)
    ]
    return sum(sums) / (n * window)


def train(options, config, parts, alphabet, device, saved):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    The rate rises in the first twentieth of the first epoch and falls by `decay` from epoch to epoch. Returns the network
    with the weights that were best on the validation text, and the checkpoint.
    """
    torch.manual_seed(config["seed"])
    model = GPT(len(alphabet), config).to(device)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config["lr"], betas=(0.9, 0.98))
    keep = {"history": {"train bits": [], "valid bits": []}, "best": None, "best_epoch": 0}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["random"])
            keep = {name: saved[name] for name in keep}
    history, window, begin = keep["history"], config["window"], time.process_time()
    for epoch in range(len(history["train bits"]) + 1, options.epochs + 1):
        model.train()
        parts_of_text = batches(parts[0].to(device), window, config["batch_size"])
        total, n = 0.0, 0
        for step, (x, y) in enumerate(program.progress(parts_of_text, f"epoch {epoch}"), 1):
            done = step / len(parts_of_text)
            warm = min(1.0, done / 0.05) if epoch == 1 else 1.0
            for group in optimizer.param_groups:
                group["lr"] = config["lr"] * warm * config["decay"] ** (epoch - 1 + done)
            loss = F.cross_entropy(model(x)[0].flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total, n = total + loss.item() * y.numel(), n + y.numel()
        model.eval()
        history["train bits"].append(bits(total / n))
        history["valid bits"].append(bits(quick_loss(model, parts[1].to(device), window)))
        if history["valid bits"][-1] == min(history["valid bits"]):
            keep |= {"best": {k: v.clone() for k, v in model.state_dict().items()}, "best_epoch": epoch}
        random = {"random": torch.get_rng_state(), "alphabet": alphabet, "config": config}
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        program.save(options.checkpoint, states | random | keep)
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time() - begin:.0f} s", flush=True)
    model.load_state_dict(keep["best"])
    return model.eval(), keep | {"alphabet": alphabet, "config": config}


# ------------------------------------------------------------------------------------------------ the program


@torch.no_grad()
def write(model, config, alphabet, prompt, length, temperature, generator):
    """The prompt and `length` more characters. Where keys and values of a whole window are kept, the last half of it is
    read anew: farther back than in training no position is known."""
    device, window = next(model.parameters()).device, config["window"]
    written = [alphabet.index(c) for c in prompt]
    new, caches, kept = written[-window:], None, 0
    for _ in range(length):
        if kept + len(new) > window:
            new, caches, kept = written[-max(1, window // 2) :], None, 0
        logits, caches = model(torch.tensor([new], device=device), caches)
        kept += len(new)
        p = torch.softmax(logits[0, -1].cpu() / temperature, 0)
        new = [torch.multinomial(p, 1, generator=generator).item()]
        written += new
    return "".join(alphabet[k] for k in written)


def restore(path):
    """The network of a checkpoint with its best weights, its alphabet, and its configuration."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        model = GPT(len(saved["alphabet"]), saved["config"])
        model.load_state_dict({name: value.float() for name, value in saved["best"].items()})
        return model.eval(), saved["alphabet"], saved["config"]


def slim(done):
    """What use needs, the weights in 16 bits."""
    return done | {"best": {name: value.half() for name, value in done["best"].items()}}


def test(model, ids, config, stride):
    """Print bits per character of a text, each character with at least window - stride before it."""
    found = bits(window_loss(model, ids, config["window"], stride))
    print(f"test: {found:.3f} bits per character, windows of {config['window']}, stride {stride}", flush=True)


def draw(path, history, config):
    """Write the figure: bits per character over epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    series = {"train": history["train bits"], "valid": history["valid bits"]}
    title = f"{config['layers']} layers of width {config['width']}, positions {config['positions']}"
    plot.curves(series, ylabel="bits per character", title=title, ax=figure.subplots())
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    kinds = ["rope", "sinusoidal", "learned", "none"]
    add("--text", metavar="FILE", help="a text file in UTF-8 (Moby Dick)")
    add("--epochs", type=program.number(int, 1, 1000), default=1, help="train until so many are done (1)")
    add("--layers", type=program.number(int, 1, 100), help=f"blocks ({CONFIG['layers']})")
    add("--heads", type=program.number(int, 1, 100), help=f"in each block ({CONFIG['heads']})")
    add("--width", type=program.number(int, 2, 4096), help=f"numbers for a character ({CONFIG['width']})")
    add("--positions", choices=kinds, help=f"how it knows the order ({CONFIG['positions']})")
    add("--window", type=program.number(int, 2, 10_000), help=f"characters seen at most ({CONFIG['window']})")
    add("--batch-size", type=program.number(int, 1, 10_000), help=f"windows in a step ({CONFIG['batch_size']})")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"highest learning rate ({CONFIG['lr']})")
    add("--decay", type=program.number(float, 0.001, 1), help=f"its factor from epoch to epoch ({CONFIG['decay']})")
    add("--limit", type=program.number(int, 100, 10**9), help="so many characters of each part at most (all)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights, of the order, of what is written (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/gpt.pt"), metavar="PATH", help="the network (runs/gpt.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add(
        "--slim",
        type=Path,
        metavar="PATH",
        help="keep the best weights alone there, in 16 bits: for use, not to resume",
    )
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--test", action="store_true", help="measure the checkpoint's network on the test text, and end")
    add("--stride", type=program.number(int, 1, 10_000), help="from window to window in the test (half a window)")
    add("--prompt", metavar="TEXT", help="write on from this with the checkpoint's network, and end")
    add("--length", type=program.number(int, 1, 100_000), default=400, help="so many characters more (400)")
    add("--temperature", type=program.number(float, 0.01, 100), default=0.7, help="low is cautious, 1 as learned (0.7)")
    return parser.parse_args(arguments), parser


def stride_of(parser, options, config):
    """The stride of the test; ends the program where it would leave characters out."""
    if (options.stride or 1) > config["window"]:
        parser.error(
            f"--stride {options.stride} is longer than the window, {config['window']}: it would skip characters"
        )
    return options.stride or max(1, config["window"] // 2)


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.prompt is not None:
        model, alphabet, config = restore(options.checkpoint)
        if not options.prompt or (strange := set(options.prompt) - set(alphabet)):
            parser.error("--prompt needs a character" if not options.prompt else f"never seen: {sorted(strange)}")
        draws = torch.Generator().manual_seed(options.seed or 0)
        print(write(model.to(device), config, alphabet, options.prompt, options.length, options.temperature, draws))
        return
    if options.test:
        model, alphabet, config = restore(options.checkpoint)
        parts, theirs = program.text(config, 2 * config["window"])
        if theirs != alphabet:
            sys.exit(f"{options.checkpoint} was trained on another text: its alphabet differs.")
        return test(model.to(device), parts[2].to(device), config, stride_of(parser, options, config))
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if config["width"] % config["heads"] or (config["positions"] == "rope" and config["width"] // config["heads"] % 2):
        need = "an even number for each" if config["positions"] == "rope" else "the same for each"
        parser.error(f"--width {config['width']} is shared by {config['heads']} heads: {need}")
    stride = stride_of(parser, options, config)
    parts, alphabet = program.text(config, 2 * config["window"])
    if saved and saved.get("alphabet") != alphabet:
        sys.exit(f"{options.checkpoint} was trained on another text: its alphabet differs.")
    program.reserve(options)
    model, done = train(options, config, parts, alphabet, device, saved)
    if options.slim:
        program.save(options.slim, slim(done))
    test(model, parts[2].to(device), config, stride)
    draw(options.figure or options.checkpoint.with_suffix(".png"), done["history"], config)
    print(f"checkpoint {options.checkpoint}; after the first words of the test text it writes:\n")
    begin = "".join(alphabet[k] for k in parts[2][:40].tolist())
    print(write(model, config, alphabet, begin, 200, 0.7, torch.Generator().manual_seed(config["seed"])))


if __name__ == "__main__":
    program.run(main)
