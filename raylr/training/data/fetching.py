"""Fetch the files of a URI once per node into the cache: whole or not at all, with checksums, resumed where it broke off.

Ranks and runs of one node wait for the first of them. A copy is used until the store has other files; where the store
cannot be asked, with a warning.
"""

import contextlib
import hashlib
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from raylr.errors import ConfigError, first_line
from raylr.storage.home import find_a_home
from raylr.training.data.cache import SAY_EVERY_S, locked
from raylr.training.data.dataset import Report
from raylr.training.data.remote import Remote, in_time, refusal
from raylr.training.data.stores import CHUNK, STALL_TIMEOUT_S, RemoteFile

RECORD, FILES = "fetched.json", "files"
AT_ONCE = 8  # files
MAX_TRIES, PAUSE_S = 4, 1.0  # in a row without a byte; the pause doubles
LOOK_S = 0.2


class HeldFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    num_bytes: int
    stamp: str
    sha256: str


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    uri: str
    files: tuple[HeldFile, ...]


@dataclass(frozen=True)
class Copy:
    """The files of a URI on this node. `digest` is over their names and contents."""

    uri: str
    folder: Path
    names: tuple[str, ...]
    digest: str

    @property
    def path(self) -> Path:
        """The file, or the folder of several."""
        only = self.names[0] if len(self.names) == 1 and "/" not in self.names[0] else ""
        return self.folder / FILES / only


def fetch(uri: str, cache_dir: str, report: Report | None = None) -> Copy:
    """Return this node's copy of a URI, fetched unless the same files are here. Raises ConfigError in one line."""
    folder = _folder(uri, cache_dir)
    record = _read(folder)
    try:
        remote = Remote(uri)
        there = remote.files()
    except ConfigError as error:
        if record is None:
            raise
        warnings.warn(f"{error}; the copy in {folder} is used", stacklevel=2)
        return _copy(folder, record)
    if record is None or not _is_of(record, there):
        with _writable(folder), locked(folder.with_suffix(".lock"), f"fetches {uri}"):
            record = _read(folder)
            if record is None or not _is_of(record, there):
                record = _fetch(remote, there, folder, report)
    return _copy(folder, record)


def copy_of(uri: str, cache_dir: str) -> Copy | None:
    """Return this node's copy without asking the store; None where there is none."""
    folder = _folder(uri, cache_dir)
    record = _read(folder)
    return None if record is None else _copy(folder, record)


def verify(copy: Copy) -> None:
    """Compare every byte of the copy with its checksums. ConfigError names the file that differs."""
    record = _read(copy.folder)
    for file in record.files if record is not None else ():
        with (copy.folder / FILES / file.name).open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                raise ConfigError(
                    f"data.source={copy.uri}: its copy {opened.name} is damaged, its checksum differs; remove {copy.folder}"
                )


def _folder(uri: str, cache_dir: str) -> Path:
    find_a_home()
    name = re.sub("[^A-Za-z0-9_-]+", "-", uri.partition("?")[0].rpartition("/")[2])[:40].strip("-") or "files"
    return Path(cache_dir).expanduser() / f"fetched-{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


def _read(folder: Path) -> Record | None:
    """The record of a whole copy; None where there is none, or files of it are missing."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_text())
        sizes = [(folder / FILES / file.name).stat().st_size for file in record.files]
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return record if sizes == [file.num_bytes for file in record.files] else None


def _copy(folder: Path, record: Record) -> Copy:
    digest = hashlib.sha256(repr([(file.name, file.sha256) for file in record.files]).encode()).hexdigest()
    return Copy(record.uri, folder, tuple(file.name for file in record.files), digest)


def _is_of(record: Record, there: list[RemoteFile]) -> bool:
    return [(file.name, file.stamp) for file in record.files] == [(file.name, file.stamp) for file in there]


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Say in one line that the cache takes nothing."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir={folder.parent} cannot be written ({error.strerror or error}); give another folder"
        ) from error


def _fetch(remote: Remote, there: list[RemoteFile], folder: Path, report: Report | None) -> Record:
    """Fetch into a folder beside, then move it into place. What a killed process has left there goes on."""
    part = folder.with_suffix(".part")
    stamps = repr([(file.name, file.stamp) for file in there])
    known = part / "stamps"
    if not known.is_file() or known.read_text() != stamps:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        known.write_text(stamps)
    _refuse_small_disk(remote.uri, there, part)
    try:
        fetched = _Fetching(remote, part / FILES, _told(remote.uri, report)).all(there)
    except _DiskError:
        shutil.rmtree(part, ignore_errors=True)  # leave no full disk
        raise
    record = Record(uri=remote.uri, files=tuple(fetched))
    (part / RECORD).write_text(record.model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)  # of files that the store no longer has
    part.rename(folder)
    return record


def _refuse_small_disk(uri: str, there: list[RemoteFile], part: Path) -> None:
    here = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    wanted, free = sum(file.size or 0 for file in there) - here, shutil.disk_usage(part).free
    if wanted > free:
        raise ConfigError(
            f"data.cache_dir={part.parent} has room for {free / 1e6:,.0f} MB, and data.source={uri} needs "
            f"{wanted / 1e6:,.0f} MB; give another folder"
        )


def _told(uri: str, report: Report | None) -> Callable[[int, int], None]:
    """What hears of the bytes: the report, or else a line on the screen now and then."""
    what = f"fetching {uri.partition('?')[0].rpartition('/')[2] or uri}"
    since = said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if report is not None and total:
            report(done, total, what)
        elif time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            of = f" of {total / 1e6:,.0f}" if total else ""
            warnings.warn(f"{what}: {done / 1e6:,.0f}{of} MB after {said - since:.0f} s", stacklevel=2)

    return tell


class _Fetching:
    """The files on their way, several at once."""

    def __init__(self, remote: Remote, folder: Path, tell: Callable[[int, int], None]) -> None:
        self._remote, self._folder, self._tell = remote, folder, tell
        self._stop = threading.Event()
        self._done: dict[str, int] = {}  # bytes by file; each is written by one thread

    def all(self, there: list[RemoteFile]) -> list[HeldFile]:
        total = sum(file.size or 0 for file in there)
        pool = ThreadPoolExecutor(AT_ONCE, "fetch")
        waiting = [pool.submit(self._one, file) for file in there]
        pending = set(waiting)
        try:
            while pending:
                done, pending = wait(pending, LOOK_S, "FIRST_EXCEPTION")
                for one in done:
                    one.result()  # raises what went wrong first
                self._tell(sum(self._done.values()), total)
            return [one.result() for one in waiting]
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _one(self, file: RemoteFile) -> HeldFile:
        """Fetch one file, from where it broke off; tries again a few times where no byte comes."""
        path = self._folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        tries = 0
        with path.open("ab+") as out:
            while True:
                before = out.seek(0, 2)
                try:
                    self._read_on(file, out, before)
                    out.seek(0)
                    digest = hashlib.file_digest(out, "sha256").hexdigest()
                    return HeldFile(name=file.name, num_bytes=out.tell(), stamp=file.stamp, sha256=digest)
                except (_DiskError, InterruptedError):
                    raise
                except Exception as error:  # each store has errors of its own
                    done = out.seek(0, 2)
                    tries = 1 if done > before else tries + 1
                    self._pause(file, done, tries, error)

    def _read_on(self, file: RemoteFile, out: BinaryIO, start: int) -> None:
        """Append what comes after the byte `start`; all anew where the store cannot give a part."""
        if file.size is None or start > file.size:
            start = out.truncate(0)
        try:
            stream = self._open(file, start)
        except ValueError:
            start = out.truncate(0)
            stream = self._open(file, start)
        try:
            while chunk := self._next(stream, file, start):
                _write(out, chunk)
                start += len(chunk)
                self._done[file.name] = start
        finally:
            in_time(stream.close, STALL_TIMEOUT_S)
        if file.size not in (None, start):
            raise EOFError(f"it ends after {start} of {file.size} bytes")

    def _open(self, file: RemoteFile, start: int) -> Any:
        return in_time(lambda: self._remote.store.open(file, start), STALL_TIMEOUT_S, self._stop)

    def _next(self, stream: Any, file: RemoteFile, start: int) -> bytes:
        count = CHUNK if file.size is None else min(CHUNK, file.size - start)
        return in_time(lambda: stream.read(count), STALL_TIMEOUT_S, self._stop) if count else b""

    def _pause(self, file: RemoteFile, done: int, tries: int, error: Exception) -> None:
        told = f"data.source={self._remote.uri}: {file.name} broke off after {done} bytes"
        why = first_line(error)
        if tries > MAX_TRIES:
            raise ConfigError(f"{told}, {MAX_TRIES} times again: {refusal(error, self._remote.scheme)}") from error
        warnings.warn(f"{told} ({why}); trying again, {tries} of {MAX_TRIES}", stacklevel=2)
        if self._stop.wait(PAUSE_S * 2 ** (tries - 1)):
            raise InterruptedError("given up")


class _DiskError(OSError):
    """This machine's disk, and not the store, fails."""


def _write(out: BinaryIO, chunk: bytes) -> None:
    try:
        out.write(chunk)
        out.flush()
    except OSError as error:
        raise _DiskError(error.errno, error.strerror) from error
