"""A webhook on loopback: keeps what is posted, and answers as it is told, or never."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T0/B0/kdjw83hjd"


class Webhook:
    """The bodies that were posted, and the URL, whose path is a secret."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/services/{SECRET}"
        self.bodies: list[dict[str, Any]] = []
        self.seconds: list[float] = []

    def wait_for(self, holds: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 20) -> list[dict[str, Any]]:
        """What was posted, once it holds."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.bodies):
            assert time.monotonic() < deadline, self.bodies
            time.sleep(0.02)
        return self.bodies


@contextmanager
def webhook(answers: Sequence[int | None] = (200,)) -> Iterator[Webhook]:
    """A webhook that gives these statuses in turn, the last one for ever; None: it never answers."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found.seconds.append(time.monotonic())
            status = answers[min(len(found.bodies), len(answers)) - 1]
            if status is None:
                released.wait()
                return
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Webhook(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        released.set()
        server.shutdown()
        server.server_close()
