"""A run's folder on the storage that the user named: whole files that appear at once or not at all, and files of rows.

A file is written under a temporary name and renamed, so a reader never sees half of one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
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
        with _writable(self.path.parent):
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            for name in ("", "checkpoints"):
                for stale in (self.path / name).glob(".*.tmp"):
                    stale.unlink()

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def remove(self, name: str = "") -> None:
        """Remove a file or a folder below, or the whole folder; nothing happens when it is not there."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run. Raises ConfigError, naming the holder, while another process holds it.

        The lock ends with its process, however that ends.
        """
        path = self.path.with_name(f".{self.path.name}.lock")
        with _writable(self.path.parent), path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ConfigError(
                    f"name={self.path.name} is running already ({file.read()}); use another --name"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

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


@contextlib.contextmanager
def _writable(storage: Path) -> Iterator[None]:
    """Turn what the system says about writing into one line."""
    try:
        storage.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"storage={storage} cannot be written ({error.strerror}); choose another --storage"
        ) from error


def run_folder(storage: str, name: str) -> Folder:
    """The folder of the run `name` under `storage`. Raises ConfigError for a URI: only paths are written to."""
    if "://" in storage:
        raise ConfigError(f"storage={storage} is a URI, and run folders are on paths; use one that all nodes share")
    return Folder(Path(storage).expanduser().resolve() / name)
