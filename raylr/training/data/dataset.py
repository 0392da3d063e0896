"""Define a data set, and the interface of a source of images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from raylr.planning.facts import DatasetInfo

Images = npt.NDArray[np.uint8]  # [N, H, W, C]
Indices = npt.NDArray[np.int64]
SPLITS = ("train", "test")
NUM_FEW = 64


class Report(Protocol):
    """Hears how far the preparation of the data is."""

    def __call__(self, done: int, total: int, what: str = "decoding images") -> None: ...


@dataclass(frozen=True)
class Dataset:
    """The images, mapped from the cache: all ranks of a node share one copy. mean and std are per channel, in 0..1.

    Before the split the training images are all of them, those that are held out among them.
    """

    info: DatasetInfo
    train_images: Images
    test_images: Images
    train_labels: Indices
    test_labels: Indices
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whole: "Dataset | None" = None  # of which this is what a run with a validation split sees


def noise_like(image_shape: tuple[int, int, int], class_names: tuple[str, ...]) -> Dataset:
    """Return a few images of noise of all classes in turn, the same in both splits: enough to try a program on."""
    images = np.random.default_rng(0).integers(0, 256, (NUM_FEW, *image_shape), dtype=np.uint8)
    labels = np.arange(NUM_FEW, dtype=np.int64) % len(class_names)
    info = DatasetInfo("noise", NUM_FEW, NUM_FEW, class_names, image_shape)
    channels = image_shape[2]
    return Dataset(info, images, images, labels, labels, (0.5,) * channels, (0.25,) * channels)


@dataclass(frozen=True)
class Piece:
    """Some decoded images and their places among those of their split."""

    split: str
    places: Indices
    images: Images


@dataclass(frozen=True)
class Contents:
    """The outline of a source: all but the images, which `pieces` decodes in any order, each place once."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: Mapping[str, Indices]  # by split, by place
    pieces: Callable[[], Iterator[Piece]]


class Source(Protocol):
    """A source of images. Every fault of it raises ConfigError."""

    @property
    def name(self) -> str:
        """The name in DatasetInfo.source."""

    def key(self) -> str:
        """Return a folder name that changes when the content may have changed."""

    def scan(self, report: Report | None = None) -> Contents:
        """List the images; downloads or reads them first where that is needed, and reports it."""


@runtime_checkable
class Listed(Source, Protocol):
    """A source that can be described before it is read."""

    def describe(self) -> DatasetInfo:
        """Describe the whole source without decoding it."""
