"""Make procedural images where no others are available: ten classes of textures that a small CNN learns gradually.

An image shows one of its class's textures, shifted and mirrored, mixed with one of another class, under changing
contrast, brightness and noise. Integers only, so that every machine makes the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from raylr.planning.facts import DatasetInfo
from raylr.training.data.dataset import SPLITS, Contents, Images, Indices, Piece, Report
from raylr.training.splitmix import below, splitmix64, start_state

VERSION = 1  # to be raised with every change of the images
SIDE, NUM_CLASSES, TEXTURES = 32, 10, 8
COUNTS = {"train": 10_000, "test": 2_000}
CHUNK = 500
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Synthetic:
    """10,000 training and 2,000 test images of 32 x 32 pixels in RGB."""

    name: str = "synthetic"

    def key(self) -> str:
        return f"synthetic-{VERSION}"

    def describe(self) -> DatasetInfo:
        return DatasetInfo(self.name, COUNTS["train"], COUNTS["test"], *_outline())

    def scan(self, report: Report | None = None) -> Contents:
        labels = {split: np.arange(COUNTS[split]) % NUM_CLASSES for split in SPLITS}
        return Contents(*_outline(), labels, _pieces)


def _outline() -> tuple[tuple[str, ...], tuple[int, int, int]]:
    return tuple(f"texture{number}" for number in range(NUM_CLASSES)), (SIDE, SIDE, 3)


def _pieces() -> Iterator[Piece]:
    for split in SPLITS:
        for start in range(0, COUNTS[split], CHUNK):
            places = np.arange(start, min(start + CHUNK, COUNTS[split]))
            yield Piece(split, places, draw(SPLITS.index(split), places))


def draw(stream: int, places: Indices) -> Images:
    """Draw the images of these places; the class of a place is its last digit."""
    first, second, third, noise = (splitmix64(start_state(VERSION, 1, stream, number), places) for number in range(4))
    own = places % NUM_CLASSES
    other = (own + 1 + below(NUM_CLASSES - 1, third, 0)) % NUM_CLASSES
    share = 68 + below(44, third, 1)  # of 128, for the own class
    mixed = _patch(own, first) * share[:, None, None, None] + _patch(other, second) * (128 - share)[:, None, None, None]
    contrast = (64 + below(65, third, 2))[:, None, None, None]
    brightness = (96 + below(65, third, 3))[:, None, None, None]
    values = (mixed * contrast >> 14) + brightness + _noise(noise)
    return values.clip(0, 255).astype(np.uint8)


def _patch(classes: Integers, words: Integers) -> npt.NDArray[np.int32]:
    """Draw a texture of each class, shifted around its edges and mirrored: [b, H, W, 3] in -128..127."""
    texture = below(TEXTURES, words, 0)
    rows = (np.arange(SIDE) + below(SIDE, words, 1)[:, None]) % SIDE
    columns = (np.arange(SIDE) * (1 - 2 * below(2, words, 3))[:, None] + below(SIDE, words, 2)[:, None]) % SIDE
    places = ((classes * TEXTURES + texture)[:, None, None] * SIDE + rows[:, :, None]) * SIDE + columns[:, None, :]
    pixels: npt.NDArray[np.int32] = _textures().reshape(-1, 3)[places]
    return pixels


@cache
def _textures() -> npt.NDArray[np.int32]:
    """[classes, textures, H, W, 3] in -128..127: a coarse and a fine field of random values, without seams."""
    coarse, fine = (_field(cells, number) for number, cells in enumerate((8, 16)))
    return ((coarse + fine) // 2).astype(np.int32)


def _field(cells: int, number: int) -> Integers:
    """Draw random values on cells x cells points of a torus, with linear interpolation between them."""
    shape = (NUM_CLASSES, TEXTURES, cells, cells, 3)
    words = splitmix64(start_state(VERSION, 0, number), np.arange(np.prod(shape))).reshape(shape)
    values = below(256, words) - 128
    step = SIDE // cells
    for axis in (2, 3):
        fraction = (np.arange(SIDE) % step).reshape([-1 if place == axis else 1 for place in range(5)])
        here, there = np.repeat(values, step, axis), np.repeat(np.roll(values, -1, axis), step, axis)
        values = (here * (step - fraction) + there * fraction) // step
    return values


def _noise(words: Integers) -> npt.NDArray[np.int32]:
    """Draw triangular noise in -32..30 for each pixel and channel, from one word per eight of them."""
    count = SIDE * SIDE * 3 // 8
    bits = splitmix64(words[:, None], np.arange(count)[None, :]).astype("<i8").view(np.uint8)
    return ((bits >> 4).astype(np.int32) + (bits & 15) - 16).reshape(len(words), SIDE, SIDE, 3) * 2
