"""SIGINT and SIGTERM while a run goes on."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], Any], *signals: signal.Signals) -> Iterator[None]:
    """Answer signals by `handler` for a while; outside the main thread, which alone may, nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def sigterm_as_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Raise KeyboardInterrupt at SIGTERM; Ray has set a handler that exits with a code of its own."""
    return handling(signal.default_int_handler, signal.SIGTERM)


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], Any]) -> Iterator[None]:
    """Ask the run to stop at the first SIGINT or SIGTERM; the second ends the driver at once."""
    asked = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        stop()

    with handling(on_signal, signal.SIGINT, signal.SIGTERM):
        yield
