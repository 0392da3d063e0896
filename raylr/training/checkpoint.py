"""Checkpoints: one file of tensors and plain data, and a note beside it with its checksum, written last.

A checkpoint counts when its note is there and the checksum fits. Loading never unpickles code (`weights_only=True`).
"""

import hashlib
import io
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raylr.errors import ConfigError
from raylr.run_plan import Plan
from raylr.storage import Folder, run_folder
from raylr.training.models import build

FORMAT_VERSION = 1


def to_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def write(folder: Folder, state: dict[str, Any], keep: int) -> None:
    """Write a checkpoint at `state["position"]` and remove all but the newest `keep`."""
    data, name = to_bytes(state), f"checkpoints/{state['position']:012d}"
    note = {"format": FORMAT_VERSION, "position": state["position"], "step": state["step"], "sha256": _sha256(data)}
    folder.write_bytes(f"{name}.pt", data)
    folder.write_json(f"{name}.json", note)
    for old in names(folder)[:-keep]:
        folder.remove(f"checkpoints/{old}.json")
        folder.remove(f"checkpoints/{old}.pt")


def names(folder: Folder) -> list[str]:
    """Names of the checkpoints whose note is there, oldest first."""
    return [
        name.removesuffix(".json") for name in folder.names("checkpoints") if name.endswith(".json") and name[0] != "."
    ]


def newest(folder: Folder) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None; one that is not is named in a warning and passed over."""
    for name in reversed(names(folder)):
        try:
            note, data = folder.read_json(f"checkpoints/{name}.json"), folder.read_bytes(f"checkpoints/{name}.pt")
            if note["format"] != FORMAT_VERSION:
                raise ValueError(f"format {note['format']}, this version reads {FORMAT_VERSION}")
            if _sha256(data) != note["sha256"]:
                raise ValueError("the checksum does not fit")
            return from_bytes(data)
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"checkpoint {folder}/checkpoints/{name}.pt is passed over: {error}", stacklevel=2)
    return None


def load(run: str | Path, storage: str = "runs") -> nn.Module:
    """A plain torch module with the weights that a run ended with (or has reached), in evaluation mode on the CPU.

    `run` is a run's folder, or its name under `storage`. Raises ConfigError when there is no such run or no checkpoint.
    """
    folder = Folder(Path(run)) if Path(run).is_dir() else run_folder(storage, str(run))
    if not folder.exists("plan.json"):
        raise ConfigError(f"run={run} is no run folder: it has no plan.json; `raylr runs` lists those under --storage")
    plan, state = Plan.model_validate(folder.read_json("plan.json")), newest(folder)
    if state is None:
        raise ConfigError(f"run={run} has no whole checkpoint yet")
    model = build(plan.model, plan.num_classes, plan.image_shape, plan.dropout)
    model.load_state_dict(state["model"])
    return model.eval()


class Writer:
    """Writes checkpoints in a thread, one at a time: the loop waits for the copy in memory, not for the storage."""

    def __init__(self, folder: Folder, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread: threading.Thread | None = None

    def start(self, state: dict[str, Any]) -> None:
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(state,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, state: dict[str, Any]) -> None:
        try:
            write(self.folder, state, self.keep)
        except OSError as error:
            warnings.warn(
                f"checkpoint at position {state['position']} was not written: {error}; training goes on", stacklevel=2
            )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
