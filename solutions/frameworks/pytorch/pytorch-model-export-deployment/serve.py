"""Serve an image classifier: any ONNX file that takes images (B, 28, 28) uint8 and gives probabilities (B, K).

python serve.py demo                         train a small model, write it to runs/demo.onnx, ask it once
python serve.py run --model runs/demo.onnx   serve it on port 8000: POST /predict, GET /health, GET /metrics
python serve.py load --rate 100 300          load test of what runs on port 8000, a few seconds for each rate

A request is JSON, {"image": 28 rows of 28 whole numbers from 0 to 255}. Stop the server with Ctrl-C: it answers what
it has taken, then ends.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import onnx
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, Request

import atlas
from atlas import program

SIDE, SHAPE = 28, (28, 28)

# ------------------------------------------------------------------------------------------------ batches


@dataclass
class Waiting:
    """One request in the queue."""

    item: object
    answer: asyncio.Future  # set_result or set_exception ends its wait; cancelled() if nobody waits any more
    until: float  # loop.time() at which it has waited max_wait


class MicroBatcher:
    """Takes single requests and has them answered in batches, one batch at a time, in the order in which they came.

    A batch begins when max_size requests wait, or when the oldest of them has waited max_wait seconds; but not while
    another batch runs. It takes all that wait by then, max_size at most.
    """

    def __init__(self, run, max_size=32, max_wait=0.002):
        """run: an async function, list of n items → list of n results in their order. No loop need run yet."""
        self.run, self.max_size, self.max_wait = run, max_size, max_wait
        self.queue, self.pending, self.worker = asyncio.Queue(), set(), None
        self.closed = self.over = False

    async def submit(self, item):
        """The result for one item, or the exception that concerns it."""
        if self.closed:
            raise RuntimeError("the batcher is closed")
        loop = asyncio.get_running_loop()
        if self.worker is None or self.worker.done():  # done: it has died of a slip
            self.worker = loop.create_task(self._work())
            self.worker.add_done_callback(self._ended)
        answer = loop.create_future()
        self.pending.add(answer)
        answer.add_done_callback(self.pending.discard)
        self.queue.put_nowait(Waiting(item, answer, loop.time() + self.max_wait))
        return await answer

    async def close(self):
        """Take no more requests, and return when those that were taken are answered."""
        if not self.closed:
            self.closed = True
            self.queue.put_nowait(None)  # the last thing that ever comes
        if self.worker is not None:
            await self.worker

    async def _work(self):
        while not self.over:
            await self._answer(await self._collect())

    def _ended(self, worker):
        """Nobody may wait for a worker that has died of a slip."""
        for answer in [each for each in self.pending if not each.done()]:
            answer.set_exception(RuntimeError("the batcher has ended") if worker.cancelled() else worker.exception())

    async def _collect(self):
        """Wait for the next batch: a list of Waiting, without those whose answer is cancelled.

        None in the queue is its end: set self.over = True, and return the requests that came before it.
        """
        # TODO: 1. Wait for a first request, without a limit.
        #       2. Take more, until there are max_size, or the first one's `until` has passed and no more are there.
        #       3. What is there already is taken even if `until` has passed: get_nowait() does not wait.
        ### BEGIN SOLUTION
        batch, until = [], None  # until None: without a limit
        while len(batch) < self.max_size and not self.over:
            if self.queue.empty():
                try:
                    async with asyncio.timeout_at(until):
                        request = await self.queue.get()
                except TimeoutError:
                    break
            else:
                request = self.queue.get_nowait()
            if request is None:
                self.over = True
            elif not request.answer.cancelled():
                batch.append(request)
                until = batch[0].until
        return [each for each in batch if not each.answer.cancelled()]
        ### END SOLUTION

    async def _answer(self, batch):
        """Run the batch, a list of Waiting that may be empty, and give each its result.

        Where the whole batch raises an Exception, run each of its items alone: only the request that is to blame gets
        an exception, its own. Whose answer is cancelled meanwhile gets nothing.
        """
        # TODO: await self.run(items), then answer.set_result or answer.set_exception, unless answer.done().
        ### BEGIN SOLUTION
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = []
            for each in batch:
                try:
                    results += await self.run([each.item])
                except Exception as error:
                    results.append(error)
        for each, result in zip(batch, results, strict=True):
            if each.answer.done():
                continue
            if isinstance(result, Exception):
                each.answer.set_exception(result)
            else:
                each.answer.set_result(result)
        ### END SOLUTION


# ------------------------------------------------------------------------------------------------ the service


@dataclass
class Service:
    """What the endpoints of one process share."""

    batcher: MicroBatcher
    classes: list[str]
    version: str  # the first digits of the model file's SHA-256
    max_bytes: int  # of a request's body
    max_waiting: int = 256  # requests at a time; the next one is sent away
    timeout: float = 10.0  # seconds for one request
    now: int = 0  # requests at this moment
    requests: int = 0
    batches: int = 0
    images: int = 0


async def predict(request: Request) -> dict:
    """Answer POST /predict. The body is JSON, {"image": 28 rows of 28 whole numbers from 0 to 255}.

    service = request.app.state.service holds batcher, classes, version, max_bytes. The batcher takes one image,
    (28, 28) uint8, and gives its probabilities, (K,). Returns {"label": the likeliest class, "probability": a number,
    "model": service.version}. Whatever the body holds, the answer is never a 500. Raises HTTPException(status, reason):
    413 for a body of more than max_bytes, without reading on to its end;
    422 for one that is not JSON, has no "image", or an image of another shape or with other entries.
    """
    # TODO: 1. `async for chunk in request.stream()` gives the body piece by piece, in bytes.
    #       2. json.loads, then np.asarray. Python's json lets NaN and Infinity pass; deep nesting is a RecursionError.
    #       3. await service.batcher.submit(image), and the answer.
    ### BEGIN SOLUTION
    service, body = request.app.state.service, b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > service.max_bytes:
            raise HTTPException(413, f"the body has more than {service.max_bytes} bytes")
    try:
        image = np.asarray(json.loads(body)["image"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise HTTPException(422, f'the body is not JSON with an "image": {type(error).__name__}') from None
    if image.shape != SHAPE:
        raise HTTPException(422, f"the image has shape {image.shape}, not {SHAPE}")
    if image.dtype.kind not in "iuf" or not ((image >= 0) & (image <= 255) & (image % 1 == 0)).all():
        raise HTTPException(422, "the image has entries that are no whole numbers from 0 to 255")
    p = await service.batcher.submit(image.astype(np.uint8))  # (K,)
    best = int(p.argmax())
    return {"label": service.classes[best], "probability": float(p[best]), "model": service.version}
    ### END SOLUTION


def create_app(model, max_batch=32, max_wait=0.002, max_bytes=20_000):
    """A FastAPI application that serves the ONNX file `model`; it owns the model, the batcher and the counters."""
    content = Path(model).read_bytes()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1  # more processes, not more threads, share the machine
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    (p,) = session.run(None, {image.name: np.zeros((1, *SHAPE), np.uint8)})  # the first is slow, or fails: do it now
    told = session.get_modelmeta().custom_metadata_map.get("classes")
    classes = json.loads(told) if told else [str(k) for k in range(p.shape[1])]

    async def run(images):
        """In a thread of its own: the event loop goes on taking requests meanwhile."""
        service.batches += 1
        service.images += len(images)
        (p,) = await asyncio.to_thread(session.run, None, {image.name: np.stack(images)})
        return list(p)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await service.batcher.close()

    service = Service(
        MicroBatcher(run, max_batch, max_wait), classes, hashlib.sha256(content).hexdigest()[:12], max_bytes
    )
    app = FastAPI(title="Image classifier", lifespan=lifespan)
    app.state.service = service

    @app.post("/predict")
    async def limited(request: Request):
        """Not more than max_waiting at a time, and each for so long only."""
        if service.now >= service.max_waiting:
            raise HTTPException(503, "too many requests are waiting", headers={"Retry-After": "1"})
        service.now += 1
        service.requests += 1
        try:
            async with asyncio.timeout(service.timeout):
                return await predict(request)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {service.timeout:g} s") from None
        finally:
            service.now -= 1

    @app.get("/health")
    async def health():
        return {"status": "ok", "model": service.version}

    @app.get("/metrics")
    async def metrics():
        return {name: getattr(service, name) for name in ("now", "requests", "batches", "images")}

    return app


# ------------------------------------------------------------------------------------------------ demo


def linear_model(weights, bias, mean, spread, classes):
    """An ONNX model, node by node: softmax(((image - mean) / spread) W + b). weights: (784, K), bias: (K,)."""
    helper, constant = onnx.helper, onnx.numpy_helper.from_array
    values = {"mean": np.float32(mean), "spread": np.float32(spread), "flat": np.array([-1, SIDE * SIDE])}
    values |= {"W": weights.astype(np.float32), "b": bias.astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["x"]),
        helper.make_node("Gemm", ["x", "W", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["B", *SHAPE])
    p = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["B", len(classes)])
    constants = [constant(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "linear", [image], [p], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"classes": json.dumps(list(classes))})
    onnx.checker.check_model(model)
    return model


def train(options, images, labels, classes):
    """Softmax regression on images (N, 28, 28) uint8: weights (784, K), bias (K,), mean and spread of the pixels."""
    import torch

    torch.manual_seed(options.seed)
    mean, spread = images.mean(), images.std()
    x = torch.tensor((images.reshape(len(images), -1) - mean) / spread, dtype=torch.float32, device=options.device)
    y = torch.tensor(labels, device=options.device)
    layer = torch.nn.Linear(SIDE * SIDE, len(classes), device=options.device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3)
    for epoch in range(1, options.epochs + 1):
        for batch in program.progress(torch.randperm(len(x)).to(options.device).split(128), f"epoch {epoch}"):
            loss = torch.nn.functional.cross_entropy(layer(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer.weight.detach().T.cpu().numpy(), layer.bias.detach().cpu().numpy(), mean, spread


async def ask(app, images):
    """What the service says to each image, (N, 28, 28), all asked at the same time, without a network."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        asked = [client.post("/predict", json={"image": image.tolist()}) for image in images]
        return [answer.raise_for_status().json() for answer in await asyncio.gather(*asked)]


def demo(options, parser):
    """Train a small model, write it, and ask the service that it makes."""
    if options.model.exists() and not options.overwrite:
        sys.exit(f"{options.model} is there already: --overwrite replaces it, --model names another place.")
    options.device = program.device(parser, options.device)
    fashion = atlas.data.load("fashion-mnist")
    trained = train(options, fashion.x_train[: options.limit], fashion.y_train[: options.limit], fashion.classes)
    model = linear_model(*trained, fashion.classes)
    with program.writing(options.model, "model") as part:
        part.write_bytes(model.SerializeToString())
    app = create_app(options.model)
    told = asyncio.run(ask(app, fashion.x_test[:100]))
    right = sum(each["label"] == fashion.classes[y] for each, y in zip(told, fashion.y_test[:100], strict=True))
    service = app.state.service
    print(f"{options.model}, version {service.version}: {right} of 100 test images right, asked over the endpoint")
    print(f"answered in {service.batches} batches; serve it: python serve.py run --model {options.model}")


# ------------------------------------------------------------------------------------------------ run


def run(options, parser):
    """Serve until Ctrl-C."""
    if not options.model.exists():
        sys.exit(f"There is no model {options.model}. Make one: python serve.py demo --model {options.model}")
    app = create_app(options.model, options.max_batch, options.max_wait / 1000, options.max_bytes)
    print(f"serving {options.model}, process {os.getpid()}, on http://{options.host}:{options.port}", flush=True)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=5)


# ------------------------------------------------------------------------------------------------ load


class Connection:
    """A kept-alive HTTP connection that posts one body over and over; it costs less than a full client."""

    def __init__(self, url, body):
        self.where = urlsplit(url)
        head = f"POST /predict HTTP/1.1\r\nHost: {self.where.netloc}\r\nContent-Type: application/json\r\n"
        self.message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.reader = self.writer = None

    async def post(self):
        """The status of the answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.where.hostname, self.where.port)
        self.writer.write(self.message)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        await self.reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
        if b"connection: close" in head:
            self.close()
        return int(head.split()[1])

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None


async def offer(urls, rate, seconds, connections, body):
    """Send rate · seconds requests in even steps, to the URLs in turn; (statuses, latencies in s, seconds it took).

    A latency begins when the request was due, not when a connection was free for it: otherwise a slow server would
    slow the test down and look better than it is. Ends by itself: what is not answered 10 s after the last is lost.
    """
    pool, statuses, latencies = asyncio.Queue(), [], []
    made = [Connection(urls[n % len(urls)], body) for n in range(connections)]
    for each in made:
        pool.put_nowait(each)

    async def one(due):
        connection = await pool.get()
        try:
            statuses.append(await connection.post())
            latencies.append(time.perf_counter() - due)
        finally:
            pool.put_nowait(connection)

    begin, tasks = time.perf_counter(), []
    try:
        async with asyncio.timeout(seconds + 10):
            for n in range(round(rate * seconds)):
                due = begin + n / rate
                await asyncio.sleep(max(0, due - time.perf_counter()))
                tasks.append(asyncio.create_task(one(due)))
            await asyncio.gather(*tasks)
    finally:
        for each in tasks:
            each.cancel()
        for each in made:
            each.close()
    return statuses, np.array(latencies), time.perf_counter() - begin


def measured(statuses, latencies, took):
    """The facts about one load: answers a second, percentiles in ms, and how often which status."""
    good = sum(status == 200 for status in statuses)
    p50, p95 = np.percentile(1000 * latencies, [50, 95])
    counts = {str(status): statuses.count(status) for status in sorted(set(statuses))}
    return {"answers_s": good / took, "p50_ms": float(p50), "p95_ms": float(p95), "statuses": counts}


def load(options, parser):
    """Offer each rate for some seconds, and print a line of JSON for it."""
    image = np.random.default_rng(options.seed).integers(0, 256, SHAPE)
    body = json.dumps({"image": image.tolist()}).encode()
    for rate in options.rate:
        try:
            facts = measured(*asyncio.run(offer(options.url, rate, options.seconds, options.connections, body)))
        except (OSError, EOFError) as error:
            sys.exit(f"{' and '.join(options.url)} cannot be reached, or hangs up: {error}. Is it running?")
        except TimeoutError:
            sys.exit(f"at {rate:g} requests a second some got no answer for 10 s")
        print(json.dumps({"offered_s": rate, **facts}), flush=True)


# ------------------------------------------------------------------------------------------------ the program


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="demo, run or load")
    number = program.number

    made = commands.add_parser("demo", help="train a small model and ask it once")
    made.add_argument("--epochs", type=number(int, 1, 1000), default=5, help="of training (5)")
    made.add_argument("--limit", type=number(int, 100, 60_000), default=20_000, help="train on so many images (20,000)")
    made.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="of weights and order (0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    where = {"type": Path, "default": Path("runs/demo.onnx"), "metavar": "PATH"}
    made.add_argument("--model", **where, help="written here (runs/demo.onnx)")
    made.add_argument("--overwrite", action="store_true", help="replace the model that is there")
    made.set_defaults(do=demo)

    served = commands.add_parser("run", help="serve a model")
    served.add_argument("--model", **where, help="the ONNX file (runs/demo.onnx)")
    served.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is everywhere (127.0.0.1)")
    served.add_argument("--port", type=number(int, 1, 65_535), default=8000, help="(8000)")
    served.add_argument("--max-batch", type=number(int, 1, 1024), default=32, help="requests in a batch (32)")
    served.add_argument("--max-wait", type=number(float, 0, 1000), default=2.0, help="ms until a batch begins (2)")
    served.add_argument("--max-bytes", type=number(int, 100, 10**8), default=20_000, help="of a body (20,000)")
    served.set_defaults(do=run)

    tested = commands.add_parser("load", help="load test of a running service")
    tested.add_argument("--url", nargs="+", default=["http://127.0.0.1:8000"], help="asked in turn (port 8000)")
    tested.add_argument("--rate", type=number(float, 1, 10_000), nargs="+", default=[100.0], help="requests/s (100)")
    tested.add_argument("--seconds", type=number(float, 0.1, 60), default=3.0, help="for each rate (3)")
    tested.add_argument("--connections", type=number(int, 1, 500), default=64, help="at the same time (64)")
    tested.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="of the image that is sent (0)")
    tested.set_defaults(do=load)
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    if options.command is None:
        parser.error("choose a command: demo, run or load")
    options.do(options, parser)


if __name__ == "__main__":
    program.run(main)
