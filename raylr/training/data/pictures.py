"""Image files laid out as train/<class>/* and test/<class>/* in a folder or an archive: any one size, grey or RGB."""

import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from raylr.errors import ConfigError
from raylr.training.data.dataset import SPLITS, Contents, DatasetInfo, Images, Indices, Piece
from raylr.training.data.members import ARCHIVES, Member, members, readable

Classes = dict[str, list[str]]  # names of files by class
CHANNELS = {"L": 1, "RGB": 3}


@dataclass(frozen=True)
class First:
    """The image that sets what all others must be like."""

    name: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Pictures:
    """A folder or an archive; `name` is its path as given."""

    name: str

    @property
    def path(self) -> Path:
        path = Path(self.name).expanduser()
        if not os.path.exists(path):
            raise ConfigError(
                f"data.source={self.name} does not exist; give a folder or an archive, or auto, cifar10 or synthetic"
            )
        if not path.is_dir() and not path.name.endswith(ARCHIVES):
            raise ConfigError(f"data.source={self.name} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
        return path.resolve()

    def key(self) -> str:
        """An archive is known by its path, size and time of change; a folder by those of all its files."""
        path = self.path
        with readable(self.name):
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
        digest = hashlib.sha256(repr((str(path), stamps)).encode()).hexdigest()
        return f"{re.sub('[^A-Za-z0-9_-]+', '-', path.name)}-{digest[:12]}"

    def describe(self) -> DatasetInfo:
        contents = self.scan()
        num_train, num_test = (len(contents.labels[split]) for split in SPLITS)
        return DatasetInfo(self.name, num_train, num_test, contents.class_names, contents.image_shape)

    def scan(self) -> Contents:
        """List the images; their order is that of their names, whatever they are packed in."""
        found: dict[str, Classes] = {split: defaultdict(list) for split in SPLITS}
        first, other = None, "nothing"
        with readable(self.name):
            for member in members(self.path):
                if (place := self._place(member)) is None:
                    other = other if member.is_folder else member.name
                    continue
                names = found[place[0]][place[1]]  # of a folder too: an empty class is to be seen
                if not member.is_folder:
                    names.append(member.name)
                    first = first or First(member.name, _shape(self._open(member)))
        self._check(found, other)
        assert first is not None
        class_names = tuple(sorted(found["train"]))
        ordered = {
            split: [(label, name) for label, key in enumerate(class_names) for name in sorted(found[split][key])]
            for split in SPLITS
        }
        labels = {split: np.array([label for label, _ in ordered[split]], dtype=np.int64) for split in SPLITS}
        places = {
            name: (split, np.array([place])) for split in SPLITS for place, (_, name) in enumerate(ordered[split])
        }
        if len(places) < sum(map(len, ordered.values())):
            raise self._error("some file is in it twice; pack it anew")
        return Contents(class_names, first.shape, labels, lambda: self._decode(places, first))

    def _place(self, member: Member) -> tuple[str, str] | None:
        """The split and the class that a member belongs to, if any."""
        split, *rest = member.name.split("/")
        if split not in SPLITS or not rest or any(part.startswith(".") for part in rest):
            return None
        if len(rest) == 2 - member.is_folder:
            return split, rest[0]
        if len(rest) > 2:
            raise self._error(f"{member.name} lies too deep; images are at {split}/<class>/<image>")
        return None

    def _check(self, found: dict[str, Classes], other: str) -> None:
        for split in SPLITS:
            if not found[split]:
                raise self._error(f"there is no {split}/<class>/<image> in it, but {other}")
            if empty := [name for name, files in found[split].items() if not files]:
                raise self._error(f"the class {min(empty)} has no image in {split}/; add some, or remove the class")
        for has, lacks in (SPLITS, SPLITS[::-1]):
            if missing := found[has].keys() - found[lacks].keys():
                raise self._error(
                    f"the class {min(missing)} is in {has}/ but missing from {lacks}/; each class is to be in both"
                )

    def _decode(self, places: dict[str, tuple[str, Indices]], first: First) -> Iterator[Piece]:
        with readable(self.name):
            for member in members(self.path):
                if member.name in places:
                    yield Piece(*places[member.name], self._pixels(member, first)[None])

    def _pixels(self, member: Member, first: First) -> Images:
        image = self._open(member)
        if (shape := _shape(image)) != first.shape:
            raise self._error(
                f"{member.name} is {_text(shape)}, but {first.name} is {_text(first.shape)}; all images are of one kind"
            )
        try:
            return np.asarray(image if image.mode in CHANNELS else image.convert("RGB")).reshape(shape)
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise self._error(f"{member.name} does not decode ({error}); remove or replace it") from error

    def _open(self, member: Member) -> Image.Image:
        data = member.read()
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
            raise self._error(f"{member.name} does not decode ({reason}); remove or replace it") from error
        if image.mode not in (*CHANNELS, "P"):
            raise self._error(f"{member.name} is of mode {image.mode}; make it grey or RGB with 8 bits a channel")
        return image

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"data.source={self.name}: {text}")


def _shape(image: Image.Image) -> tuple[int, int, int]:
    return image.height, image.width, CHANNELS.get(image.mode, 3)


def _text(shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    return f"{height} x {width} pixels in {'grey' if channels == 1 else 'RGB'}"
