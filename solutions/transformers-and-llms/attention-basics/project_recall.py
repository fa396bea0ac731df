"""The reference for the project: names and what belongs to them, told in pairs; then the names in another order: what is whose?

python project_recall.py            the README's table, about 250 s of computing; --quick: the same in miniature
"""

import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F

import atlas

KEYS, VALUES = 32, "abcdefghijklmnopqrstuvwxyz012345"


def draw(count, pairs, generator):
    """Sequences (count, 3 · pairs): key, value, key, value, ..., and then the keys, shuffled; and their values (count, pairs).

    Keys are 0 to 31, each once; values are 32 to 63, and may come twice.
    """
    keys = torch.rand(count, KEYS, generator=generator).argsort(1)[:, :pairs]
    values = KEYS + torch.randint(len(VALUES), (count, pairs), generator=generator)
    order = torch.rand(count, pairs, generator=generator).argsort(1)
    told = torch.stack([keys, values], 2).flatten(1)
    return torch.cat([told, keys.gather(1, order)], 1), values.gather(1, order)


class Attention(nn.Module):
    """Layers of causal attention with one head, and nothing else: logits (B, T, V), and each layer's weights."""

    def __init__(self, layers, width, length):
        super().__init__()
        self.tokens, self.places = nn.Embedding(KEYS + len(VALUES), width), nn.Embedding(length, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.layers = nn.ModuleList(nn.MultiheadAttention(width, 1, batch_first=True) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, KEYS + len(VALUES)))

    def forward(self, x, instead=None):
        """instead: weights (T, T) in the place of the first layer's."""
        h, maps = self.tokens(x) + self.places.weight, []
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        for n, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            y = norm(h)
            found, weights = layer(y, y, y, attn_mask=hidden)
            if n == 0 and instead is not None:
                width = y.shape[2]
                values = F.linear(y, layer.in_proj_weight[2 * width :], layer.in_proj_bias[2 * width :])
                found = layer.out_proj(instead @ values)
            h = h + found
            maps.append(weights)
        return self.out(h), maps


class Recurrent(nn.Module):
    """A GRU that reads all, and answers from its states."""

    def __init__(self, width):
        super().__init__()
        self.tokens = nn.Embedding(KEYS + len(VALUES), width)
        self.cell, self.out = nn.GRU(width, width, batch_first=True), nn.Linear(width, KEYS + len(VALUES))

    def forward(self, x):
        return self.out(self.cell(self.tokens(x))[0]), []


def train(model, pairs, steps, seed, device):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x, value = (each.to(device) for each in draw(64, pairs, generator))
        loss = F.cross_entropy(model(x)[0][:, -pairs:].flatten(0, 1), value.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def right(model, pairs, device, **options):
    """Share of the queries of 500 fresh sequences that are answered rightly."""
    x, value = (each.to(device) for each in draw(500, pairs, torch.Generator().manual_seed(99)))
    return (model(x, **options)[0][:, -pairs:].argmax(2) == value).float().mean().item()


def row(name, make, many, steps, device):
    """One line of the table: accuracy of both seeds for each number of pairs, and the seconds of computing."""
    line, last, began = f"{name:20}", None, time.process_time()
    for pairs in many:
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            last = make(3 * pairs).to(device)
            train(last, pairs, steps, seed, device)
            found.append(f"{right(last, pairs, device):.2f}")
        line += f"{', '.join(found):>16}"
    print(f"{line}   {time.process_time() - began:6.0f} s", flush=True)
    return last


def look(model, pairs, device):
    """Where the two layers look, for `pairs` pairs; and what remains of it with other weights in the first layer."""
    T = 3 * pairs
    x, _ = draw(500, pairs, torch.Generator().manual_seed(7))
    with torch.no_grad():
        first, second = (weights.cpu() for weights in model(x.to(device))[1])
    values = torch.arange(1, 2 * pairs, 2)
    place = 2 * (x[:, None, : 2 * pairs : 2] == x[:, 2 * pairs :, None]).float().argmax(2)  # where each key was told
    every, queries = torch.arange(len(x))[:, None], torch.arange(2 * pairs, T)
    print(f"layer 1: {first[:, values, values - 1].mean():.2f} of a value's weight is on the key before it")
    print(f"layer 2: {second[every, queries, place + 1].mean():.2f} of a query's weight is on its value,", end=" ")
    print(f"{second[every, queries, place].mean():.2f} on its key")
    back, two = torch.eye(T).roll(1, 0), torch.eye(T).roll(2, 0)
    back[0], two[:2] = torch.eye(T)[0], torch.eye(T)[:2]
    swaps = {"as trained": None, "one back, by hand": back, "two back": two, "itself": torch.eye(T)}
    for name, instead in swaps.items():
        given = instead if instead is None else instead.to(device)
        print(f"   weights of layer 1: {name:18} right {right(model, pairs, device, instead=given):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    quick = parser.parse_args().quick
    device = atlas.device()
    many, steps = ((4,), 5) if quick else ((4, 8, 16), 600)
    names = atlas.data.load("names").x_train[:KEYS]
    (line,), (value,) = draw(1, 3, torch.Generator().manual_seed(0))
    words = [names[n] if n < KEYS else VALUES[n - KEYS] for n in line.tolist()]
    print(f"for example: {' '.join(words[:6])}; {' '.join(words[6:])}?  {' '.join(VALUES[n - KEYS] for n in value)}\n")
    print(f"{'':20}" + "".join(f"{f'{pairs} pairs':>16}" for pairs in many))
    for name, share in (("guess among all", lambda n: 1 / len(VALUES)), ("guess among the seen", lambda n: 1 / n)):
        print(f"{name:20}" + "".join(f"{share(pairs):16.2f}" for pairs in many))
    row("GRU, 64", lambda length: Recurrent(64), many, steps, device)
    row("1 layer, D = 64", lambda length: Attention(1, 64, length), many, steps, device)
    if not quick:
        row("2 layers, D = 32", lambda length: Attention(2, 32, length), many, steps, device)
    model = row("2 layers, D = 64", lambda length: Attention(2, 64, length), many, steps, device)
    print()
    look(model, many[-1], device)


if __name__ == "__main__":
    main()
