"""Checkpoints: one file of tensors and plain data, and a note beside it with its checksum, written last.

A checkpoint counts when its note is there and the checksum fits. Loading never unpickles code (`weights_only=True`).
"""

import hashlib
import io
import itertools
import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from raylr.storage import Folder
from raylr.training.checkpoint_index import FORMAT_VERSION, best, names, note
from raylr.training.offload import offloaded

PAUSES_S = (1.0, 4.0, 16.0)  # between tries to write; the last one again and again
END_TIMEOUT_S = 30.0  # how long a run that ends tries to write its last checkpoint


def to_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def write(folder: Folder, state: dict[str, Any], keep: int) -> None:
    """Write a checkpoint at `state["position"]` and remove all but the newest `keep` and the one of best test accuracy."""
    data, name = to_bytes(state), f"checkpoints/{state['position']:012d}"
    about = {
        "format": FORMAT_VERSION,
        "position": state["position"],
        "step": state["step"],
        "test_accuracy": accuracy_here(state),
        **({} if (score := score_here(state)) is None else {"score": score}),
        "sha256": _sha256(data),
    }
    folder.write_bytes(f"{name}.pt", data)
    try:
        folder.write_json(f"{name}.json", about)
    except OSError:
        folder.remove(f"{name}.pt")  # without its note it would take the room of the next one
        raise
    best_one = best(folder)
    for old in names(folder)[:-keep]:
        if old != best_one:
            folder.remove(f"checkpoints/{old}.json")
            folder.remove(f"checkpoints/{old}.pt")


def score_here(state: dict[str, Any]) -> float | None:
    """A task's score of exactly these weights, more is better, where they were evaluated; None for images."""
    tally = state.get("tally", {})
    return tally.get("score") if tally.get("evaluated_at") == state["position"] else None


def accuracy_here(state: dict[str, Any]) -> float | None:
    """The test accuracy of exactly these weights, where they were evaluated."""
    tally = state.get("tally", {})
    return tally["test_accuracy"] if tally.get("evaluated_at") == state["position"] else None


def newest(folder: Folder) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None; one that is not is named in a warning and passed over."""
    for name in reversed(names(folder)):
        try:
            return read(folder, name)
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"checkpoint {folder}/checkpoints/{name}.pt is passed over: {error}", stacklevel=2)
    return None


def read(folder: Folder, name: str) -> dict[str, Any]:
    """The state in the checkpoint of this name. Raises OSError, ValueError or KeyError where it is not whole."""
    about, data = note(folder, name), folder.read_bytes(f"checkpoints/{name}.pt")
    if about["format"] != FORMAT_VERSION:
        raise ValueError(f"format {about['format']}, this version reads {FORMAT_VERSION}")
    if _sha256(data) != about["sha256"]:
        raise ValueError("the checksum does not fit")
    return from_bytes(data)


def is_whole(folder: Folder, position: int) -> bool:
    """Whether there is a checkpoint at this position that can be read."""
    name = f"{position:012d}"
    try:
        return name in names(folder) and bool(read(folder, name))
    except (OSError, ValueError, KeyError):
        return False


class Writer:
    """Writes checkpoints in a thread: the loop waits for the copy in memory, not for the storage.

    `before` is done before each, so that a checkpoint is never ahead of the files of rows. What the storage does not take is
    tried again, each time with a warning, until a newer state comes or `wait` ends it. `written` gives what has come about.
    """

    def __init__(self, folder: Folder, keep: int, before: Sequence[Callable[[], None]] = ()) -> None:
        self.folder, self.keep, self.before = folder, keep, before
        self.problem: str | None = None  # why the newest state is not on the storage
        self._lock = threading.Lock()
        self._newer = threading.Event()
        self._next: tuple[dict[str, Any], Callable[[], None]] | None = None
        self._thread: threading.Thread | None = None
        self._give_up_at: float | None = None
        self._written: list[int] = []

    def start(self, state: dict[str, Any]) -> None:
        """Begin to write a state that nobody changes any more. Tensors of a GPU are on their way to the host meanwhile."""
        coming = offloaded(state)
        with self._lock:
            self._next = coming
            self._newer.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint")
                self._thread.start()

    def wait(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Return when nothing is being written; what fails is tried again for at most `timeout_s` from now."""
        with self._lock:
            thread, self._give_up_at = self._thread, time.monotonic() + timeout_s
            self._newer.set()  # ends a pause
        if thread is not None:
            thread.join()
        self._give_up_at = None

    @property
    def is_busy(self) -> bool:
        return self._thread is not None

    def written(self) -> list[int]:
        """Positions of the checkpoints that were written since the last call."""
        if not self._written:
            return []
        with self._lock:
            found, self._written = self._written, []
        return found

    def _run(self) -> None:
        while True:
            with self._lock:
                coming, self._next = self._next, None
                self._newer.clear()
                if coming is None:
                    self._thread = None
                    return
            state, arrive = coming
            arrive()
            self._write(state)

    def _write(self, state: dict[str, Any]) -> None:
        """Write until it is done, a newer state waits, or there is no time left."""
        for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
            try:
                for action in self.before:
                    action()
                write(self.folder, state, self.keep)
            except Exception as error:  # of any kind: a thread that has died writes no more
                self.problem = f"a checkpoint in {self.folder} at position {state['position']} was not written: {error}"
            else:
                with self._lock:
                    self.problem = None
                    self._written.append(state["position"])
                return
            if not self._pause(pause_s):
                return

    def _pause(self, pause_s: float) -> bool:
        """Wait before another try; False where there is none, because a newer state waits or no time is left."""
        if self._left() > 0:
            warnings.warn(f"{self.problem}; trying again in {min(pause_s, self._left()):g} s", stacklevel=2)
            self._newer.wait(min(pause_s, self._left()))
        with self._lock:
            if self._next is not None:
                return False
            self._newer.clear()
        if self._left() > 0:
            return True
        warnings.warn(f"{self.problem}; given up", stacklevel=2)
        return False

    def _left(self) -> float:
        """Seconds for further tries."""
        return math.inf if self._give_up_at is None else self._give_up_at - time.monotonic()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
