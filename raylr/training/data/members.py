"""The files in a folder or an archive: their names first, then the bytes of those that are wanted.

Nothing is unpacked to disk, and no link in an archive is followed.
"""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK
from typing import Protocol

from raylr.errors import ConfigError

ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".zip")
LARGEST_FILE = 64 * 2**20  # bytes; a damaged or hostile header may promise any number
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or a folder. The name is relative, with / between the parts; the place is the packing's own."""

    name: str
    is_folder: bool
    size: int
    place: int | str


class Packing(Protocol):
    """A folder or an archive that is open."""

    def members(self) -> Iterator[Member]:
        """All members as they are stored; of a folder, sorted."""

    def read(self, member: Member) -> bytes:
        """The bytes of a file. Quick only when files are asked for in the order of `members`."""


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        for folder, folders, files in os.walk(self._path, onerror=_raise):
            folders.sort()
            inside = Path(folder).relative_to(self._path)
            yield Member(inside.as_posix(), True, 0, "")
            for name in sorted(files):
                path = inside / name
                yield Member(path.as_posix(), False, (self._path / path).stat().st_size, str(path))

    def read(self, member: Member) -> bytes:
        return (self._path / str(member.place)).read_bytes()


class Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[Member]:
        for info in self._archive.infolist():
            if S_ISLNK(info.external_attr >> 16):
                raise _link(self._archive.filename, info.filename)
            yield Member(_plain(info.filename), info.is_dir(), info.file_size, info.filename)

    def read(self, member: Member) -> bytes:
        return self._archive.read(str(member.place))


class Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        assert archive.fileobj is not None
        self._archive, self._file = archive, archive.fileobj  # the file is the unpacked stream

    def members(self) -> Iterator[Member]:
        for info in self._archive:
            if not (info.isfile() or info.isdir()):
                raise _link(self._archive.name, info.name)
            yield Member(_plain(info.name), info.isdir(), info.size, info.offset_data)
        # tarfile takes a broken header, or the end of the file, for the end of the archive
        if self._bytes(self._archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")

    def read(self, member: Member) -> bytes:
        return self._bytes(int(member.place), member.size)

    def _bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        data: bytes = self._file.read(size)
        if len(data) != size:
            raise tarfile.ReadError("unexpected end of data")
        return data


@contextmanager
def opened(source: str, path: Path) -> Iterator[Packing]:
    """The packing at a path. Whatever it raises when it is broken becomes a ConfigError about data.source=`source`."""
    try:
        if path.is_dir():
            yield Folder(path)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield Zip(archive)
        else:
            with tarfile.open(path) as tar:
                yield Tar(tar)
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise ConfigError(
            f"data.source={source} cannot be read: it is damaged or truncated ({reason}); get it anew"
        ) from error


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _link(archive: object, name: str) -> ConfigError:
    return ConfigError(f"data.source={archive}: {name} is a link or a device; pack plain files only")


def _raise(error: OSError) -> None:
    raise error
