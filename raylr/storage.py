"""A run's folder on the storage that the user named: whole files that appear at once or not at all, and files of rows.

A file is written under a temporary name and renamed, so a reader never sees half of one.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raylr.errors import ConfigError


class Folder:
    """One folder on a path that every node of the run can reach."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        """Make the folder. Raises ConfigError when that is not permitted."""
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            with self._temporary(self.path / "probe"):
                pass
            (self.path / "probe").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"storage={self.path.parent} cannot be written ({error.strerror}); choose another --storage") from error

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def remove(self, name: str = "") -> None:
        """Remove a file, or the whole folder; nothing happens when it is not there."""
        if name:
            (self.path / name).unlink(missing_ok=True)
        elif self.path.exists():
            shutil.rmtree(self.path)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder below, sorted."""
        path = self.path / folder
        return sorted(entry.name for entry in path.iterdir()) if path.exists() else []

    def read_bytes(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write_bytes(self, name: str, data: bytes) -> None:
        with self._temporary(self.path / name) as temporary:
            temporary.write_bytes(data)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2) + "\n").encode())

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The whole rows of a `.jsonl` file; a last line that was cut short is left out."""
        if not self.exists(name):
            return []
        lines = self.read_bytes(name).decode().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @contextlib.contextmanager
    def _temporary(self, path: Path) -> Iterator[Path]:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.touch()
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def run_folder(storage: str, name: str) -> Folder:
    """The folder of the run `name` under `storage`."""
    return Folder(Path(storage).expanduser().resolve() / name)
