"""Read image files laid out as train/<class>/* and test/<class>/* in a folder or an archive: one size, grey or RGB."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from raylr.config.fields import is_utf8
from raylr.config.sources import FILE
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo
from raylr.training.data.dataset import SPLITS, Contents, Indices, Piece, Report
from raylr.training.data.decoding import Decoder, First
from raylr.training.data.labelled import is_table, labels_in, ordered
from raylr.training.data.members import ARCHIVES, LARGEST_FILE, Member, Packing, opened

Listed = list[tuple[str, str, Member]]  # split, class, member; a folder that is a class too


@dataclass(frozen=True)
class Pictures:
    """A folder or an archive; `name` is its path as given, or the URI of which `copy` is here, of that digest."""

    name: str
    copy: Path | None = None
    digest: str = ""

    @property
    def path(self) -> Path:
        path = self.copy or Path(self.name.removeprefix(FILE)).expanduser()
        if os.path.islink(path) and not os.path.exists(path):
            raise ConfigError(
                f"data.source={self.name} is a link to {os.readlink(path)}, which cannot be followed; mend the link"
            )
        if not os.path.exists(path):
            raise ConfigError(
                f"data.source={self.name} does not exist; give a folder or an archive, or auto, cifar10 or synthetic"
            )
        if not path.is_dir() and not path.name.endswith(ARCHIVES):
            raise ConfigError(f"data.source={self.name} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
        return path.resolve()

    def _opened(self) -> AbstractContextManager[Packing]:
        """Open the source; only its two splits are walked."""
        return opened(self.name, self.path, SPLITS)

    def key(self) -> str:
        """Return a name made from the path, size and time of change of the archive, or of all files of the folder."""
        path = self.path
        if self.digest:  # its copy may be made anew
            return f"{re.sub('[^A-Za-z0-9_-]+', '-', path.name)}-{self.digest[:12]}"
        files = [path]
        if path.is_dir():
            with self._opened() as packing:
                files = sorted(path / member.name for member in packing.members() if _is_file(member))
        stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
        digest = hashlib.sha256(repr((str(path), stamps)).encode()).hexdigest()
        return f"{re.sub('[^A-Za-z0-9_-]+', '-', path.name)}-{digest[:12]}"

    def describe(self) -> DatasetInfo:
        contents = self.scan()
        num_train, num_test = (len(contents.labels[split]) for split in SPLITS)
        return DatasetInfo(self.name, num_train, num_test, contents.class_names, contents.image_shape)

    def scan(self, report: Report | None = None) -> Contents:
        """List the images in the order of their names, which does not depend on the packing."""
        with self._opened() as packing:
            members = list(self._members(packing))
            tables = [member for member in members if is_table(member.name) and not member.is_folder]
            listed = self._labelled(packing, members, tables) if tables else self._list(members)
            class_names = self._class_names(listed)
            if tables:
                class_names = ordered(class_names)
            number = {name: place for place, name in enumerate(class_names)}
            files = [(split, name, member) for split, name, member in listed if not member.is_folder]
            first = self._decoder.first(files[0][2].name, packing.read(files[0][2]))
        labels: dict[str, Indices] = {}
        places: dict[str, tuple[str, Indices]] = {}
        for split in SPLITS:
            sequence = sorted((name, member.name) for its_split, name, member in files if its_split == split)
            labels[split] = np.array([number[name] for name, _ in sequence], dtype=np.int64)
            places |= {name: (split, np.array([place])) for place, (_, name) in enumerate(sequence)}
        if len(places) < len(files):
            raise self._error("some file is in it twice; pack it anew")
        pieces = partial(self._decode, [member for _, _, member in files], places, first)
        return Contents(class_names, first.shape, labels, pieces)

    def _members(self, packing: Packing) -> Iterator[Member]:
        """Yield the members; a header that promises too much is refused before what it promises is looked for."""
        for member in packing.members():
            if member.size > LARGEST_FILE and not member.fault:
                raise self._error(f"{member.name} has {member.size} bytes; an image has at most {LARGEST_FILE}")
            yield member

    def _labelled(self, packing: Packing, members: list[Member], tables: list[Member]) -> Listed:
        """List the images that tables name, in the folder of a split; others are left out."""
        there = {member.name: member for member in members}
        listed: Listed = []
        for table in tables:
            for name, label in labels_in(table.name, packing.read(table), self._decoder).items():
                member = there.get(name)
                if member is None or member.is_folder:
                    raise self._error(
                        f"{table.name} names {name}, which is not there; add it, or take it out of the table"
                    )
                if member.fault:
                    raise self._error(f"{name} {member.fault}{'' if ';' in member.fault else '; mend or remove it'}")
                if (split := name.partition("/")[0]) not in SPLITS:
                    raise self._error(f"{table.name} names {name}; images are below train/ and test/")
                listed.append((split, label, member))
        for split in SPLITS:
            if split not in {its_split for its_split, _, _ in listed}:
                raise self._error(f"no table names an image below {split}/; add {split}/metadata.csv")
        order = {member.name: place for place, member in enumerate(members)}
        return sorted(listed, key=lambda one: order[one[2].name])  # as they are stored

    def _list(self, members: list[Member]) -> Listed:
        listed: Listed = []
        other = "nothing"
        for member in members:
            if member.fault:
                self._refuse_fault(member)
                continue
            if place := self._place(member):
                listed.append((*place, member))
            elif other == "nothing" and not member.is_folder:
                other = member.name
        for split in SPLITS:
            if split not in {its_split for its_split, _, _ in listed}:
                raise self._error(f"there is no {split}/<class>/<image> in it, but {other}")
        return listed

    def _refuse_fault(self, member: Member) -> None:
        """Refuse an unreadable member in the place of a split, a class or an image."""
        split, *rest = member.name.split("/")
        if split in SPLITS and len(rest) <= 2 - member.is_folder and not _is_hidden(rest):
            raise self._error(f"{member.name} {member.fault}{'' if ';' in member.fault else '; mend or remove it'}")

    def _place(self, member: Member) -> tuple[str, str] | None:
        """Return the split and the class of a member; None outside of the layout."""
        split, *rest = member.name.split("/")
        if split not in SPLITS or not rest or _is_hidden(rest):
            return None
        if len(rest) == 2 - member.is_folder:
            return split, rest[0]
        if len(rest) > 2:
            raise self._error(f"{member.name} lies too deep; images are at {split}/<class>/<image>")
        return None

    def _class_names(self, listed: Listed) -> tuple[str, ...]:
        """Return the classes, sorted. Refuses one without images in both splits."""
        named = {(split, name) for split, name, _ in listed}
        self._refuse_names(sorted({name for _, name in named}))
        filled = {(split, name) for split, name, member in listed if not member.is_folder}
        if empty := sorted(named - filled):
            split, name = empty[0]
            raise self._error(f"the class {name} has no image in {split}/; add some, or remove the class")
        for has, lacks in (SPLITS, SPLITS[::-1]):
            if missing := sorted(name for split, name in named if split == has and (lacks, name) not in named):
                raise self._error(
                    f"the class {missing[0]} is in {has}/ but missing from {lacks}/; each is to be in both"
                )
        return tuple(sorted({name for _, name in named}))

    def _refuse_names(self, names: list[str]) -> None:
        """Refuse a class whose name is not UTF-8, and two names that differ by Unicode normalisation only."""
        known: dict[str, str] = {}
        for name in names:
            if not is_utf8(name):
                raise self._error(f"the name of the class {os.fsencode(name)!r} is not UTF-8; rename its folder")
            earlier = known.setdefault(unicodedata.normalize("NFC", name), name)
            if earlier != name:
                raise self._error(
                    f"two folders of the class {name} differ by Unicode normalisation only, {earlier!a} and "
                    f"{name!a}; rename one as the other"
                )

    def _decode(self, files: list[Member], places: dict[str, tuple[str, Indices]], first: First) -> Iterator[Piece]:
        with self._opened() as packing:
            for file in files:  # as they are stored, for packings that can only be read from front to back
                yield Piece(*places[file.name], self._decoder.pixels(file.name, packing.read(file), first)[None])

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.name)

    def _error(self, text: str) -> ConfigError:
        return self._decoder.error(text)


def _is_file(member: Member) -> bool:
    return not member.is_folder and not member.fault


def _is_hidden(parts: list[str]) -> bool:
    return any(part.startswith(".") for part in parts)
