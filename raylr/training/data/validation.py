"""Hold out a part of the training images: drawn by the seed, the classes in their proportions."""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from raylr.errors import ConfigError
from raylr.training.data.cache import balanced_order
from raylr.training.data.dataset import Dataset, Images, Indices
from raylr.training.splitmix import start_state

VALIDATION = 22  # purpose of random numbers, beside those of stream.py, augment.py and transforms.py


class Rows:
    """Some images of a mapped array, by their places in it: no copy is made until they are looked at."""

    def __init__(self, images: Images, places: Indices) -> None:
        self._images, self._places = images, places
        self.shape = (len(places), *images.shape[1:])
        self.nbytes = len(places) * images[:1].nbytes

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, where: Any) -> Images:
        found: Images = self._images[self._places[where]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Images:
        return self._images[self._places]


def num_held_out(share: float | None, num_train: int, num_classes: int) -> int:
    """The number of images that are held out. ConfigError where a class would have none of them.

    >>> num_held_out(0.1, 5000, 10)
    500
    """
    count = round((share or 0.0) * num_train)
    if share and count < num_classes:
        least = next(percent for percent in range(1, 101) if round(percent / 100 * num_train) >= num_classes) / 100
        raise ConfigError(
            f"data.validation={share:g} holds out {count} of {num_train} training images, fewer than the {num_classes} "
            f"classes; use {least:g}, or more training images"
        )
    return count


def with_validation(dataset: Dataset, count: int, seed: int) -> Dataset:
    """The data set as a run sees it until its end: trained without the `count` images that are held out, and tested on them.

    Which they are depends on the seed and the labels alone. Without any, or split already, the data set is given back as it is.
    """
    if not count or dataset.whole is not None:
        return dataset
    drawn = balanced_order(dataset.train_labels, start_state(seed, VALIDATION))
    held_out, kept = np.sort(drawn[:count]), np.sort(drawn[count:])
    return replace(
        dataset,
        train_images=cast(Images, Rows(dataset.train_images, kept)),
        train_labels=dataset.train_labels[kept],
        test_images=cast(Images, Rows(dataset.train_images, held_out)),
        test_labels=dataset.train_labels[held_out],
        whole=dataset,
    )
