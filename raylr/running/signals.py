"""Answers Ctrl-C and SIGTERM, and in a job of SLURM SIGUSR1, at any moment of a command or a run.

The first is answered by one line at once. Then a run that trains stops in order, with a checkpoint; all else ends by a
KeyboardInterrupt, which is raised only where that is safe: not while modules are imported, not inside Ray, whose C++ does not
survive it, and not while something is cleared away. In a command the second ends the process, after what it has started.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

LINE = b"stopping; Ctrl-C again ends now\n"
CLEAR_LINE = b"\r\x1b[2K"  # of a terminal, which has ^C and maybe a bar on it
EXIT_CODE = 143
STOPPING = (signal.SIGINT, signal.SIGTERM)
RETRY_S = 0.02  # until the next look whether an interrupt may be raised
CLEANUP_TIMEOUT_S = 5.0  # for each thing that an end at once clears away
_UNSAFE = ("importlib.", "_frozen_importlib", "ray.", "weakref", "_weakrefset")  # modules, or how their names begin


@dataclass
class _State:
    """What is known of the signals of this process; there is one."""

    is_told: bool = False
    is_command: bool = False
    shields: int = 0
    pending: bool = False
    cleanups: list[Callable[[], Any]] = field(default_factory=list)


_state = _State()


def stopping() -> tuple[signal.Signals, ...]:
    """Return the signals that stop a command; in a job of SLURM also SIGUSR1, as --signal=B:USR1@120 sends it."""
    return (*STOPPING, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ else STOPPING


@contextlib.contextmanager
def answer_signals(to_the_end: bool) -> Iterator[None]:
    """Answer SIGINT and SIGTERM as a command does, those too that were blocked since its start.

    `to_the_end`: ignore both from then on, as the process ends.
    """
    global _state
    before, _state = _state, _State(is_command=True)
    try:
        with handling(_on_signal, *stopping()):
            if _is_main():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping())
            yield
            if _state.pending:
                _interrupt()
    finally:
        if _state.pending:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _state = before
        if to_the_end and _is_main():
            for number in stopping():
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Put off an interrupt to the end of the block: what is started or cleared away there is not left half done."""
    _state.shields += 1
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        _state.shields -= 1
        if _state.pending and not _state.shields and _is_main():
            if is_whole:
                _interrupt()
            _look_soon()  # an exception goes first


@contextlib.contextmanager
def cleared_at_once(cleanup: Callable[[], Any]) -> Iterator[None]:
    """Call `cleanup` where the process is ended at once within the block; the newest goes first."""
    _state.cleanups.append(cleanup)
    try:
        yield
    finally:
        _state.cleanups.remove(cleanup)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], Any], *signals: signal.Signals) -> Iterator[None]:
    """Answer signals by `handler` for a while; outside the main thread, which alone may, nothing is changed."""
    if not _is_main():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def sigterm_as_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Answer SIGTERM as Ctrl-C for a while."""
    return handling(_ctrl_c_handler(), signal.SIGTERM)


def take_sigterm_back() -> None:
    """Answer SIGTERM as Ctrl-C again: Ray has set a handler that exits with a code of its own."""
    if _is_main():
        signal.signal(signal.SIGTERM, _ctrl_c_handler())


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], Any]) -> Iterator[None]:
    """Ask the run to stop at the first SIGINT or SIGTERM; the second ends the driver at once."""

    def on_signal(number: int, frame: object) -> None:
        if not _state.is_told:
            _tell()
            stop()
        elif _state.is_command:
            _end_now()
        else:
            raise KeyboardInterrupt

    is_first = not _state.is_told
    try:
        with handling(on_signal, *stopping()):
            if _state.pending:  # it came before there was a run to stop
                _interrupt()
            yield
    finally:
        if is_first and not _state.is_command:
            _state.is_told = False  # the next run of this process has a first one of its own


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _state.is_told:
        _end_now()
    _tell()
    _interrupt_where_safe(frame)


def _look_again(number: int, frame: FrameType | None) -> None:
    if _state.pending:
        _interrupt_where_safe(frame)


def _interrupt_where_safe(frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt in the main thread, here or at one of the next looks."""
    if not _state.shields and _is_safe(frame):
        _interrupt()
    _state.pending = True
    if not _state.shields:  # else its end looks; no signal interrupts the system's calls meanwhile
        _look_soon()


def _look_soon() -> None:
    signal.signal(signal.SIGALRM, _look_again)
    signal.setitimer(signal.ITIMER_REAL, RETRY_S)


def _interrupt() -> None:
    if _state.pending:
        _state.pending = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    raise KeyboardInterrupt


def _is_safe(frame: FrameType | None) -> bool:
    """Whether an exception raised here is seen: not lost in a finalizer, an import or Ray's C++."""
    while frame is not None:
        module = f"{frame.f_globals.get('__name__', '')}."
        if module.startswith(_UNSAFE) or frame.f_code.co_name == "__del__":
            return False
        frame = frame.f_back
    return True


def _tell() -> None:
    _state.is_told = True
    with contextlib.suppress(OSError):
        os.write(2, (CLEAR_LINE if os.isatty(2) else b"") + LINE)


def _end_now() -> None:
    """End the process after what it has started; each in a thread, since the main one may hold a lock that it needs."""
    for number in stopping():
        signal.signal(number, signal.SIG_IGN)
    for cleanup in (*reversed(_state.cleanups), sys.stdout.flush):
        thread = threading.Thread(target=_quietly, args=(cleanup,), daemon=True)
        thread.start()
        thread.join(CLEANUP_TIMEOUT_S)
    os._exit(EXIT_CODE)


def _quietly(cleanup: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):
        cleanup()


def _ctrl_c_handler() -> Callable[[int, FrameType | None], Any]:
    handler = signal.getsignal(signal.SIGINT)
    return handler if callable(handler) else signal.default_int_handler


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
