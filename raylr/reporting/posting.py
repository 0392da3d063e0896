"""Post JSON to a webhook from a thread: tried again with a limit, never in anybody's way, its URL never told in full."""

import contextlib
import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from raylr.config.secrets import masked

TIMEOUT_S = 10.0  # for an answer
PAUSES_S = (1.0, 4.0)  # before the second and the third try, which is the last
MAX_WAITING = 100  # bodies; more are dropped
LOOK_S = 5.0  # between two looks, at most


class Post:
    """Posts bodies to a URL one after the other, in a thread of its own; the URL is told by its host alone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(MAX_WAITING)
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._look: Callable[[], None] | None = None
        self._look_s: float | None = None
        self._is_closing = threading.Event()

    def put(self, what: str, body: Mapping[str, Any]) -> None:
        """Post it soon as JSON; `what` names it where that fails."""
        self._start()
        try:
            self._waiting.put_nowait((what, json.dumps(body, default=str).encode()))
        except queue.Full:
            self._problems.put(f"alerts: {MAX_WAITING} wait for {masked(self._url)} already; dropped: {what}")

    def start(self, look: Callable[[], None], look_s: float) -> None:
        """Call `look` every so many seconds from now on."""
        self._look, self._look_s = look, look_s
        self._start()

    def close(self, timeout_s: float) -> None:
        """Wait until all is posted, so long at most, and end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._is_closing.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        thread.join(timeout_s)
        if thread.is_alive():
            self._problems.put(
                f"alerts: {masked(self._url)} has not answered within {timeout_s:g} s of the end; not waited for any longer"
            )

    def problems(self) -> list[str]:
        """Return what went wrong since the last call."""
        found = []
        while not self._problems.empty():
            found.append(self._problems.get())
        return found

    def _start(self) -> None:
        if self._thread is None:
            self._is_closing.clear()
            self._thread = threading.Thread(target=self._run, daemon=True, name="alerts")
            self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                found = self._waiting.get(timeout=self._look_s or LOOK_S)
            except queue.Empty:
                if self._look is not None:
                    self._look()
                continue
            if found is None:
                return
            self._deliver(*found)

    def _deliver(self, what: str, body: bytes) -> None:
        number, cause, is_final = 0, None, False
        for pause_s in (0.0, *PAUSES_S):
            if number:
                self._is_closing.wait(pause_s)  # at the end there is no time for a pause
            number, (cause, is_final) = number + 1, self._try(body)
            if cause is None:
                return
            if is_final:
                break
        tries = "once" if number == 1 else f"{number} times"
        self._problems.put(f"alerts: {masked(self._url)} was told {tries} of {what} and did not take it: {cause}")

    def _try(self, body: bytes) -> tuple[str | None, bool]:
        """Post once; returns why it was not taken, and whether another try would be as useless."""
        headers = {"Content-Type": "application/json", "User-Agent": "raylr"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=TIMEOUT_S):
                return None, False
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP status {error.code}", error.code < 500 and error.code not in (408, 429)
        except TimeoutError:
            return f"no answer within {TIMEOUT_S:g} s", False
        except urllib.error.URLError as error:
            return str(getattr(error.reason, "strerror", None) or type(error.reason).__name__), False
        except Exception as error:  # of a server that speaks no HTTP; never in the way of a run
            return type(error).__name__, False
