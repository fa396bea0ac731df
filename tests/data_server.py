"""A web server on loopback whose paths behave like the mirrors one meets: /good/x, /hangs/x, /crawls/x, ..."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MirrorServer(ThreadingHTTPServer):
    """Serves `content` at every path, in the manner that the first part of the path names; notes each request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.requests: list[str] = []
        self.over = threading.Event()  # ends what hangs or crawls

    def url(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{manner}/cifar-10-python.tar.gz"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        manner = self.path.split("/")[1]
        self.server.requests.append(manner)
        content = self.server.content
        with contextlib.suppress(OSError):  # the client hung up
            match manner:
                case "good":
                    self.answer(content)
                case "moved":
                    self.send_response(302)
                    self.send_header("Location", self.server.url("good"))
                    self.end_headers()
                case "truncated":
                    self.answer(content[: len(content) // 2], length=len(content))
                case "corrupted":
                    self.answer(content[:100] + bytes([content[100] ^ 1]) + content[101:])
                case "login":
                    self.answer(b"<html>Please log in to the school's network</html>")
                case "endless":
                    self.answer(content + content, length=None)
                case "hangs":
                    self.server.over.wait(10)
                case "crawls":  # a few bytes now and then: each comes well within any timeout
                    self.answer(b"", length=len(content))
                    for i in range(200):
                        self.wfile.write(content[i : i + 1])
                        if self.server.over.wait(0.05):
                            return
                case "leisurely":  # whole and good, in about half a second
                    self.answer(b"", length=len(content))
                    step = len(content) // 10 + 1
                    for start in range(0, len(content), step):
                        self.wfile.write(content[start : start + step])
                        self.server.over.wait(0.05)
                case status:
                    self.send_error(int(status))

    def answer(self, body: bytes, length: int | None = -1):
        """200 with this body; `length` is the size announced: the body's own, another, or (None) none at all."""
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(content: bytes):
    """A running MirrorServer, ended with its threads' work when the block ends."""
    server = MirrorServer(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
