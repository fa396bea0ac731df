"""The reference of the project of Model Export and Deployment: a service under a budget.

python project_service_under_budget.py            the whole search, about two minutes; prints the tables of the README
python project_service_under_budget.py --quick    a small network and a short load test, to see that it runs

Budget: at most 0.25 MB, p95 at most 50 ms over HTTP at 50 requests/s, and the best accuracy under these. Chooses on
validation images, measures the choice once on test images, and writes runs/service.onnx and runs/service.md.
"""

import argparse
import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import serve
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from torch import nn

import atlas

MEGABYTES, P95_MS, RATE = 0.25, 50.0, 50.0
KINDS = ("fp32", "int8 dynamic", "int8 static")


def train(width, x, y, scale, epochs, seed=0):
    """An MLP with one hidden layer, x (N, 28, 28) uint8; its learning rate falls to 0. In evaluation mode."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * -(-len(x) // 128))
    scaled = scale(x)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            loss = nn.functional.cross_entropy(model(scaled[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class Complete(nn.Module):
    """Bytes in, probabilities out."""

    def __init__(self, network, scale):
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, image):
        return self.network(self.scale(image)).softmax(1)


def export(network, scale, x, path):
    torch.onnx.export(
        Complete(network, scale).eval(),
        (x[:2],),
        path,
        input_names=["image"],
        output_names=["probabilities"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("B")},),
        external_data=False,
        verbose=False,
    )


class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.batches = iter(np.split(x.numpy(), 10))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def probabilities(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.asarray(x)})[0]


def accuracy(path, x, y):
    return float((probabilities(path, x).argmax(1) == y.numpy()).mean())


def candidates(widths, data, epochs, folder):
    """Every width in every kind: a list of (width, kind, path, MB, validation accuracy); parity of each fp32 file."""
    mean, spread = data["train"][0].float().mean().item(), data["train"][0].float().std().item()

    def scale(image):
        return (image.float() - mean) / spread

    found = []
    for width in widths:
        network = train(width, *data["train"], scale, epochs)
        paths = {kind: folder / f"{width} {kind}.onnx" for kind in KINDS}
        export(network, scale, data["train"][0], paths["fp32"])
        with torch.no_grad():
            wanted = Complete(network, scale)(data["val"][0][:500]).numpy()
        off = float(np.abs(probabilities(paths["fp32"], data["val"][0][:500]) - wanted).max())
        if off > 1e-4:
            raise SystemExit(f"width {width}: the exported file differs by {off:.1e}")
        quantize_dynamic(paths["fp32"], paths["int8 dynamic"], per_channel=True)
        quantize_static(paths["fp32"], paths["int8 static"], Reader(data["calibration"]), per_channel=True)
        for kind, path in paths.items():
            found.append((width, kind, path, path.stat().st_size / 1e6, accuracy(path, *data["val"])))
            print(f"| {width} | {kind} | {found[-1][3]:.3f} | {found[-1][4]:.1%} |", flush=True)
    return found


def load_test(path, seconds):
    """Serve the file in a process of its own, ask it, end it: the facts of serve.measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(serve.__file__)
    process = subprocess.Popen([sys.executable, script, "run", "--model", path, "--port", str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        body = json.dumps({"image": np.random.default_rng(0).integers(0, 256, serve.SHAPE).tolist()}).encode()
        return serve.measured(*asyncio.run(serve.offer([url], RATE, seconds, 32, body)))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


CARD = """# Model card: Fashion-MNIST classifier, {version}

- **What it does.** 28 x 28 grey image of one piece of clothing, bytes, to probabilities of ten classes.
- **What it is.** MLP, {width} hidden neurons, {kind}; {megabytes:.3f} MB of ONNX, preprocessing inside.
- **Data.** Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; MIT), {images:,} training images.
- **Measured.** Test accuracy {test:.1%}; of the worst class, {worst}, {worst_share:.1%}. Over HTTP at {rate:g} requests/s:
  p50 {p50:.1f} ms, p95 {p95:.1f} ms on one machine that also made the load.
- **Not for.** Photographs, several things in one image, dark things on a bright ground, any decision about people.
- **If it fails.** `/health` says the version; roll back by starting the file before it.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small network and a short load test")
    quick = parser.parse_args().quick
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    widths, limit, epochs, seconds = ((16,), 2000, 1, 1) if quick else ((32, 64, 128, 256), 50_000, 5, 6)

    fashion = atlas.data.load("fashion-mnist")
    x, y = torch.tensor(fashion.x_train), torch.tensor(fashion.y_train)
    x_test, y_test = torch.tensor(fashion.x_test), torch.tensor(fashion.y_test)
    data = {
        "train": (x[:limit], y[:limit]),
        "calibration": x[50_000:50_500],
        "val": (x[51_000:56_000], y[51_000:56_000]),
    }
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    print("| hidden | kind | MB | validation |\n|---:|---|---:|---:|")
    found = candidates(widths, data, epochs, folder)
    allowed = [each for each in found if each[3] <= MEGABYTES]
    width, kind, path, megabytes, _ = max(allowed, key=lambda each: each[4])
    best = folder / "service.onnx"
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"classes": json.dumps(list(fashion.classes))})
    onnx.save(model, best)
    for each in found:
        each[2].unlink()

    right = probabilities(best, x_test).argmax(1) == y_test.numpy()
    by_class = [right[y_test.numpy() == k].mean() for k in range(10)]
    facts = load_test(best, seconds)
    megabytes = best.stat().st_size / 1e6
    card = CARD.format(
        version=serve.create_app(best).state.service.version,
        width=width, kind=kind, megabytes=megabytes, images=limit, test=right.mean(), rate=RATE,
        worst=fashion.classes[int(np.argmin(by_class))], worst_share=min(by_class),
        p50=facts["p50_ms"], p95=facts["p95_ms"],
    )  # fmt: skip
    (folder / "service.md").write_text(card, encoding="utf-8")
    print(f"\nchosen: {width} hidden, {kind}, {megabytes:.3f} MB; test accuracy {right.mean():.2%}")
    kept = megabytes <= MEGABYTES and facts["p95_ms"] <= P95_MS
    print(f"at {RATE:g} requests/s: p50 {facts['p50_ms']:.1f} ms, p95 {facts['p95_ms']:.1f} ms, {facts['statuses']}")
    print(f"the budget is {'kept' if kept else 'NOT kept'}; card: {folder / 'service.md'}")


if __name__ == "__main__":
    main()
