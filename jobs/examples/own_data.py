"""A dataset and a transform of one's own. From the folder that holds `jobs`:

    raylr train --data.source jobs.examples.own_data:Shapes --epochs 4
    raylr train --data.source jobs.examples.own_data:Shapes --data.options "size=24, noise=40" \
        --data.transform "jobs.examples.own_data:tint, RandomErasing(p=0.25)" --epochs 4

What raylr asks of them is in docs/data.md.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import Dataset

from raylr.training.splitmix import below


class Shapes(Dataset[tuple[Image.Image, int]]):
    """Circles, squares and triangles of any size, place and colour, drawn as they are asked for."""

    classes = ("circle", "square", "triangle")

    def __init__(self, split: str, size: int = 32, noise: int = 25) -> None:
        self.count, self.first = (3000, 0) if split == "train" else (600, 3000)
        self.size, self.noise = size, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        random = np.random.default_rng(self.first + index)  # the same image each time
        label, background, colour = index % 3, *random.integers(0, 256, (2, 3))
        image = Image.new("RGB", (self.size, self.size), tuple(background))
        radius = random.uniform(0.2, 0.4) * self.size
        x, y = random.uniform(radius, self.size - radius, 2)
        draw, turned = ImageDraw.Draw(image), int(random.integers(360))
        if label == 0:
            draw.circle((x, y), radius, fill=tuple(colour))
        else:
            draw.regular_polygon((x, y, radius), 5 - label, turned, fill=tuple(colour))
        noise = random.normal(0, self.noise, (self.size, self.size, 3))
        return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)), label


def tint(images: Tensor, words: Tensor) -> Tensor:
    """Move each channel of an image by up to 32 grey levels: all chance is from the words, one for each example."""
    moved = torch.stack([below(65, words, field) - 32 for field in range(3)], 1)  # [b, 3], from fields of the words
    return (images.int() + moved[:, :, None, None]).clamp(0, 255).to(torch.uint8)
