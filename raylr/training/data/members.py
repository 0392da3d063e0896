"""List the files in a folder or an archive, then read some of them.

Unpacks nothing to disk. Follows links, in an archive only to other members; ends at a link to a folder that contains it.
"""

import lzma
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Protocol

from raylr.errors import ConfigError

ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".zip")
LARGEST_FILE = 64 * 2**20  # bytes; a damaged or hostile header may promise any number
LONGEST_PATH = 4096  # bytes of a link's target; the kernel's own limit
MAX_HOPS = 40  # links in a row; the kernel's own limit
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError)
METHODS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),
}
NOT_PLAIN = "is a link or a device; pack plain files only"


@dataclass(frozen=True, slots=True)
class Member:
    """A file or a folder. The name is relative, with / between the parts; the place is the packing's own.

    `fault` says why it cannot be read, as the end of a sentence that begins with the name; empty if it can.
    """

    name: str
    is_folder: bool
    size: int
    place: int | str
    fault: str = ""


class Packing(Protocol):
    """An open folder or archive."""

    def members(self) -> Iterator[Member]:
        """Yield all members as stored; those of a folder sorted. The target of a link is listed under the link's name."""

    def read(self, member: Member) -> bytes:
        """Return the bytes of a file. Fast only if files are read in the order of `members`."""


class Folder:
    """A folder. Walks only its `wanted` folders; without any of them, up to the first file."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        self._path, self._wanted = path, wanted

    def members(self) -> Iterator[Member]:
        members = self._walk("", (os.path.realpath(self._path),))
        if any(os.path.lexists(self._path / name) for name in self._wanted):
            yield from members
            return
        for member in members:
            yield member
            if not member.is_folder:
                return

    def read(self, member: Member) -> bytes:
        return (self._path / str(member.place)).read_bytes()

    def _walk(self, name: str, above: tuple[str, ...]) -> Iterator[Member]:
        """Yield a folder, its files, then its folders. `above` holds the real paths of the folder and its parents."""
        yield Member(name or ".", True, 0, "")
        folders = []
        with os.scandir(self._path / name) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                inside = f"{name}/{entry.name}" if name else entry.name
                real = f"{above[-1]}/{entry.name}"
                if entry.is_symlink():
                    real = os.path.realpath(real)
                member = _member(entry, inside, real, above)
                if member.is_folder and not member.fault:
                    folders.append((inside, real))
                else:
                    yield member
        if not name:
            folders = [pair for pair in folders if pair[0] in self._wanted] or folders
        for inside, real in folders:
            yield from self._walk(inside, (*above, real))


def _member(entry: os.DirEntry[str], name: str, real: str, above: tuple[str, ...]) -> Member:
    """Return the member at a path; a dangling link, a link to a parent and a device carry their fault."""
    try:
        stat = entry.stat()
    except OSError as error:
        if not entry.is_symlink():
            raise
        fault = f"is a link to {os.readlink(entry)}, which cannot be followed ({error.strerror})"
        return Member(name, False, 0, "", fault)
    if S_ISDIR(stat.st_mode):
        return Member(
            name, True, 0, "", f"is a link that leads back to {real}, which holds it" if real in above else ""
        )
    return Member(name, False, stat.st_size, name, "" if S_ISREG(stat.st_mode) else "is a pipe, a socket or a device")


@dataclass(frozen=True)
class Links:
    """The links of an archive by name, with their targets, and the other members by name."""

    members: Mapping[str, Member]
    targets: Mapping[str, str]

    def followed(self) -> Iterator[Member]:
        """Yield the target of every link under the link's name: a file, or a folder with all that is below it."""
        below = self._tree()
        for name in self.targets:
            yield from self._walk(name, name, (), below)

    def _tree(self) -> dict[str, set[str]]:
        """Return the names in each folder."""
        below: dict[str, set[str]] = {}
        for name in (*self.members, *self.targets):
            while name:
                folder, _, entry = name.rpartition("/")
                below.setdefault(folder, set()).add(entry)
                name = folder
        for name, member in self.members.items():
            if member.is_folder:
                below.setdefault(name, set())
        return below

    def _walk(self, name: str, place: str, above: tuple[str, ...], below: Mapping[str, set[str]]) -> Iterator[Member]:
        """Yield the members at `place` under another name. `above` holds the folders entered on the way."""
        end = self._end(place)
        if end is None:
            yield Member(name, False, 0, "", f"{NOT_PLAIN} (it leads to {self.targets[place]})")
        elif end in below:
            fault = (
                f"is a link that leads back to {end or 'its top'}, which holds it"
                if self._is_loop(name, end, above)
                else ""
            )
            yield Member(name, True, 0, "", fault)
            for entry in sorted(below[end]) if not fault else ():
                yield from self._walk(f"{name}/{entry}", f"{end}/{entry}".lstrip("/"), (*above, end), below)
        elif end in self.members:
            yield replace(self.members[end], name=name)
        else:
            target = self.targets.get(place, end)
            yield Member(
                name, False, 0, "", f"is a link to {target}, which cannot be followed (it is not in the archive)"
            )

    def _is_loop(self, name: str, end: str, above: tuple[str, ...]) -> bool:
        return end in above or not end or name.startswith(f"{end}/")

    def _end(self, path: str) -> str | None:
        """Follow all links in the path; None if it leaves the archive or never ends."""
        parts, done, hops = path.split("/")[::-1], "", 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return None
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}".lstrip("/")
            target = self.targets.get(step)
            if target is None:
                done = step
            elif target.startswith("/") or (hops := hops + 1) > MAX_HOPS:
                return None
            else:
                parts += target.split("/")[::-1]
        return done


class Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[Member]:
        plain: dict[str, Member] = {}
        targets: dict[str, str] = {}
        for info in self._archive.infolist():
            name, fault = _plain(info.filename), _zip_fault(info)
            if S_ISLNK(info.external_attr >> 16) and not fault and info.file_size <= LONGEST_PATH:
                targets[name] = self._archive.read(info).decode("utf-8", "surrogateescape")
            else:
                plain[name] = Member(name, info.is_dir(), info.file_size, info.filename, fault)
                yield plain[name]
        yield from Links(plain, targets).followed()

    def read(self, member: Member) -> bytes:
        return self._archive.read(str(member.place))


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted; pack it without a password"
    if info.compress_type not in METHODS:
        name = getattr(zipfile, "compressor_names", {}).get(info.compress_type, "unknown")
        return f"is packed with method {info.compress_type} ({name}), which cannot be read here; pack it with deflate"
    return ""


class Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        assert archive.fileobj is not None
        self._archive, self._file = archive, archive.fileobj  # the file is the unpacked stream
        self._last = (-1, b"")  # a file and the links to it are read in a row

    def members(self) -> Iterator[Member]:
        plain: dict[str, Member] = {}
        targets: dict[str, str] = {}
        for info in self._archive:
            name = _plain(info.name)
            if info.issym():
                targets[name] = info.linkname
            elif info.islnk():  # named from the archive's top
                targets[name] = posixpath.relpath(_plain(info.linkname), posixpath.dirname(name) or ".")
            else:
                fault = "" if info.isdir() or (info.isfile() and not info.issparse()) else NOT_PLAIN
                plain[name] = Member(name, info.isdir(), info.size, info.offset_data, fault)
                yield plain[name]
        # tarfile takes a broken header, or the end of the file, for the end of the archive
        if self._bytes(self._archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")
        yield from sorted(Links(plain, targets).followed(), key=lambda member: int(member.place or 0))

    def read(self, member: Member) -> bytes:
        if self._last[0] != member.place:
            self._last = int(member.place), self._bytes(int(member.place), member.size)
        return self._last[1]

    def _bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        data: bytes = self._file.read(size)
        if len(data) != size:
            raise tarfile.ReadError("unexpected end of data")
        return data


@contextmanager
def opened(source: str, path: Path, wanted: Sequence[str]) -> Iterator[Packing]:
    """Open the folder or archive at a path, of which the `wanted` folders are read.

    Errors of a broken one become a ConfigError about data.source=`source`.
    """
    try:
        if path.is_dir():
            yield Folder(path, wanted)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield Zip(archive)
        else:
            with tarfile.open(path) as tar:
                yield Tar(tar)
    except BROKEN as error:
        raise ConfigError(f"data.source={source} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return why it cannot be read: the system refuses, the format is unknown, or it is damaged."""
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; mend that, or give another folder or archive"
    if isinstance(error, (NotImplementedError, tarfile.CompressionError)):
        return f"it is packed in a way that is not known here ({said}); pack it again, as .zip or .tar"
    return f"it is damaged or truncated ({said}); get it anew"


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")
