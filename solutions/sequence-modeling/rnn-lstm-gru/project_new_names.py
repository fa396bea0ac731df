"""Names that nobody has: a network, a table of counts, and a mixture that beats either. The project's reference.

A GRU and Kneser–Ney tables learn 6,184 first names; all choices (epoch, order, discount, share of the mixture) are made
on the 800 validation names, and bits per letter are reported on the 1,000 test names, the sign for the end included.
Then each draws names letter by letter: how many are copies, how many are as likely as real ones are? Names are neither
of a person nor of a sex; the two lists that they come from were collected before 2002, and most of the world's names are
in neither. Writes new_names.{json,png} to --out.
"""

import argparse
import json
import time
from pathlib import Path

import char_rnn
import numpy as np
import torch
from torch import nn

import atlas
from atlas import plot, program

LETTERS = ".abcdefghijklmnopqrstuvwxyz"  # the dot begins a name and ends it
V = len(LETTERS)
LONGEST = 14


def encode(names):
    """(N, LONGEST + 2): a dot, the letters, dots up to the end."""
    return np.array([[LETTERS.index(c) for c in f".{name}".ljust(LONGEST + 2, ".")] for name in names])


def predicted(rows):
    """Which entries of rows[:, 1:] are letters or a name's first dot behind them, (N, LONGEST + 1)."""
    return (rows[:, 1:] > 0) | ((rows[:, 1:] == 0) & (rows[:, :-1] > 0))


# ------------------------------------------------------------------------------------------------ table and network


def count(rows, order, discount):
    """A Kneser–Ney table of names; before a name stand as many dots as the table looks back."""
    dots = np.zeros((len(rows), order - 1), int)
    whole = np.concatenate([dots, rows[:, 1:]], 1)  # the first dot is one of them, if there is one
    counted = np.concatenate([dots > 0, predicted(rows)], 1)
    return char_rnn.KneserNey(whole.ravel(), V, order, discount, counted.ravel())


def by_table(table, rows):
    """p of every symbol at every place, (N, LONGEST + 1, V)."""
    N, places = len(rows), rows.shape[1] - 1
    padded = np.concatenate([np.zeros((N, table.order), int), rows], 1)
    before = [padded[:, table.order + 1 - k : table.order + 1 - k + places] for k in range(1, table.order)]
    before = [np.repeat(each.ravel(), V) for each in before]
    return table.probabilities(np.tile(np.arange(V), N * places), before).reshape(N, places, V)


def train(rows, valid, epochs, width, seed):
    """A GRU on names, as it was after its best epoch, and bits per letter by epoch."""
    torch.manual_seed(seed)
    config = char_rnn.CONFIG | {"cell": "gru", "width": width, "embed": 32, "dropout": 0.2}
    model, history, best = char_rnn.CharModel(V, config), {"train": [], "valid": []}, None
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    x, there = torch.tensor(rows), torch.tensor(predicted(rows))
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 4e-3 * 0.85**epoch
        model.train()
        nats = symbols = 0
        for batch in program.progress(torch.randperm(len(x)).split(64), f"epoch {epoch + 1}"):
            logits, _ = model(x[batch, :-1])
            losses = nn.functional.cross_entropy(logits[there[batch]], x[batch, 1:][there[batch]], reduction="none")
            optimizer.zero_grad()
            losses.mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            nats, symbols = nats + losses.sum().item(), symbols + len(losses)
        history["train"].append(char_rnn.bits(nats / symbols))
        history["valid"].append(bits(by_net(model, valid), valid).mean())
        if history["valid"][-1] == min(history["valid"]):
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return model, history


@torch.no_grad()
def by_net(model, rows):
    """p of every symbol at every place, (N, LONGEST + 1, V)."""
    model.eval()
    return model(torch.tensor(rows[:, :-1]))[0].softmax(2).double().numpy()


def bits(p, rows):
    """-log2 p of each predicted symbol, one after the other."""
    found = np.take_along_axis(p, rows[:, 1:, None], 2)[..., 0]
    return -np.log2(found[predicted(rows)])


# ------------------------------------------------------------------------------------------------ new names


def draw(model, table, share, many, rng):
    """Names drawn letter by letter from share · network + (1 - share) · table."""
    rows = np.zeros((many, LONGEST + 2), int)
    ended = np.zeros(many, bool)
    for place in range(1, LONGEST + 1):
        so_far = rows[:, : place + 1]
        p = np.zeros((many, V))
        if share > 0:
            p += share * by_net(model, so_far)[:, -1]
        if share < 1:
            p += (1 - share) * by_table(table, so_far)[:, -1]
        p[:, 0] *= place > 1  # a name has a letter
        k = (p.cumsum(1) < rng.random((many, 1)) * p.sum(1, keepdims=True)).sum(1)
        rows[:, place] = np.where(ended, 0, np.minimum(k, V - 1))
        ended |= rows[:, place] == 0
    return ["".join(LETTERS[k] for k in row if k) for row in rows]


def judge(drawn, known, table, bar):
    """What is wrong with drawn names, as shares, and the good ones: new, each once, three letters or more, likely."""
    copies = [name in known for name in drawn]
    rows = encode(drawn)
    lengths = predicted(rows).sum(1)
    each = np.split(bits(by_table(table, rows), rows), np.cumsum(lengths)[:-1])
    unlikely = [each_bits.mean() > bar for each_bits in each]
    good = [
        name for name, copy, odd in zip(drawn, copies, unlikely, strict=True) if not copy and not odd and len(name) > 2
    ]
    shares = {"copies": np.mean(copies), "unlikely": np.mean(unlikely), "bits": np.mean([b.mean() for b in each])}
    return {name: float(value) for name, value in shares.items()}, list(dict.fromkeys(good))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=program.number(int, 0, 2**31), default=0, help="of weights and draws (0)")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="written here (runs)")
    parser.add_argument("--quick", action="store_true", help="a small network and few names, to see that it runs")
    options = parser.parse_args(arguments)
    names = atlas.data.load("names")
    N, epochs, width, many = (800, 1, 16, 60) if options.quick else (10_000, 10, 128, 2000)
    rows, valid, test = (encode(part[:N]) for part in (names.x_train, names.x_valid, names.x_test))

    tables = {(n, d): count(rows, n, d) for n in (3, 4, 5, 6) for d in (0.7, 0.8, 0.9)}
    on_valid = {key: bits(by_table(table, valid), valid).mean() for key, table in tables.items()}
    order, discount = min(on_valid, key=on_valid.get)
    table = tables[order, discount]
    model, history = train(rows, valid, epochs, width, options.seed)
    shares = np.linspace(0, 1, 21)
    p_net, p_table = by_net(model, valid), by_table(table, valid)
    mixed = [bits(s * p_net + (1 - s) * p_table, valid).mean() for s in shares]
    share = float(shares[np.argmin(mixed)])
    p_net, p_table = by_net(model, test), by_table(table, test)
    kinds = {"table": 0.0, "network": 1.0, "mixture": share}
    found = {kind: {"test bits": bits(s * p_net + (1 - s) * p_table, test).mean()} for kind, s in kinds.items()}

    known = {*names.x_train, *names.x_valid, *names.x_test}
    of_valid = predicted(valid).sum(1)
    real = np.array([b.mean() for b in np.split(bits(by_table(table, valid), valid), np.cumsum(of_valid)[:-1])])
    bar = float(np.quantile(real, 0.9))  # nine of ten real names are likelier
    rng, good = np.random.default_rng(options.seed), {}
    print(f"table of order {order}, discount {discount}; the mixture is {share:.2f} network")
    print("            test bits   copies   unlikely   good of drawn")
    for kind, s in kinds.items():
        drawn = draw(model, table, s, many, rng)
        told, good[kind] = judge(drawn, known, table, bar)
        found[kind] |= told | {"good": len(good[kind]) / many}
        cells = f"{found[kind]['test bits']:9.3f} {told['copies']:10.1%} {told['unlikely']:10.1%}"
        print(f"{kind:10} {cells} {found[kind]['good']:12.1%}")
    print(f"of real names {np.mean(real > bar):.0%} are called unlikely; such as:", ", ".join(good["mixture"][:12]))
    print(f"computed {time.process_time():.0f} s")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot.curves(history, ylabel="bits per letter", title="The network learns 6,184 names", ax=left)
    series = {"validation names": (100 * shares, mixed)}
    title = "A mixture beats the table (0) and the network (100)"
    plot.curves(series, xlabel="share of the network (%)", ylabel="bits per letter", title=title, ax=right)
    program.save_figure(figure, options.out / "new_names.png")
    written = {"order": order, "discount": discount, "share": share, "seed": options.seed} | {"kinds": found}
    written["names"] = good["mixture"][:1000]
    with program.writing(options.out / "new_names.json", "out") as part:
        part.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    program.run(main)
