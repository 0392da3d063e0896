"""Read a dataset of one's own: a map-style torch Dataset of (image, label), made once for each split.

It is called with what it takes by name of split (train or test), train (True or False), root, download and data.options,
so the datasets of torchvision go as they are. Its code alone is known before it is read.
"""

import contextlib
import hashlib
import mmap
import operator
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from raylr.config.own_files import own_files
from raylr.config.user_code import call_with, import_object, parameters
from raylr.errors import ConfigError
from raylr.training.data.classes import numbered
from raylr.training.data.dataset import SPLITS, Contents, Images, Indices, Piece, Report
from raylr.training.data.decoding import CHANNELS, Decoder, First, Shape

CHUNK = 1000
NAMES = ("classes", "class_names")


@dataclass(frozen=True)
class OwnData:
    """`name` is package.module:Dataset or FILE.py:Dataset; `options` are more arguments, as data.options has them."""

    name: str
    root: str
    cache_dir: str
    options: tuple[tuple[str, Any], ...] = ()

    def key(self) -> str:
        """Return a name made from its own source files, or the version of its package, its options and its root."""
        module, _, called = self.name.rpartition(":")
        files = sorted((path.name, path.read_bytes()) for path in own_files(self.name, Path.cwd()).values())
        version = ""
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(module.partition(".")[0])
        place = Path(module).name if module.endswith(".py") else module
        root = str(Path(self.root).expanduser().resolve())
        told = repr((place, called, files, version, self.options, root))
        return f"{re.sub('[^A-Za-z0-9_-]+', '-', called)}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def scan(self, report: Report | None = None) -> Contents:
        """Read all examples, in the order of the dataset, into a file that is gone with the process."""
        datasets = {split: self._made(split) for split in SPLITS}
        counts = {split: self._length(split, dataset) for split, dataset in datasets.items()}
        first = self._first(datasets)
        spool = tempfile.TemporaryFile(dir=Path(self.cache_dir).expanduser())  # noqa: SIM115  # until `pieces` is read
        labels, total = dict[str, Indices](), sum(counts.values())
        for split, dataset in datasets.items():
            before = sum(map(len, labels.values()))
            labels[split] = np.empty(counts[split], dtype=np.int64)
            for index in range(counts[split]):
                pixels, labels[split][index] = self._example(split, dataset, index, first)
                spool.write(pixels.data)
                if report is not None and (index % 500 == 499 or before + index + 1 == total):
                    report(before + index + 1, total, f"reading {self.name.rpartition(':')[2]}")
        spool.flush()
        class_names, numbers = numbered(labels, self._told_names(datasets["train"]), self._decoder)
        return Contents(class_names, first.shape, numbers, partial(_pieces, spool, counts, first.shape))

    def _made(self, split: str) -> Any:
        """Return the dataset of a split."""
        field = f"data.source={self.name}"
        made = import_object(self.name, "data.source")
        if not callable(made):
            raise ConfigError(f"{field} is a {type(made).__name__}; give a class or a function that makes a dataset")
        options = dict(self.options)
        taken = parameters(made)
        if taken is None:  # any name
            return call_with(made, {"split": split, "root": self.root, **options}, field)
        if not {"split", "train"} & taken.keys():
            raise ConfigError(f"{field} takes neither split nor train, so it cannot tell the two; give it one of them")
        if unknown := sorted(options.keys() - taken.keys()):
            raise ConfigError(f"data.options: {field} takes no {unknown[0]}; it takes {', '.join(taken)}")
        offered = {"split": split, "train": split == "train", "root": self.root, "download": True}
        return call_with(made, {**offered, **options}, field)

    def _length(self, split: str, dataset: Any) -> int:
        field = f"data.source={self.name}"
        try:
            count = len(dataset)
        except (TypeError, NotImplementedError):
            raise ConfigError(
                f"{field} has no length; give a map-style torch Dataset, which has __len__ and __getitem__"
            ) from None
        except Exception as error:
            raise ConfigError(f"{field} tells no length of {split}: {type(error).__name__}: {error}") from error
        if count < 1:
            raise ConfigError(f"{field} has no example in {split}; it is called with split={split}")
        return int(count)

    def _first(self, datasets: dict[str, Any]) -> First:
        """Return the first image, once both splits are found to give the same image each time."""
        for split, dataset in datasets.items():
            once, again = (self._example(split, dataset, 0, None)[0] for _ in range(2))
            if not np.array_equal(once, again):
                raise self._decoder.error(
                    f"example 0 of {split} is another image each time; leave random transforms out of the dataset and "
                    "give them as data.transform"
                )
        height, width, channels = self._example("train", datasets["train"], 0, None)[0].shape
        return First("example 0 of train", (height, width, channels))

    def _example(self, split: str, dataset: Any, index: int, first: First | None) -> tuple[Images, int]:
        name = f"example {index} of {split}"
        item = call_with(lambda: dataset[index], {}, f"data.source={self.name}: {name}")
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise self._decoder.error(f"{name} is {_kind(item)}; give (image, label)")
        image, label = item
        try:
            number = operator.index(label)
        except TypeError:
            raise self._decoder.error(f"the label of {name} is {_kind(label)}; give a whole number from 0") from None
        if isinstance(image, Image.Image):
            return np.ascontiguousarray(self._decoder.of_image(name, image, first)), number
        return self._of_array(name, image, first), number

    def _of_array(self, name: str, image: Any, first: First | None) -> Images:
        """Return the pixels [H, W, C] of a tensor [C, H, W] or an array [H, W, C], or of one without channels."""
        is_tensor = hasattr(image, "detach")
        array = image.detach().cpu().numpy() if is_tensor else image
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise self._decoder.error(
                f"the image of {name} is {_kind(image)}; give a PIL image, or uint8 of [C, H, W] or [H, W, C]: raylr "
                "normalises by itself, so leave ToTensor and Normalize out"
            )
        if array.ndim == 2:
            array = array[:, :, None]
        elif _is_channels_first(array.shape, is_tensor):
            array = array.transpose(1, 2, 0)
        if array.shape[2] not in CHANNELS.values():
            raise self._decoder.error(f"the image of {name} is {_kind(image)}; give 1 channel or 3")
        height, width, channels = array.shape
        self._decoder.check_shape(name, (height, width, channels), first)
        return np.ascontiguousarray(array)

    def _told_names(self, dataset: Any) -> tuple[str, ...]:
        """Return the names of its `classes` or `class_names`, or numbers for its `num_classes`; none of others."""
        for attribute in NAMES:
            told = getattr(dataset, attribute, None)
            if isinstance(told, Sequence) and not isinstance(told, str) and told:
                return tuple(map(str, told))
        count = getattr(dataset, "num_classes", None)
        return tuple(map(str, range(count))) if isinstance(count, int) and count > 0 else ()

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.name)


def _is_channels_first(shape: Sequence[int], is_tensor: bool) -> bool:
    """Return True for [C, H, W]: what a tensor is, and an array whose last side is no number of channels."""
    known = CHANNELS.values()
    first, last = shape[0] in known, shape[2] in known
    return first and (is_tensor or not last)


def _kind(value: Any) -> str:
    """Return what a value is, in a few words."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
    name = type(value).__name__
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _pieces(spool: IO[bytes], counts: dict[str, int], shape: Shape) -> Iterator[Piece]:
    images = np.frombuffer(mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ), np.uint8).reshape(-1, *shape)
    offset = 0
    for split, count in counts.items():
        for start in range(0, count, CHUNK):
            places = np.arange(start, min(start + CHUNK, count))
            yield Piece(split, places, images[offset + places[0] : offset + places[-1] + 1])
        offset += count
