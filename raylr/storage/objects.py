"""A run's folder on an object store: `s3://bucket/runs`, or any other URI that Arrow opens.

An object appears at once or not at all, and nothing can be appended to one: rows go up in parts. Credentials, region and
endpoint are where the store's own tools look for them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import ArrowInvalid, fs

from raylr.errors import ConfigError
from raylr.storage.folder import Folder
from raylr.storage.local import LocalFolder

BEAT_S = 5.0  # how often the holder of a run writes its sign of life; a process that takes over waits for two


def object_folder(storage: str, name: str) -> Folder:
    """The folder of the run `name` under the URI `storage`. Raises ConfigError for a scheme that is not known."""
    try:
        filesystem, root = fs.FileSystem.from_uri(storage)
    except (ArrowInvalid, OSError) as error:
        raise ConfigError(
            f"storage={storage} cannot be opened: {_line(error)}; use a path, or s3://BUCKET/FOLDER"
        ) from None
    if not root.strip("/"):
        raise ConfigError(f"storage={storage} names no bucket; use s3://BUCKET/FOLDER")
    return ObjectFolder(storage.rstrip("/"), filesystem, PurePosixPath(root, name))


class ObjectFolder(Folder):
    """One folder, that is a common beginning of names, on an object store."""

    is_local = False

    def __init__(self, storage: str, filesystem: Any, root: PurePosixPath) -> None:
        self._storage, self._filesystem, self._root = storage, filesystem, root

    def __str__(self) -> str:
        return f"{self._storage}/{self.name}"

    @property
    def name(self) -> str:
        return self._root.name

    @property
    def storage(self) -> str:
        return self._storage

    def create(self) -> None:
        """Try whether the store takes anything. Raises ConfigError when it does not."""
        try:
            self.write_bytes(".try", b"")
            self.remove(".try")
        except OSError as error:
            raise ConfigError(f"storage={self._storage} cannot be written ({_line(error)})") from error

    def exists(self, name: str = "") -> bool:
        with self._readable():
            return self._filesystem.get_file_info(self._at(name)).type != fs.FileType.NotFound  # type: ignore[no-any-return]

    def remove(self, name: str = "") -> None:
        kind = self._filesystem.get_file_info(self._at(name)).type
        if kind == fs.FileType.Directory:
            self._filesystem.delete_dir(self._at(name))
        elif kind != fs.FileType.NotFound:
            self._filesystem.delete_file(self._at(name))

    def names(self, folder: str = "") -> list[str]:
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        return sorted(entry.base_name for entry in self._filesystem.get_file_info(selector))

    def read_bytes(self, name: str) -> bytes:
        with self._filesystem.open_input_stream(self._at(name)) as stream:
            return stream.read()  # type: ignore[no-any-return]

    def write_bytes(self, name: str, data: bytes) -> None:
        with self._filesystem.open_output_stream(self._at(name)) as stream:
            stream.write(data)

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of all parts. A part is named by the number of rows before it; a later one replaces rows that overlap."""
        rows: list[dict[str, Any]] = super().read_rows(name)
        for part in self.names(_parts(name)):
            rows[int(part) :] = super().read_rows(f"{_parts(name)}/{part}")
        return rows

    @contextlib.contextmanager
    def local_copy(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="raylr-copy-") as parent:
            copy = LocalFolder(Path(parent) / self.name)
            copy.create()
            for name in self.names():
                if name.endswith(".parts"):
                    rows = self.read_rows(name.removesuffix(".parts"))
                    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
                    copy.write_bytes(name.removesuffix(".parts"), lines)
                elif self._filesystem.get_file_info(self._at(name)).type == fs.FileType.File:
                    copy.write_bytes(name, self.read_bytes(name))
            yield copy.path

    def append_after(self, name: str, kept: Sequence[bytes], missing: Sequence[bytes]) -> "ObjectAppender":
        for part in self.names(_parts(name)):
            if int(part) >= len(kept):
                self.remove(f"{_parts(name)}/{part}")
        return ObjectAppender(self, name, len(kept), missing)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run by a sign of life. Raises ConfigError, naming the holder, while another one beats.

        After a holder was killed the next one waits for two beats. Two that start in the same second may both get in.
        """
        self._wait_for_silence()
        holder, ended = f"process {os.getpid()} on {socket.gethostname()}", threading.Event()

        def beat() -> None:
            with contextlib.suppress(OSError):
                self.write_json(".lock", {"holder": holder, "beat": uuid.uuid4().hex})

        def go_on_beating() -> None:
            while not ended.wait(BEAT_S):
                beat()

        beat()
        thread = threading.Thread(target=go_on_beating, daemon=True, name="lock")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OSError):
                self.remove(".lock")

    def is_held(self) -> bool:
        """True while the holder's sign of life is young, by the clocks of the store and of this machine."""
        found = self._filesystem.get_file_info(self._at(".lock"))
        if found.type == fs.FileType.NotFound or found.mtime_ns is None:
            return False
        return bool(time.time() - found.mtime_ns / 1e9 < 6 * BEAT_S)

    def _wait_for_silence(self) -> None:
        if not self.exists(".lock"):
            return
        before = self.read_json(".lock")
        threading.Event().wait(2 * BEAT_S)
        if self.exists(".lock") and self.read_json(".lock") != before:
            raise ConfigError(f"name={self.name} is running already ({before['holder']}); use another --name")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise the store's error on reading as a ConfigError of one line."""
        try:
            yield
        except OSError as error:
            raise ConfigError(f"storage={self._storage} cannot be read ({_line(error)})") from error

    def _at(self, name: str) -> str:
        return str(self._root / name)


class ObjectAppender:
    """Rows that wait in memory for the next flush, which makes them a part."""

    def __init__(self, folder: ObjectFolder, name: str, start: int, pending: Sequence[bytes]) -> None:
        self._folder, self._name, self._start = folder, name, start
        self._pending = list(pending)

    def write(self, line: bytes) -> None:
        self._pending.append(line)

    def flush(self) -> None:
        lines = list(self._pending)
        if lines:
            self._folder.write_bytes(f"{_parts(self._name)}/{self._start:012d}", b"".join(lines))
            self._start += len(lines)
            del self._pending[: len(lines)]

    def close(self) -> None:
        self._pending.clear()


def _parts(name: str) -> str:
    return f"{name}.parts"


def _line(error: Exception) -> str:
    """The message of a store's error, without the parts of Arrow and its SDK."""
    return str(error).splitlines()[0].partition(" (Request ID")[0]
