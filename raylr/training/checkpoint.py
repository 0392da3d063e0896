"""Checkpoints: one file of tensors and plain data, and a note beside it with its checksum, written last.

A checkpoint counts when its note is there and the checksum fits. Loading never unpickles code (`weights_only=True`).
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from raylr.storage import Folder
from raylr.training.checkpoint_index import FORMAT_VERSION, best, names, note
from raylr.training.offload import offloaded

PAUSES_S = (1.0, 4.0, 16.0)  # between tries to write


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
        "sha256": _sha256(data),
    }
    folder.write_bytes(f"{name}.pt", data)
    folder.write_json(f"{name}.json", about)
    best_one = best(folder)
    for old in names(folder)[:-keep]:
        if old != best_one:
            folder.remove(f"checkpoints/{old}.json")
            folder.remove(f"checkpoints/{old}.pt")


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


class Writer:
    """Writes checkpoints in a thread: the loop waits for the copy in memory, not for the storage.

    `before` is done before each, so that a checkpoint never knows more than the files of rows. What the storage does not
    take is tried again, until a newer one waits.
    """

    def __init__(self, folder: Folder, keep: int, before: Sequence[Callable[[], None]] = ()) -> None:
        self.folder, self.keep, self.before = folder, keep, before
        self._lock = threading.Lock()
        self._newer = threading.Event()
        self._next: tuple[dict[str, Any], Callable[[], None]] | None = None
        self._thread: threading.Thread | None = None

    def start(self, state: dict[str, Any]) -> None:
        """Begin to write a state that nobody changes any more. Tensors of a GPU are on their way to the host meanwhile."""
        coming = offloaded(state)
        with self._lock:
            self._next = coming
            self._newer.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint")
                self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        thread = self._thread
        if thread is not None:
            thread.join()

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
        for pause in (*PAUSES_S, None):
            try:
                for action in self.before:
                    action()
                write(self.folder, state, self.keep)
                return
            except (OSError, ValueError) as error:
                then = "training goes on without it" if pause is None else f"trying again in {pause:g} s"
                where = f"{self.folder} at position {state['position']}"
                warnings.warn(f"a checkpoint in {where} was not written: {error}; {then}", stacklevel=2)
            if pause is None or self._newer.wait(pause):
                return


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
