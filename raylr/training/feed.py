"""The images and labels of a data set on the device that trains, and the augmented examples of a place in the stream.

On a GPU both splits are kept in its memory where they fit, the order of an epoch goes there once, and all micro-batches of
a rank are augmented together, ahead of time: an example's augmentation is a function of (seed, epoch, example) alone. On the
CPU each micro-batch is made as it is needed, while it fits into the cache.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raylr.planning.plan import Plan
from raylr.training.augment import augment
from raylr.training.captured import Captured
from raylr.training.data import Dataset
from raylr.training.splitmix import splitmix64, start_state
from raylr.training.stream import ORDER, examples_at
from raylr.training.transforms import Transforms

AHEAD_PIXELS = 2**23  # augmented together: 8,192 images of 32 x 32, whose indices take 64 MiB
SHARE_OF_FREE_MEMORY = 0.25  # that a split may take of a GPU

Array = npt.NDArray[Any]


class Split:
    """Images, uint8 [N, H, W, C], and labels, int64 [N], of one split. `resident`: both on the device, where they fit."""

    def __init__(self, images: Array, labels: Array, device: torch.device) -> None:
        self.images, self.labels, self.device = images, labels, device
        self.resident: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda" and images.nbytes < SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
            self.resident = _copied(images, device), _copied(labels, device)

    def at(self, where: slice | Array) -> tuple[Tensor, Tensor]:
        """Those of a slice or of indices on the host, on the device."""
        if self.resident is None:
            return moved(self.images[where], self.device), moved(self.labels[where], self.device)
        if isinstance(where, slice):
            return self.resident[0][where], self.resident[1][where]
        return self.chosen(moved(where, self.device))

    def chosen(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Those of indices on the device, where the split is resident."""
        assert self.resident is not None
        images, labels = self.resident
        return images.index_select(0, ids), labels.index_select(0, ids)


class Feed:
    """Augmented training examples of a rank, uint8 images and labels, by update and micro-batch."""

    def __init__(self, plan: Plan, dataset: Dataset, device: torch.device, capture: bool) -> None:
        self.plan, self.mean, self.device = plan, dataset.mean, device
        self.split = Split(dataset.train_images, dataset.train_labels, device)
        height, width = dataset.train_images.shape[1:3]
        self.at_once = 1 if device.type == "cpu" else max(1, AHEAD_PIXELS // (height * width * plan.micro_size))
        self.transforms = Transforms(plan.transform, plan.seed)
        # Python of one's own may do other things in another call, of which a recording knows nothing
        records = capture and self.split.resident is not None and not plan.transform
        self._augmented = Captured("augmentation", self._augment_resident, records)
        self._orders: dict[int, Tensor] = {}
        self._ready: tuple[int, int, int] | None = None  # position, first micro-batch and end of what is in _examples
        self._examples: tuple[Tensor, ...] = ()

    def micro_batch(self, position: int, index: int, own: range) -> tuple[Tensor, Tensor]:
        """Images and labels of micro-batch `index` of the update at `position`, one of the rank's `own`."""
        first = index - (index - own.start) % self.at_once
        self._make(position, first, own)
        size = self.plan.micro_size
        part = slice((index - first) * size, (index - first + 1) * size)
        images, labels = self._examples
        return images[part], labels[part]

    def ahead(self, position: int, own: range) -> None:
        """Begin to make the first examples of the update at `position`, while the GPU would have nothing to do."""
        if self.at_once > 1 and own:
            self._make(position, own.start, own)

    def of(self, ids: Array, epochs: Array) -> tuple[Tensor, Tensor]:
        """Augmented images and labels of these examples in these epochs."""
        images, labels = self.split.at(ids)
        return self._augment(images, moved(ids, self.device), moved(epochs, self.device)), labels

    def _make(self, position: int, first: int, own: range) -> None:
        end = min(first + self.at_once, own.stop)
        if self._ready == (position, first, end):
            return
        self._ready = None
        size = self.plan.micro_size
        self._examples = self._examples_at(position + first * size, (end - first) * size)
        self._ready = position, first, end

    def _examples_at(self, start: int, count: int) -> tuple[Tensor, ...]:
        if self.split.resident is None:
            return self.of(*examples_at(self.plan.seed, start, count, self.plan.num_train))
        return self._augmented(*self._on_device(start, count))

    def _on_device(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """As `examples_at` gives them, from the orders on the device."""
        ids, epochs = [], []
        while count:
            epoch, first = divmod(start, self.plan.num_train)
            part = self._order(epoch)[first : first + count]
            ids.append(part)
            epochs.append(torch.full_like(part, epoch))
            start, count = start + len(part), count - len(part)
        return torch.cat(ids), torch.cat(epochs)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known >= epoch - 1}
            self._orders[epoch] = permutation_on(self.device, self.plan.seed, epoch, self.plan.num_train)
        return self._orders[epoch]

    def _augment_resident(self, ids: Tensor, epochs: Tensor) -> tuple[Tensor, ...]:
        images, labels = self.split.chosen(ids)
        return self._augment(images, ids, epochs), labels

    def _augment(self, images: Tensor, ids: Tensor, epochs: Tensor) -> Tensor:
        plan = self.plan
        varied = augment(images, ids, epochs, plan.seed, plan.flip, plan.crop_padding, plan.cutout, self.mean)
        return self.transforms(varied, ids, epochs)


def permutation_on(device: torch.device, seed: int, epoch: int, num_examples: int) -> Tensor:
    """What `permutation` gives, made on the device; words that never tie have one order. The CPU goes on meanwhile."""
    words = splitmix64(start_state(seed, ORDER, epoch), torch.arange(num_examples, device=device))
    return words.argsort()


def moved(array: Array, device: torch.device) -> Tensor:
    """The array on `device`: itself on the CPU, else by a copy from pinned memory that nothing waits for."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _copied(array: Array, device: torch.device) -> Tensor:
    """A copy on `device` of an array that may be a file, read-only and large."""
    return torch.from_numpy(np.array(array)).to(device)
