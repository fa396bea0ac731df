"""Train an RNN, a GRU or an LSTM on the characters of a text, beside an n-gram table, and let it write.

python char_rnn.py                                      Moby Dick, an LSTM; keeps runs/char_rnn.pt
python char_rnn.py --text diary.txt --cell gru          yours: any text file in UTF-8
python char_rnn.py --resume --epochs 8                  go on with that training, to 8 epochs
python char_rnn.py --prompt "Call me"                   write on from there
python char_rnn.py --checkpoint checkpoints/char-lstm.pt --prompt "Call me" --temperature 0.6

The text is cut by position: 90 % to train, 5 % to choose the best epoch and the table's order, 5 % for the test. Moby Dick
is a book of 1851: it holds slurs and racist descriptions, and what is trained on it may write such things.
checkpoints/char-lstm.pt was made by this program; the text file beside it has the command and its log.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from atlas import plot, program

CONFIG = {
    **{"text": "", "cell": "lstm", "width": 128, "embed": 64, "dropout": 0.1},
    **{"lr": 4e-3, "streams": 16, "window": 64, "limit": 10**9, "seed": 0},
}
RATE_DECAY = 0.85  # of the learning rate, epoch by epoch: it has no end built in, so training can go on
ORDERS = (3, 4, 5, 6, 7)  # of the n-gram table
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


# ------------------------------------------------------------------------------------------------ writing


def sample(logits, temperature, generator):
    """Draw a symbol: its number k with the probability that softmax(logits / temperature) gives it.

    logits: float tensor (V,), of any size, also beyond 1000; −inf stands at a symbol that must never come. They stay as
    they are. temperature: a number > 0; small ones make the likeliest symbol come nearly always, and nothing overflows
    or becomes 0/0.
    generator: torch.Generator, on the CPU as the logits are; it alone decides, and each draw moves it on.
    Returns an int, 0 ... V - 1.
    """
    # TODO: divide the logits, softmax, torch.multinomial(p, 1, generator=generator); .item() makes an int of it.
    raise NotImplementedError("sample")


@torch.no_grad()
def write(model, alphabet, prompt, length, temperature, generator):
    """The prompt and `length` more characters, drawn one by one; the state is carried from each to the next."""
    model.eval()
    device = next(model.parameters()).device
    ids, state = torch.tensor([[alphabet.index(c) for c in prompt]], device=device), None
    written = list(prompt)
    for _ in range(length):
        logits, state = model(ids, state)
        k = sample(logits[0, -1].cpu(), temperature, generator)
        written.append(alphabet[k])
        ids = torch.tensor([[k]], device=device)
    return "".join(written)


# ------------------------------------------------------------------------------------------------ the network


class CharModel(nn.Module):
    """Characters to logits of the next ones: embedding, one recurrent layer, linear."""

    def __init__(self, symbols, config):
        super().__init__()
        D = config["width"]
        self.embed = nn.Embedding(symbols, config["embed"])
        self.drop = nn.Dropout(config["dropout"])
        self.rnn = CELLS[config["cell"]](config["embed"], D, batch_first=True)
        self.head = nn.Linear(D, symbols)
        if config["cell"] == "lstm":
            with torch.no_grad():
                self.rnn.bias_ih_l0[D : 2 * D] += 1  # forget gates begin open

    def forward(self, ids, state=None):
        """ids (B, T), state as before -> logits (B, T, V), state."""
        outputs, state = self.rnn(self.drop(self.embed(ids)), state)
        return self.head(self.drop(outputs)), state


def detached(state):
    """The same state without its graph: gradients end at the border of a window, numbers do not."""
    return tuple(map(torch.Tensor.detach, state)) if isinstance(state, tuple) else state.detach()


def windows(ids, streams, window):
    """The text cut into `streams` pieces that are read side by side, (inputs, targets) window by window."""
    n = (len(ids) - 1) // streams
    x, y = ids[: streams * n].view(streams, n), ids[1 : streams * n + 1].view(streams, n)
    return list(zip(x.split(window, 1), y.split(window, 1), strict=True))


def bits(loss):
    """Nats as bits."""
    return loss / math.log(2)


@torch.no_grad()
def evaluate(model, ids, streams=1, window=500):
    """Bits per character of a text; each stream begins with an empty state."""
    model.eval()
    state, total, n = None, 0.0, 0
    for x, y in windows(ids, streams, window):
        logits, state = model(x, state)
        total += nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
        n += y.numel()
    return bits(total / n)


# ------------------------------------------------------------------------------------------------ the table


class KneserNey:
    """An interpolated Kneser–Ney n-gram table over the symbols 0 ... V - 1 (Kneser and Ney, 1995).

    p_n(s | c) = max(N(cs) - d, 0) / N(c·) + d · kinds(c·) / N(c·) · p_{n-1}(s | c without its first symbol), and
    p_0 = 1/V. For n = order, N counts how often; below, it counts different symbols before: "Francisco" is frequent,
    but nearly always after "San". kinds(c·) is how many different symbols follow c. Where c was never seen, p_n is
    p_{n-1}. Each n-gram is one whole number in base V, so that all counting is sorting.
    counted: which of ids are symbols that one would predict (all); others count as what stands before them only.
    """

    def __init__(self, ids, symbols, order, discount=0.9, counted=None):
        if symbols**order >= 2**63:
            raise ValueError(f"{symbols} symbols are too many for order {order}")
        ids = np.asarray(ids, np.int64)
        self.symbols, self.order, self.discount, self.tables = symbols, order, discount, []
        codes = sum(ids[k : len(ids) - order + 1 + k] * symbols ** (order - 1 - k) for k in range(order))
        codes = codes if counted is None else codes[np.asarray(counted)[order - 1 :]]
        for n in range(order, 0, -1):
            grams, counts = np.unique(codes, return_counts=True)
            contexts, start = np.unique(grams // symbols, return_index=True)
            totals, kinds = np.add.reduceat(counts, start), np.diff([*start, len(grams)])
            self.tables.append((grams, counts, contexts, totals, kinds))
            codes = grams % symbols ** (n - 1)  # each different n-gram without its first symbol, once
        self.tables.reverse()  # order 1 first

    def probabilities(self, symbols, before):
        """p of symbols[m] after before[0][m] (the nearest), before[1][m], ...; -1 where nothing stands. All (M,)."""
        p, context, known = np.full(len(symbols), 1 / self.symbols), np.zeros(len(symbols), np.int64), True
        for n, (grams, counts, contexts, totals, kinds) in enumerate(self.tables, 1):
            if n > 1:
                known = known & (before[n - 2] >= 0)
                context = context + np.where(known, before[n - 2], 0) * self.symbols ** (n - 2)
            row, seen = _find(contexts, context)
            seen = seen & known
            place, there = _find(grams, context * self.symbols + symbols)
            count = np.where(there, counts[place], 0)
            mixed = (np.maximum(count - self.discount, 0) + self.discount * kinds[row] * p) / totals[row]
            p = np.where(seen, mixed, p)
        return p

    def bits(self, ids):
        """-log2 p of ids[1], ids[2], ..., each after what stands before it in ids."""
        ids = np.asarray(ids, np.int64)
        before = [np.concatenate([np.full(k, -1), ids[:-k]])[1:] for k in range(1, self.order)]
        return -np.log2(self.probabilities(ids[1:], before))

    def next(self, ids):
        """p of each symbol after ids, (V,)."""
        last = [ids[-k] if k <= len(ids) else -1 for k in range(1, self.order)]
        return self.probabilities(np.arange(self.symbols), [np.full(self.symbols, s) for s in last])


def _find(keys, wanted):
    """Where each wanted number stands in sorted keys, and whether it does."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def best_table(train, valid, symbols):
    """The table whose order is best on the validation text, and bits by order."""
    orders = [n for n in ORDERS if symbols**n < 2**63]
    tables = {n: KneserNey(train, symbols, n) for n in orders}
    found = {n: float(table.bits(valid).mean()) for n, table in tables.items()}
    return tables[min(found, key=found.get)], found


# ------------------------------------------------------------------------------------------------ training


def train(options, config, parts, alphabet, device, saved):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    Returns the network with the weights that were best on the validation text, and the checkpoint.
    """
    torch.manual_seed(config["seed"])
    model = CharModel(len(alphabet), config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    keep = {"history": {"train bits": [], "valid bits": []}, "best": None, "best_epoch": 0}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["random"])
            keep = {name: saved[name] for name in keep}
    history, ids, begin = keep["history"], parts[0].to(device), time.process_time()
    for epoch in range(len(history["train bits"]) + 1, options.epochs + 1):
        optimizer.param_groups[0]["lr"] = config["lr"] * RATE_DECAY ** (epoch - 1)
        model.train()
        state, total, n = None, 0.0, 0
        for x, y in program.progress(windows(ids, config["streams"], config["window"]), f"epoch {epoch}"):
            logits, state = model(x, state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            state = detached(state)
            total, n = total + loss.item() * y.numel(), n + y.numel()
        history["train bits"].append(bits(total / n))
        history["valid bits"].append(evaluate(model, parts[1].to(device), config["streams"]))
        if history["valid bits"][-1] == min(history["valid bits"]):
            keep |= {"best": {k: v.clone() for k, v in model.state_dict().items()}, "best_epoch": epoch}
        random = {"random": torch.get_rng_state(), "alphabet": alphabet, "config": config}
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        program.save(options.checkpoint, states | random | keep)
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time() - begin:.0f} s", flush=True)
    model.load_state_dict(keep["best"])
    return model, keep | {"alphabet": alphabet, "config": config}


def slim(done):
    """What writing needs, the weights in 16 bits: a quarter of a percent of their size is rounded off at most."""
    return done | {"best": {name: value.half() for name, value in done["best"].items()}}


# ------------------------------------------------------------------------------------------------ the program


def load_model(path):
    """The network of a checkpoint, its best weights, and the alphabet; ends the program where there is none."""
    saved = program.load(path, CONFIG)
    with program.reading(path):
        model = CharModel(len(saved["alphabet"]), saved["config"])
        model.load_state_dict({name: value.float() for name, value in saved["best"].items()})
        return model, saved["alphabet"]


def draw(path, history, found, cell):
    """Write the figure: bits per character over epochs, and what tables of counts reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    series = {"train": history["train bits"], "valid": history["valid bits"]}
    plot.curves(series, ylabel="bits per character", title=f"{cell}, and n-gram tables on the validation text", ax=ax)
    for n, value in found.items():
        ax.axhline(value, color=plot.SOFT, linewidth=0.8, zorder=0)
        ax.text(0.01, value, f" {n}-gram", transform=ax.get_yaxis_transform(), size=8, va="bottom", color=plot.SOFT)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", metavar="FILE", help="a text file in UTF-8 (Moby Dick)")
    add("--cell", choices=list(CELLS), help=f"which recurrent layer ({CONFIG['cell']})")
    add("--epochs", type=program.number(int, 1, 1000), default=4, help="train until so many are done (4)")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"learning rate of the first epoch ({CONFIG['lr']})")
    add("--width", type=program.number(int, 1, 4096), help=f"numbers in the state ({CONFIG['width']})")
    add("--embed", type=program.number(int, 1, 4096), help=f"numbers for a character ({CONFIG['embed']})")
    add("--dropout", type=program.number(float, 0, 0.95), help=f"before and behind the cell ({CONFIG['dropout']})")
    add("--streams", type=program.number(int, 1, 1000), help="pieces that are read side by side (16)")
    add("--window", type=program.number(int, 1, 10_000), help="characters that a gradient goes back (64)")
    add("--limit", type=program.number(int, 100, 10**9), help="so many characters of each part at most (all)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and of what is written (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/char_rnn.pt"), metavar="PATH", help="here (runs/char_rnn.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add(
        "--slim",
        type=Path,
        metavar="PATH",
        help="keep the best weights alone there, in 16 bits: to write, not to resume",
    )
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--prompt", metavar="TEXT", help="write on from this with the checkpoint's network, and end")
    add("--length", type=program.number(int, 1, 100_000), default=400, help="so many characters more (400)")
    add("--temperature", type=program.number(float, 0.01, 100), default=0.7, help="low is cautious, 1 as learned (0.7)")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.prompt is not None:
        model, alphabet = load_model(options.checkpoint)
        if not options.prompt or (strange := set(options.prompt) - set(alphabet)):
            parser.error("--prompt needs a character" if not options.prompt else f"never seen: {sorted(strange)}")
        generator = torch.Generator().manual_seed(options.seed or 0)
        print(write(model.to(device), alphabet, options.prompt, options.length, options.temperature, generator))
        return
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    parts, alphabet = program.text(config, 2 * config["streams"])
    if saved and saved.get("alphabet") != alphabet:
        sys.exit(f"{options.checkpoint} was trained on another text: its alphabet differs.")
    program.reserve(options)
    model, done = train(options, config, parts, alphabet, device, saved)
    table, found = best_table(parts[0].numpy(), parts[1].numpy(), len(alphabet))
    by_table, by_net = float(table.bits(parts[2].numpy()).mean()), evaluate(model, parts[2].to(device))
    print(f"test: {config['cell']} {by_net:.3f} bits per character, Kneser–Ney {table.order}-gram {by_table:.3f}")
    if options.slim:
        program.save(options.slim, slim(done))
    draw(options.figure or options.checkpoint.with_suffix(".png"), done["history"], found, config["cell"])
    print(f"checkpoint {options.checkpoint}; after the first words of the test text it writes:\n")
    begin = "".join(alphabet[k] for k in parts[2][:40].tolist())
    print(write(model, alphabet, begin, 200, 0.7, torch.Generator().manual_seed(config["seed"])))


if __name__ == "__main__":
    program.run(main)
