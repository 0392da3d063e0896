"""The files of a run that another process writes, as they grow: on a path, or on an object store, asked now and then."""

from pathlib import Path
from typing import Any, Protocol

from raylr.errors import ConfigError, RaylrError
from raylr.reporting.rows import row_of
from raylr.storage import RUN_RESULT, Folder, LocalFolder


class Growing(Protocol):
    """A file of rows that another process appends to, and sometimes rewrites."""

    def news(self) -> list[dict[str, Any]]:
        """The rows behind those that have been given and still stand."""


class Watched(Protocol):
    """A run's folder, looked at again and again. `pause_s`: how long to wait between two looks."""

    folder: Folder
    pause_s: float

    def check(self) -> None:
        """Raise RaylrError where the folder is gone."""

    def plan(self) -> bytes:
        """The plan as it stands; empty before there is one."""

    def has_ended(self) -> bool: ...

    def growing(self, name: str) -> Growing: ...


def watched(folder: Folder) -> Watched:
    """The folder as one that is watched."""
    return OnPath(folder) if isinstance(folder, LocalFolder) else OnStore(folder)


class OnPath:
    """A folder on a path: only files that have changed are read, and of the ledger only its end."""

    pause_s = 0.5

    def __init__(self, folder: LocalFolder) -> None:
        self.folder: Folder = folder
        self.path = folder.path

    def check(self) -> None:
        if not self.path.exists():
            raise RaylrError(f"run={self.path} is gone: its folder was removed")

    def plan(self) -> bytes:
        path = self.path / "plan.json"
        return path.read_bytes() if path.exists() else b""

    def has_ended(self) -> bool:
        return (self.path / RUN_RESULT).exists()

    def growing(self, name: str) -> Growing:
        return GrowingFile(self.path / name)


class OnStore:
    """A folder on an object store, where rows come with checkpoints: everything is read at each look, so looks are rare."""

    pause_s = 10.0

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def check(self) -> None:
        """Do nothing: a store has no folders, only files whose names begin alike."""

    def plan(self) -> bytes:
        return self.folder.read_bytes("plan.json") if self.folder.exists("plan.json") else b""

    def has_ended(self) -> bool:
        return self.folder.exists(RUN_RESULT)

    def growing(self, name: str) -> Growing:
        return GrowingObject(self.folder, name)


class GrowingFile:
    """Such a file on a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._seen: list[bytes] = []

    def news(self) -> list[dict[str, Any]]:
        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self._stamp:
                return []
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        old, self._stamp, self._seen = self._seen, stamp, lines
        return [row for line in lines[_same(old, lines) :] if (row := row_of(line)) is not None]


class GrowingObject:
    """Such a file in parts on an object store."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name
        self._seen: list[Any] = []

    def news(self) -> list[dict[str, Any]]:
        try:
            rows = self.folder.read_rows(self.name)
        except ConfigError:
            return []  # a damaged line: `raylr report` tells which
        old, self._seen = self._seen, rows
        return [row for row in rows[_same(old, rows) :] if isinstance(row, dict)]


def _same(old: list[Any], new: list[Any]) -> int:
    """How many of the first ones are as they were."""
    return next(
        (n for n, pair in enumerate(zip(new, old, strict=False)) if pair[0] != pair[1]), min(len(old), len(new))
    )
