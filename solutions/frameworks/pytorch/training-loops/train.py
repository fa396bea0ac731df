"""Train an MLP on Fashion-MNIST so that it may be killed at any moment, in one process or in several.

python train.py                                     keeps runs/train.pt, draws runs/train.png
python train.py --resume                            goes on behind the last checkpoint, and ends with the same weights
python train.py --tensorboard runs/board            for `tensorboard --logdir runs/board`, in another terminal
torchrun --standalone --nproc-per-node 2 train.py   the same training in two processes (other dropout, so other bits)

A resumed run (--resume, also with torchrun) equals the run in one go to the bit, on one machine and with as many
processes as before; with three or more, torch may add gradients up in another order. A training that is kept is lost only with --overwrite.
"""

import argparse
import datetime
import hashlib
import os
import random
import socket
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import atlas
from atlas import plot, program

CONFIG = {
    **{"lr": 0.05, "width": 128, "dropout": 0.1, "batch_size": 100, "max_norm": 1.0, "average": 0.99},
    **{"limit": 10_000, "seed": 0, "processes": 1},
}
DECAY = 0.8  # of the learning rate, epoch by epoch: it has no end built in, so training can go on
TIMEOUT = datetime.timedelta(seconds=60)  # so long a process waits for the others


# ------------------------------------------------------------------------------------------------ whose examples


def shard_indices(n, rank, processes, seed, epoch):
    """The examples of this process in this epoch, in order: a tensor of whole numbers, int64.

    All of 0 ... n - 1 are shuffled by torch.randperm with a generator seeded seed + epoch, alike in every process.
    Filled up from its own beginning (again and again, if need be) until `processes` divides its length, this order is
    dealt out like cards: rank 0 gets the entries 0, processes, 2 · processes, ...; rank 1 the entries 1, ...
    """
    # TODO: 1. torch.Generator().manual_seed(...), torch.randperm(n, generator=...).
    #       2. How long must it be? Fill it up to that.
    #       3. Every `processes`-th entry, from `rank` on.
    ### BEGIN SOLUTION
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch))
    length = -(-n // processes) * processes  # rounded up
    order = order.repeat(-(-length // n))[:length]
    return order[rank::processes]
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ the processes


def join(device):
    """Meet the other processes that torchrun has started. Returns this one's rank and how many there are."""
    if "RANK" not in os.environ:
        return 0, 1
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if processes == int(os.environ["LOCAL_WORLD_SIZE"]):  # all on this machine: no need to ask what its address is
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return rank, processes


def summed(values, device):
    """The sums of some numbers over all processes."""
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums.tolist()


def gathered(own, rank, processes):
    """What each process has, in a list, on rank 0."""
    if processes == 1:
        return [own]
    found = [None] * processes
    dist.gather_object(own, found if rank == 0 else None)
    return found


# ------------------------------------------------------------------------------------------------ the run


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 784) float32, y (N,) int64) on the device."""
    fashion = atlas.data.load("fashion-mnist")
    parts = {
        "train": (fashion.x_train[:limit], fashion.y_train[:limit]),
        "val": (fashion.x_train[55_000:], fashion.y_train[55_000:]),
        "test": (fashion.x_test, fashion.y_test),
    }
    parts = {name: (torch.tensor(x).float().flatten(1), torch.tensor(y)) for name, (x, y) in parts.items()}
    mean, spread = parts["train"][0].mean(), parts["train"][0].std()  # of the training images only
    return {name: (((x - mean) / spread).to(device), y.to(device)) for name, (x, y) in parts.items()}


def new_run(config, steps, device):
    """The parts of a run that have a state: model, optimizer, schedule, and the running mean of the weights."""
    random.seed(config["seed"])
    np.random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    width, drop = config["width"], config["dropout"]
    hidden = [nn.Linear(784, width), nn.ReLU(), nn.Dropout(drop), nn.Linear(width, width), nn.ReLU(), nn.Dropout(drop)]
    model = nn.Sequential(*hidden, nn.Linear(width, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)

    def factor(t):
        return min(1.0, (t + 1) / steps) * DECAY ** (t // steps)  # the first epoch is the warm-up

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config["average"]))
    return {"model": model, "optimizer": optimizer, "schedule": schedule, "mean": mean}


def random_state(device):
    """The states of all generators, of types that torch.load takes with weights_only=True."""
    name, key, *rest = np.random.get_state()
    states = {"python": random.getstate(), "numpy": (name, key.tolist(), *rest), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(state, device):
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(state["mps"])


@torch.no_grad()
def evaluate(model, x, y, rank=0, processes=1):
    """Loss and accuracy in per cent; each process looks at its share of the examples, and the sums are added up."""
    model.eval()
    logits, labels = model(x[rank::processes]), y[rank::processes]
    loss = functional.cross_entropy(logits, labels, reduction="sum").item()
    total, right, n = summed([loss, (logits.argmax(1) == labels).sum().item(), len(labels)], x.device)
    return total / n, 100 * right / n


def train(options, config, data, device, saved, rank):
    """Train, or go on with the training of the checkpoint `saved`; a checkpoint every so many steps and each epoch.

    Returns the running mean of the weights, as a model, and the history.
    """
    (x, y), processes = data["train"], config["processes"]
    own = config["batch_size"] // processes  # of each batch
    steps = -(-len(shard_indices(len(x), rank, processes, 0, 0)) // own)  # in an epoch
    run = new_run(config, steps, device)
    torch.manual_seed(config["seed"] + 1000 * (rank + 1))  # each process drops its own neurons
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    done, so_far = 0, [0.0, 0]  # steps; sum of losses in this epoch, and of how many examples
    if saved:
        with program.reading(options.checkpoint):
            for name, part in run.items():
                part.load_state_dict(saved[name])
            done, history = saved["step"], saved["history"]
            so_far = saved["so far"][rank]
            set_random_state(saved["random"][rank], device)
    board = open_board(options.tensorboard, done) if options.tensorboard and rank == 0 else None
    model = nn.parallel.DistributedDataParallel(run["model"]) if processes > 1 else run["model"]
    while done < steps * options.epochs:
        epoch, first = divmod(done, steps)
        mine = shard_indices(len(x), rank, processes, config["seed"], epoch).to(device).split(own)[first:]
        for batch in program.progress(mine, f"epoch {epoch + 1}") if rank == 0 else mine:
            model.train()
            loss = functional.cross_entropy(model(x[batch]), y[batch])
            run["optimizer"].zero_grad()
            loss.backward()  # with several processes this leaves the mean of their gradients
            nn.utils.clip_grad_norm_(model.parameters(), config["max_norm"])
            run["optimizer"].step()
            run["schedule"].step()
            run["mean"].update_parameters(run["model"])
            so_far = [so_far[0] + loss.item() * len(batch), so_far[1] + len(batch)]
            if board and done % 10 == 0:
                board.add_scalar("loss of a batch", loss.item(), done)
            done += 1
            if done % steps == 0:
                total, n = summed(so_far, device)
                results = total / n, *evaluate(run["mean"], *data["val"], rank, processes)
                so_far = [0.0, 0]
                for name, value in zip(history, results, strict=True):
                    history[name].append(value)
                    if board:
                        board.add_scalar(name, value, done - 1)
                if rank == 0:
                    shown = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
                    print(f"epoch {epoch + 1:3}   {shown}", flush=True)
            if done % steps == 0 or done % options.every == 0:
                of_all = {"random": random_state(device), "so far": so_far}
                of_all = {name: gathered(own_state, rank, processes) for name, own_state in of_all.items()}
                if board:
                    board.flush()  # before the checkpoint: what it goes on from is on the disk
                if rank == 0:
                    states = {name: part.state_dict() for name, part in run.items()}
                    kept = {**states, **of_all, "step": done, "history": history, "config": config}
                    program.save(options.checkpoint, kept)
    if board:
        board.close()
    return run["mean"], history


def open_board(folder, step):
    """TensorBoard's writer; what a killed run has written from this step on does not count."""
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))  # else it loads TensorFlow, to write
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=step or None)


def fingerprint(model):
    """Twelve digits that differ where one bit of the weights does."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


# ------------------------------------------------------------------------------------------------ the program


def draw(path, history):
    """Write the figure: both losses, and the accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = {"train": history["train loss"], "val": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", title="Loss; validation by the mean of weights", ax=left)
    accuracy = {"val": history["val accuracy"]}
    plot.curves(accuracy, ylabel="accuracy (%)", title=f"{accuracy['val'][-1]:.1f} % at the end", ax=right)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=6, help="train until so many are done (6)")
    add("--lr", type=program.number(float, 1e-9, 100), help=f"highest learning rate ({CONFIG['lr']})")
    add("--batch-size", type=program.number(int, 1, 50_000), help="examples in a step of all processes (100)")
    add("--width", type=program.number(int, 1, 10_000), help=f"hidden neurons in a layer ({CONFIG['width']})")
    add("--dropout", type=program.number(float, 0, 0.95), help="probability to drop a hidden activation (0.1)")
    add("--max-norm", type=program.number(float, 1e-9, 1e9), help="longest gradient (1)")
    add("--average", type=program.number(float, 0, 0.99999), help="decay of the running mean of the weights (0.99)")
    add("--limit", type=program.number(int, 2, 50_000), help="train on so many images only (10,000)")
    add("--seed", type=program.number(int, 0, 2**31), help="of weights, order and dropout (0)")
    add("--every", type=program.number(int, 1, 10**9), default=50, help="steps between checkpoints (50)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/train.pt"), metavar="PATH", help="kept here (runs/train.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--tensorboard", type=Path, metavar="FOLDER", help="write events for TensorBoard there (none)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    torch.set_num_threads(1)  # layers this small are slower on two cores, and sums stay in one order
    options.processes = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    if saved and saved["config"]["processes"] != options.processes:
        before = saved["config"]["processes"]
        parser.error(f"the checkpoint's training has {before} processes: torchrun --nproc-per-node {before}, as before")
    config = program.settings(parser, options, CONFIG, saved)
    if config["batch_size"] % options.processes:
        parser.error(f"--batch-size {config['batch_size']} cannot be divided among {options.processes} processes")
    program.reserve(options)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    rank, _ = join(device)
    data = load_data(config["limit"], device)
    mean, history = train(options, config, data, device, saved, rank)
    accuracy = evaluate(mean, *data["test"], rank, options.processes)[1]
    if rank == 0:
        print(f"test accuracy {accuracy:.2f} %; checkpoint {options.checkpoint}; weights {fingerprint(mean)}")
        draw(options.figure or options.checkpoint.with_suffix(".png"), history)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    program.run(main)
