"""A run's folder on a path: whole files that appear at once or not at all, and files of rows.

A file is written under a temporary name and renamed, so a reader never sees half of one.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

from raylr.errors import ConfigError
from raylr.storage.folder import Appender, Folder


class LocalFolder(Folder):
    """One folder on a path that every node of the run can reach."""

    is_local = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def storage(self) -> str:
        return str(self.path.parent)

    def create(self) -> None:
        """Make the folder. Raises ConfigError when that is not permitted."""
        with _writable(self.path.parent):
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            for name in ("", "checkpoints"):
                for stale in (self.path / name).glob(".*.tmp"):
                    stale.unlink()

    def exists(self, name: str = "") -> bool:
        return os.path.exists(self.path / name)  # False of a name that no system takes

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
        with _writable(self.path.parent):
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ConfigError(
                    f"name={self.path.name} is running already ({file.read()}); use another --name"
                ) from None
            if not os.fstat(file.fileno()).st_nlink:  # its holder has ended just now, and taken the file with it
                with self.held():
                    yield
                return
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """True while a process holds the folder; on another host this is seen where the file system shares its locks."""
        try:
            with self.path.with_name(f".{self.path.name}.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the entries of a folder below."""
        path = self.path / folder
        return sorted(entry.name for entry in path.iterdir()) if os.path.isdir(path) else []

    def read_bytes(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write_bytes(self, name: str, data: bytes) -> None:
        if "/" in name:
            (self.path / name).parent.mkdir(exist_ok=True)
        with self._temporary(self.path / name) as temporary:
            temporary.write_bytes(data)

    @contextlib.contextmanager
    def local_copy(self) -> Iterator[Path]:
        """A path with the files of this folder, for reading."""
        yield self.path

    def append_after(self, name: str, kept: Sequence[bytes], missing: Sequence[bytes]) -> Appender:
        """Open a file of rows at its end, once it holds the lines `kept`, which are its first ones now, and `missing`."""
        self.write_bytes(name, b"".join([*kept, *missing]))
        return LocalAppender(FileIO(self.path / name, "a"), name)

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


class LocalAppender:
    """Writes every line through at once, so that it outlives a kill of the process."""

    def __init__(self, file: FileIO, name: str) -> None:
        self._file, self._name = file, name
        self._pending = b""
        self._lock = threading.Lock()  # a checkpoint's thread flushes

    def write(self, line: bytes) -> None:
        with self._lock:
            was_well, self._pending = not self._pending, self._pending + line
            try:
                self._write_through()
            except OSError as error:
                if was_well:
                    text = f"{self._name} cannot be written: {error}; training goes on and tries again"
                    warnings.warn(text, stacklevel=2)

    def flush(self) -> None:
        with self._lock:
            self._write_through()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write_through(self) -> None:
        while self._pending:
            self._pending = self._pending[self._file.write(self._pending) :]


@contextlib.contextmanager
def _writable(storage: Path) -> Iterator[None]:
    """Raise the system's error on writing as a ConfigError of one line."""
    try:
        storage.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"storage={storage} cannot be written ({error.strerror}); choose another --storage"
        ) from error
