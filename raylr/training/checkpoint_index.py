"""The notes beside checkpoints: which there are, of which format, and which one is best. Knows no torch, for the driver."""

from typing import Any

from raylr.errors import ConfigError
from raylr.storage import Folder

FORMAT_VERSION = 1
INITIAL = "initial.pt"  # weights of another run that a run has begun with


def names(folder: Folder) -> list[str]:
    """Names of the checkpoints whose note is there, oldest first."""
    return [
        name.removesuffix(".json") for name in folder.names("checkpoints") if name.endswith(".json") and name[0] != "."
    ]


def note(folder: Folder, name: str) -> dict[str, Any]:
    found: dict[str, Any] = folder.read_json(f"checkpoints/{name}.json")
    return found


def best(folder: Folder) -> str | None:
    """Name of the checkpoint of best test accuracy, or of a task's best score, the newest of equal ones.

    None where none was evaluated.
    """
    notes = {name: note(folder, name) for name in names(folder)}
    scores = {name: found.get("score", found.get("test_accuracy")) for name, found in notes.items()}
    evaluated = [name for name, score in scores.items() if score is not None]
    return max(evaluated, key=lambda name: (scores[name], name), default=None)


def refuse_other_formats(folder: Folder) -> None:
    """Raise ConfigError for a checkpoint of another version of raylr, which would be passed over as if it were damaged."""
    for name in names(folder):
        try:
            version = note(folder, name).get("format")
        except (OSError, ValueError):  # a damaged note: the checkpoint is passed over
            continue
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"checkpoint={folder}/checkpoints/{name}.pt is of format {version}, and this version of raylr reads "
                f"format {FORMAT_VERSION}; use the version that wrote it, --fresh, or another --name"
            )
