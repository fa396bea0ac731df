"""The script of pytorch-model-export-deployment serves; what it has in common with others is in test_scripts.py."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from atlas import course

pytest.importorskip("onnxruntime")

SOURCE = course.find("pytorch-model-export-deployment").solution_folder / "serve.py"
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def model(script, tmp_path_factory):
    """A linear model with fixed weights: its answer can be computed in NumPy."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("model") / "m.onnx"
    made = script.linear_model(rng.normal(size=(784, 3)), rng.normal(size=3), 70.0, 90.0, CLASSES)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture
def server(model):
    """A real server on this machine's own address: process and URL. It is ended in any case."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, SOURCE, "run", "--model", model, "--port", str(port), "--max-wait", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).read()
                break
            except OSError:
                assert process.poll() is None, "the server has ended"
                time.sleep(0.1)
        yield process, url
    finally:
        process.kill()
        process.communicate(timeout=10)


def images(number):
    return np.random.default_rng(1).integers(0, 256, (number, 28, 28))


def test_the_service_answers_as_the_weights_say_and_batches_what_comes_together(script, model):
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(784, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    wanted = (((images(20) - 70.0) / 90.0).reshape(20, -1) @ weights + bias).argmax(1)
    app = script.create_app(model, max_batch=8, max_wait=0.02)
    told = asyncio.run(script.ask(app, images(20)))
    assert [each["label"] for each in told] == [CLASSES[k] for k in wanted]
    service = app.state.service
    assert service.images == service.requests == 20 and service.batches < 20 and service.now == 0
    assert {each["model"] for each in told} == {service.version}


def test_more_than_may_wait_are_sent_away_at_once(script, model):
    import httpx

    async def crowd():
        app = script.create_app(model, max_batch=64, max_wait=0.5)
        app.state.service.max_waiting = 3
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            asked = [client.post("/predict", json={"image": image.tolist()}) for image in images(5)]
            return sorted(answer.status_code for answer in await asyncio.wait_for(asyncio.gather(*asked), 30))

    assert asyncio.run(crowd()) == [200, 200, 200, 503, 503]


def test_a_real_server_survives_nonsense_and_a_load_test_and_ends_in_peace(script, server):
    process, url = server
    body = json.dumps({"image": images(1)[0].tolist()}).encode()
    facts = script.measured(*asyncio.run(script.offer([url], 40, 1, 8, body)))
    assert facts["statuses"] == {"200": 40} and 0 < facts["p50_ms"] <= facts["p95_ms"]
    for nonsense, status in ((b"[[[", 422), (b" " * 30_000, 413)):
        facts = script.measured(*asyncio.run(script.offer([url], 5, 1, 2, nonsense)))
        assert facts["statuses"] == {str(status): 5}
    metrics = json.load(urllib.request.urlopen(f"{url}/metrics", timeout=10))
    assert metrics["images"] == 40 and metrics["requests"] == 50 and metrics["now"] == 0
    process.send_signal(signal.SIGINT)
    process.wait(20)


def test_where_nobody_answers_or_no_model_is_the_program_says_so(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(SystemExit, match="cannot be reached"):
        script.main(["load", "--url", url, "--rate", "5", "--seconds", "0.2"])
    with pytest.raises(SystemExit, match=r"There is no model runs/demo.onnx. Make one"):
        script.main(["run"])
    (tmp_path / "there.onnx").touch()
    with pytest.raises(SystemExit, match="is there already: --overwrite"):
        script.main(["demo", "--model", "there.onnx"])
