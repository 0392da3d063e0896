"""The files in a folder or an archive, one after the other.

Nothing is unpacked to disk, and no link in an archive is followed.
"""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISLNK

from raylr.errors import ConfigError

ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".zip")
LARGEST_FILE = 64 * 2**20  # bytes; a damaged or hostile header may promise any number
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """A file, or a folder. `read` is to be called before the next member is asked for."""

    name: str  # relative, with / between the parts
    is_folder: bool
    size: int
    read: Callable[[], bytes]


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn whatever a broken archive or folder raises into a ConfigError."""
    try:
        yield
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise ConfigError(
            f"data.source={source} cannot be read: it is damaged or truncated ({reason}); get it anew"
        ) from error


def members(path: Path) -> Iterator[Member]:
    """The members in the order in which they are stored; of a folder, sorted."""
    walk = _of_folder if path.is_dir() else _of_zip if path.suffix == ".zip" else _of_tar
    for member in walk(path):
        if member.size > LARGEST_FILE:
            raise ConfigError(
                f"data.source={path}: {member.name} has {member.size} bytes; an image has at most {LARGEST_FILE}"
            )
        yield member


def _of_folder(path: Path) -> Iterator[Member]:
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders.sort()
        inside = Path(folder).relative_to(path)
        yield Member(inside.as_posix(), True, 0, bytes)
        for name in sorted(files):
            file = Path(folder, name)
            yield Member((inside / name).as_posix(), False, file.stat().st_size, file.read_bytes)


def _of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if S_ISLNK(info.external_attr >> 16):
                raise _link(path, info.filename)
            yield Member(_plain(info.filename), info.is_dir(), info.file_size, partial(archive.read, info))


def _of_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            if not (info.isfile() or info.isdir()):
                raise _link(path, info.name)
            yield Member(_plain(info.name), info.isdir(), info.size, partial(_read_tar, archive, info))
        # tarfile takes a broken header, or the end of the file, for the end of the archive
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    data = file.read() if file else b""
    if len(data) != info.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _link(path: Path, name: str) -> ConfigError:
    return ConfigError(f"data.source={path}: {name} is a link or a device; pack plain files only")


def _raise(error: OSError) -> None:
    raise error
