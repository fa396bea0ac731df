"""A sweep that may be killed at any moment: the project's reference.

Trains train.py's network with four rates and three seeds. The plan is written first; each run has a checkpoint every few
steps and, when it is finished, a result. Started again, the sweep skips what is finished and resumes what was begun.
Here it is started as a process of its own and killed (SIGKILL) three times; then the same plan runs undisturbed, and
the two leaderboards have to be equal. Writes leaderboard.{json,png} to --out.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import train

from atlas import plot, program

RATES, SEEDS = (0.01, 0.03, 0.1, 0.3), (0, 1, 2)


def make_plan(folder, rates, seeds, limit, epochs):
    """The runs, as they stand in plan.json; written there before anything is trained, and never changed."""
    path = folder / "plan.json"
    if not path.exists():
        runs = [
            {**train.CONFIG, "lr": rate, "seed": seed, "limit": limit, "batch_size": 50}
            for seed in seeds
            for rate in rates
        ]
        write(path, {"epochs": epochs, "runs": runs})
    return json.loads(path.read_text())


def write(path, content):
    """Write JSON; the file is whole at any moment."""
    with program.writing(path, "out") as part:
        part.write_text(json.dumps(content, indent=2))


def sweep(folder, data):
    """Finish all runs of the plan, from wherever they are."""
    plan = json.loads((folder / "plan.json").read_text())
    for number, config in enumerate(plan["runs"]):
        checkpoint, result = folder / f"run-{number:02}.pt", folder / f"run-{number:02}.json"
        if result.exists():
            continue
        options = argparse.Namespace(epochs=plan["epochs"], every=5, checkpoint=checkpoint, tensorboard=None)
        saved = program.load(checkpoint, train.CONFIG) if checkpoint.exists() else None
        mean, history = train.train(options, config, data, torch.device("cpu"), saved, 0)
        weights = train.fingerprint(mean)
        write(result, {"lr": config["lr"], "seed": config["seed"], **history, "weights": weights})


def finish(folder, data, kills, runs):
    """Start the sweep as a process of its own until all is done, and kill it so many times on the way."""
    for kill in range(kills + 1):
        process = multiprocessing.get_context("fork").Process(target=quiet_sweep, args=(folder, data))
        process.start()
        if kill < kills:
            victim = (kill + 1) * runs // (kills + 1)  # a run about so far down the plan, when it has begun
            while process.is_alive() and not (folder / f"run-{victim:02}.pt").exists():
                time.sleep(0.002)
            process.kill()
        process.join()
        done = len(list(folder.glob("run-*.json")))
        print(f"{'killed' if kill < kills else 'ended'}: {done} of {runs} runs are finished", flush=True)
    if process.exitcode:
        sys.exit(f"The sweep ended with code {process.exitcode}.")


def quiet_sweep(folder, data):
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        sweep(folder, data)


def leaderboard(folder):
    """A row for each rate, the best first: mean and standard deviation over seeds of the last validation accuracy."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("run-*.json"))]
    rows = []
    for rate in sorted({result["lr"] for result in results}):
        scores = [result["val accuracy"][-1] for result in results if result["lr"] == rate]
        weights = [result["weights"] for result in results if result["lr"] == rate]
        spread = float(np.std(scores, ddof=1))
        rows.append(
            {"lr": rate, "mean": float(np.mean(scores)), "spread": spread, "scores": scores, "weights": weights}
        )
    rows.sort(key=lambda row: -row["mean"])
    for row in rows:
        row["level with the best"] = rows[0]["mean"] - row["mean"] <= max(rows[0]["spread"], row["spread"])
    return rows


def on_test(folder, plan, rate, data):
    """The test accuracies of one rate's runs: the only look at the test images."""
    scores = []
    for number, config in enumerate(plan["runs"]):
        if config["lr"] == rate:
            run = train.new_run(config, 1, torch.device("cpu"))
            run["mean"].load_state_dict(program.load(folder / f"run-{number:02}.pt", train.CONFIG)["mean"])
            scores.append(train.evaluate(run["mean"], *data["test"])[1])
    return scores


def draw(path, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    rows = sorted(rows, key=lambda row: row["lr"])
    for row in rows:
        ax.semilogx([row["lr"]] * len(row["scores"]), row["scores"], "o", color=plot.COLOURS[0], alpha=0.6)
    rates = [row["lr"] for row in rows]
    ax.semilogx(rates, [row["mean"] for row in rows], color=plot.COLOURS[1], marker="_", markersize=20)
    ax.set(xlabel="highest learning rate η", ylabel="validation accuracy (%)")
    title = f"{sum(len(row['scores']) for row in rows)} runs: each dot a seed, the line their mean"
    ax.set_title(title, loc="left", size=11, weight="bold")
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=5000, help="images to train on (5,000)")
    parser.add_argument("--epochs", type=int, default=4, help="for each run (4)")
    parser.add_argument("--kills", type=int, default=3, help="how many times it is killed (3)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 4 runs on 500 images, 2 kills")
    options = parser.parse_args(arguments)
    rates, seeds = RATES, SEEDS
    if options.quick:
        options.limit, options.epochs, options.kills, rates, seeds = 500, 2, 2, RATES[1:3], SEEDS[:2]
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # what torch imports for its first optimizer, once for all forks
    data = train.load_data(options.limit, torch.device("cpu"))
    boards = {}
    for name, kills in (("killed", options.kills), ("undisturbed", 0)):
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        plan = make_plan(folder, rates, seeds, options.limit, options.epochs)
        finish(folder, data, kills, len(plan["runs"]))
        boards[name] = leaderboard(folder)
    same = boards["killed"] == boards["undisturbed"]
    print(f"the two leaderboards are {'equal, digit by digit' if same else 'DIFFERENT'}")
    rows = boards["killed"]
    tested = on_test(options.out / "killed", plan, rows[0]["lr"], data)
    for row in rows:
        level = "  level with the best" if row["level with the best"] else ""
        print(f"η {row['lr']:5}: validation {row['mean']:.2f} ± {row['spread']:.2f} %{level}")
    print(f"test accuracy of η {rows[0]['lr']}: {np.mean(tested):.2f} ± {np.std(tested, ddof=1):.2f} %")
    write(options.out / "leaderboard.json", {"rows": rows, "test": tested})
    draw(options.out / "leaderboard.png", rows)
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
