"""What a tracker's sink has to do, and the ids under which a run that is continued is known to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from raylr.storage import LocalFolder

IDS = "trackers.json"  # in the run folder


@dataclass(frozen=True)
class Family:
    """The population that a run is, or is a trial of: its name and its folder."""

    name: str
    folder: Path
    is_trial: bool


class Sink(Protocol):
    """Where the numbers, notes and files of one run go. `takes_files`: whether it keeps any."""

    takes_files: ClassVar[bool]

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None: ...
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def note(self, step: int, text: str) -> None: ...

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        """Keep files and folders of a kind: config, code or model."""

    def close(self, result: Mapping[str, Any]) -> None: ...


def known_as(run_dir: Path, name: str) -> str | None:
    """The id that the tracker `name` knows the run by."""
    folder = LocalFolder(run_dir)
    return folder.read_json(IDS).get(name) if folder.exists(IDS) else None


def remember(run_dir: Path, name: str, identity: str) -> None:
    """Keep the id for the next start of the run."""
    folder = LocalFolder(run_dir)
    known = folder.read_json(IDS) if folder.exists(IDS) else {}
    folder.write_json(IDS, {**known, name: identity})
