"""What a data set is to those who use it, and what a source of images must offer to become one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from raylr.planning.facts import DatasetInfo

Images = npt.NDArray[np.uint8]  # [N, H, W, C]
Indices = npt.NDArray[np.int64]
Report = Callable[[int, int], None]  # images done, of how many
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """The images, mapped from the cache: all ranks of a node share one copy. mean and std are per channel, in 0..1."""

    info: DatasetInfo
    train_images: Images
    test_images: Images
    train_labels: Indices
    test_labels: Indices
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Piece:
    """Some decoded images and their places among those of their split."""

    split: str
    places: Indices
    images: Images


@dataclass(frozen=True)
class Contents:
    """Everything about a source's images but the images. `pieces` decodes them, in any order, each place once."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: Mapping[str, Indices]  # by split, by place
    pieces: Callable[[], Iterator[Piece]]


class Source(Protocol):
    """Where images come from. Whatever is wrong with it is raised as a ConfigError."""

    @property
    def name(self) -> str:
        """As DatasetInfo.source has it."""

    def key(self) -> str:
        """A folder's name that changes whenever the content may have."""

    def describe(self) -> DatasetInfo:
        """All of it, without decoding."""

    def scan(self) -> Contents:
        """List the images; fetches them first where they are not here."""
