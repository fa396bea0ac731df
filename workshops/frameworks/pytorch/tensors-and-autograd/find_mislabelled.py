"""Find labels that are probably wrong: train on all of them, and rank by how much each example disagrees.

python find_mislabelled.py                            rank Fashion-MNIST; keeps runs/labels.{pt,csv,png}
python find_mislabelled.py --plant 0.03               plant 3 % wrong labels first, and say how many are found
python find_mislabelled.py --score gradient           rank by the length of the gradient, not by the loss
python find_mislabelled.py --resume --epochs 5        go on with that training, to 5 epochs, and rank again

The list has a line for each image: its place, number, label, what the network says, score, whether it was planted.
A training that is kept is lost only with --overwrite.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot, program

CONFIG = {"data": "fashion-mnist", "plant": 0.0, "lr": 2e-3, "width": 64, "batch_size": 64, "seed": 0, "limit": 10_000}
SHOWN, COLUMNS = 20, 5  # images in the figure


# ------------------------------------------------------------------------------------------------ scores


def gradient_norms(inputs, deltas):
    """The length of each example's gradient, all weights and biases together, without the gradients.

    inputs: a list of a, (N, in), what each linear layer was given; deltas: a list of ∂L/∂z, (N, out), for the sum of
    the N losses and each layer's result z = Wa + b. Returns (N,).
    """
    # TODO: for each layer, ‖δ‖² (‖a‖² + 1), row by row; add up the layers, and take the root.
    raise NotImplementedError("gradient_norms")


def layer_by_layer(model, x, y):
    """One forward and one backward pass. Returns inputs and deltas of the linear layers, and the logits (N, 10)."""
    inputs, results, a = [], [], x
    for layer in model:
        before, a = a, layer(a)
        if isinstance(layer, nn.Linear):
            inputs.append(before.detach())
            results.append(a)
    deltas = torch.autograd.grad(F.cross_entropy(a, y, reduction="sum"), results)
    return inputs, deltas, a.detach()


def scores_of(model, x, y):
    """The two scores by name, each (N,), and the predicted classes, (N,)."""
    lengths, losses, says = [], [], []
    for some, labels in zip(x.split(2000), y.split(2000), strict=True):
        inputs, deltas, logits = layer_by_layer(model, some, labels)
        lengths.append(gradient_norms(inputs, deltas))
        losses.append(F.cross_entropy(logits, labels, reduction="none"))
        says.append(logits.argmax(1))
    return {"loss": torch.cat(losses), "gradient": torch.cat(lengths)}, torch.cat(says)


# ------------------------------------------------------------------------------------------------ training


def make_model(width):
    """Images (B, 784), standardised, to logits (B, 10)."""
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def load_data(config, device):
    """Images and labels to rank, with the mask of the planted ones, validation images and labels, and class names."""
    found = atlas.data.load(config["data"])
    x = torch.tensor(found.x_train, device=device).flatten(1)  # (60000, 784) uint8
    y = torch.tensor(found.y_train, device=device)
    x_rank, x_val = x[: config["limit"]].float(), x[50_000:].float()
    mean, spread = x_rank.mean(), x_rank.std()
    true = y[: config["limit"]]
    labels = plant(true, config["plant"], config["seed"])
    data = {"x": (x_rank - mean) / spread, "labels": labels, "planted": labels != true}
    return data | {"val": ((x_val - mean) / spread, y[50_000:]), "pictures": found.x_train, "classes": found.classes}


def plant(labels, share, seed):
    """The labels (N,), of which this share are another class."""
    generator, wrong = torch.Generator().manual_seed(seed), round(share * len(labels))
    at = torch.randperm(len(labels), generator=generator)[:wrong].to(labels.device)
    shift = torch.randint(1, 10, (wrong,), generator=generator).to(labels.device)
    planted = labels.clone()
    planted[at] = (planted[at] + shift) % 10
    return planted


def train(options, config, data, device, saved):
    """Train until options.epochs are done, or go on with the training of `saved`. Returns model and history."""
    torch.manual_seed(config["seed"])
    model = make_model(config["width"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    history = {"train loss": [], "val loss": []}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    x, y = data["x"], data["labels"]
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        total, batches = 0.0, torch.randperm(len(x)).to(device).split(config["batch_size"])
        for batch in program.progress(batches, f"epoch {epoch}"):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            logits, right = model(data["val"][0]), data["val"][1]
        history["train loss"].append(total / len(x))
        history["val loss"].append(F.cross_entropy(logits, right).item())
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
        program.save(options.checkpoint, {**states, "history": history, "config": config})
        accuracy = (logits.argmax(1) == right).float().mean().item()
        words = "   ".join(f"{name} {values[-1]:.3f}" for name, values in history.items())
        print(f"epoch {epoch:3}   {words}   val accuracy {accuracy:.1%}")
    return model, history


# ------------------------------------------------------------------------------------------------ the program


def write_list(path, order, score, says, data):
    """The ranking as CSV, most suspicious first."""
    with program.writing(path, "records") as part, part.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["place", "image", "label", "network says", "score", "planted"])
        for place, i in enumerate(order.tolist(), 1):
            label, said = (data["classes"][int(t[i])] for t in (data["labels"], says))
            lines.writerow([place, i, label, said, f"{score[i].item():.4f}", int(data["planted"][i])])
    print(f"list {path}")


def draw(path, order, says, data):
    """Write the figure: the most suspicious images, each with its label and what the network says."""
    from matplotlib.figure import Figure

    top = order[:SHOWN].tolist()
    rows = -(-len(top) // COLUMNS)
    figure = Figure(figsize=(9, 1.85 * rows + 0.5), layout="constrained")
    ax = figure.subplots()  # one for all images: an Axes for each takes seconds
    for place, i in enumerate(top):
        x, y = 44 * (place % COLUMNS), 44 * (place // COLUMNS)
        ax.imshow(data["pictures"][i], cmap="gray", extent=(x, x + 28, y + 28, y))
        label, said = (data["classes"][int(t[i])] for t in (data["labels"], says))
        star = " *" if data["planted"][i] else ""
        ax.text(x + 14, y - 1, f"{label}{star}\n(network: {said})", size=8, ha="center")
    ax.set(xlim=(-10, 44 * COLUMNS - 6), ylim=(44 * rows - 14, -13))
    ax.axis("off")
    note = ", * planted" if data["planted"].any() else ""
    ax.set_title(f"The {len(top)} most suspicious labels{note}", size=11, weight="bold", color=plot.INK)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", choices=("fashion-mnist", "mnist"), help=f"whose labels ({CONFIG['data']})")
    add("--plant", type=program.number(float, 0, 0.5), help="share of labels to make wrong first (0)")
    add("--score", choices=("loss", "gradient"), default="loss", help="what to rank by (loss)")
    add("--epochs", type=program.number(int, 1, 1000), default=3, help="train until so many are done (3)")
    add("--lr", type=program.number(float, 1e-9, 100), help=f"learning rate of AdamW ({CONFIG['lr']})")
    add("--batch-size", type=program.number(int, 1, 50_000), help=f"examples in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 10_000), help=f"hidden neurons ({CONFIG['width']})")
    add("--limit", type=program.number(int, 2, 50_000), help="rank so many images (10,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights, order and planted labels (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/labels.pt"), metavar="PATH", help="kept here (runs/labels.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--records", type=Path, metavar="PATH", help="the list as CSV (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    program.reserve(options)
    data = load_data(config, device)
    scores_of(make_model(config["width"]).to(device), data["x"][:2], data["labels"][:2])  # fails now, if it fails
    model, _ = train(options, config, data, device, saved)
    scores, says = scores_of(model, data["x"], data["labels"])
    if count := int(data["planted"].sum()):
        for name, score in scores.items():
            caught = int(data["planted"][score.topk(count).indices].sum())
            print(f"{name:8} {caught} of the {count} labels at the top were planted ({caught / count:.0%})")
        print(f"chance   {count / len(data['planted']):.1%} of them would be")
    order = scores[options.score].argsort(descending=True, stable=True).cpu()
    write_list(options.records or options.checkpoint.with_suffix(".csv"), order, scores[options.score], says, data)
    draw(options.figure or options.checkpoint.with_suffix(".png"), order, says, data)


if __name__ == "__main__":
    program.run(main)
