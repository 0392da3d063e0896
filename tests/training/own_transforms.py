"""Transforms of a user's own: a good one of each kind, and one for each rule that is broken."""

import random

import numpy as np
import torch
from torch import Tensor

from raylr.training.splitmix import below

calls = [0]


def invert(images: Tensor) -> Tensor:
    return 255 - images


def darken_some(images: Tensor, words: Tensor) -> Tensor:
    """Halve the pixels of about half of the images."""
    return torch.where((below(2, words) == 1)[:, None, None, None], images // 2, images)


def tell(images: Tensor, ids: Tensor, epochs: Tensor, seed: int) -> Tensor:
    """Write the example, its epoch and the seed into the first pixels."""
    images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 0, 2] = ids.to(torch.uint8), epochs.to(torch.uint8), seed
    return images


def in_python(images: Tensor) -> Tensor:
    return images + random.randrange(2)


def in_numpy(images: Tensor) -> Tensor:
    return images + int(np.random.rand() * 2)


def in_torch(images: Tensor) -> Tensor:
    return images + (torch.rand(len(images), 1, 1, 1) < 0.5)


def drawn_in_vain(images: Tensor) -> Tensor:
    torch.rand(1)
    return images


def counted(images: Tensor) -> Tensor:
    calls[0] += 1
    return images + calls[0] % 2


def centred(images: Tensor) -> Tensor:
    """By the mean of the batch."""
    return images - int(images.float().mean())


def sorted_first(images: Tensor) -> Tensor:
    """By its place in the batch."""
    images[0] = 0
    return images


def floats(images: Tensor) -> Tensor:
    return images / 255


def smaller(images: Tensor) -> Tensor:
    return images[:, :, 1:]


def nothing(images: Tensor) -> None: ...


def pixels_only(pixels: Tensor) -> Tensor:
    return pixels


def fails(images: Tensor) -> Tensor:
    raise ValueError("no such image")
