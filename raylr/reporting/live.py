"""Serve a report on this machine's loopback while its runs go on; the page asks for what is new and puts it in place.

Who may look knows the token in the address: other users of the machine, and pages of other origins, do not. The page is made
anew when a file of a run has changed, and so seldom that it takes at most a quarter of one core.
"""

import contextlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from raylr.errors import ConfigError, RaylrError
from raylr.reporting.report import Live, folders_named, page, read_all
from raylr.reporting.sections import sections
from raylr.storage import RUN_RESULT, Folder, LocalFolder

LOOPBACK = "127.0.0.1"
EVERY_S = 2.0  # between two questions of a page
STORE_EVERY_S = 30.0  # between two looks at an object store, where rows come with checkpoints
IDLE_S = 600.0  # after the last question, once all runs have ended
LONGEST_S = 7 * 24 * 3600.0
SHARE = 0.25  # of a core, for making pages
NICE = 10
FILES = ("ledger.jsonl", "metrics.jsonl", "events.jsonl", "plan.json", "result.json", "failure.txt")


class LivePage:
    """The newest page about the runs that are named, by its version."""

    def __init__(self, names: Sequence[str], storage: str, every_s: float = EVERY_S) -> None:
        self.names, self.storage, self.every_s = names, storage, every_s
        self._lock = threading.Lock()
        self._stamp: object = None
        self._version, self._text, self._due_at = "", b"", 0.0
        self._make()

    @property
    def has_ended(self) -> bool:
        """True once all runs have."""
        try:
            return all(folder.exists(RUN_RESULT) for folder in folders_named(self.names, self.storage))
        except (ConfigError, OSError):
            return True  # their folders are gone

    def newer_than(self, version: str) -> bytes | None:
        """The page; None where it is no newer than this version. A run that is away meanwhile leaves the page as it was."""
        with self._lock:
            if time.monotonic() >= self._due_at:
                with contextlib.suppress(ConfigError, RaylrError, OSError):
                    self._make()
            return None if version == self._version else self._text

    def _make(self) -> None:
        """Make the page anew, if a file has changed. Raises ConfigError for what is no run."""
        started = time.monotonic()
        folders = folders_named(self.names, self.storage)
        stamp = [_stamp(folder) for folder in folders]
        if stamp != self._stamp:
            runs = read_all(folders)
            version = secrets.token_hex(8)
            self._text = page(runs, sections(runs), Live(version, self.every_s)).encode(errors="replace")
            self._version, self._stamp = version, stamp
        self._due_at = time.monotonic() + (time.monotonic() - started) * (1 / SHARE - 1)


def _stamp(folder: Folder) -> object:
    """What changes when the run's files do."""
    if not isinstance(folder, LocalFolder):
        return str(folder), time.monotonic() // STORE_EVERY_S
    found = []
    for name in FILES:
        with contextlib.suppress(OSError):
            status = (folder.path / name).stat()
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return str(folder), found


class LiveServer(ThreadingHTTPServer):
    """Serves one page to who knows the token."""

    daemon_threads = True

    def __init__(self, live: LivePage, port: int = 0) -> None:
        self.live, self.token = live, secrets.token_urlsafe(24)
        self.asked, self.asked_at = 0, time.monotonic()
        try:
            super().__init__((LOOPBACK, port), _Answer)
        except OSError as error:
            raise ConfigError(
                f"port={port} cannot be used ({error.strerror}); leave it out for one that is free"
            ) from None

    @property
    def hosts(self) -> set[str]:
        """By which names the page may be asked for: another one is a page elsewhere whose name was pointed here."""
        return {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"


class _Answer(BaseHTTPRequestHandler):
    """Answers one question."""

    server: LiveServer
    server_version, sys_version = "raylr", ""
    timeout: ClassVar[float] = 60.0

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        known = hmac.compare_digest(query.get("token", "").encode(), self.server.token.encode())
        if not known or self.headers.get("Host") not in self.server.hosts:
            self._say(
                HTTPStatus.FORBIDDEN, b"this page needs the address, with its token, that raylr report --live printed\n"
            )
        elif asked.path != "/":
            self._say(HTTPStatus.NOT_FOUND, b"there is one page here: /\n")
        else:
            self.server.asked, self.server.asked_at = self.server.asked + 1, time.monotonic()
            text = self.server.live.newer_than(query.get("since", ""))
            if text is None:
                self._say(HTTPStatus.NO_CONTENT, b"")
            else:
                self._say(HTTPStatus.OK, text, "text/html; charset=utf-8")

    def _say(self, status: HTTPStatus, text: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(text)), "Cache-Control": "no-store"}
        headers |= {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Log nothing: the address holds the token."""


@contextlib.contextmanager
def serving(names: Sequence[str], storage: str, port: int = 0, every_s: float = EVERY_S) -> Iterator[LiveServer]:
    """Serve a page about the runs, trials and populations that are named. Raises ConfigError for what is none."""
    with LiveServer(LivePage(names, storage, every_s), port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def serve(names: Sequence[str], storage: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page at the address that `tell` is given, until Ctrl-C; or some time after all runs have ended.

    That is once nobody has asked for the page for IDLE_S, or after a week.
    """
    os.nice(NICE)  # of this thread and those that it starts: the runs go first
    with contextlib.suppress(KeyboardInterrupt), serving(names, storage, port) as server:
        tell(server.url)
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until:
            time.sleep(1.0)
            if time.monotonic() - server.asked_at > IDLE_S and server.live.has_ended:
                return
