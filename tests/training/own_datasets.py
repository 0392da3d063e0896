"""Datasets of a user's own, in every shape that is taken, and in those that are refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

COUNTS = {"train": 12, "test": 4}


def pixels(index: int, split: str) -> np.ndarray:
    """An image [4, 5, 3] of which each pixel tells the example, its row and its column."""
    rows, columns = np.mgrid[:4, :5]
    return np.stack((np.full((4, 5), index + 100 * (split == "test")), rows, columns), 2).astype(np.uint8)


class Photos(Dataset):
    """Two classes in turn, as PIL images."""

    classes = ("cat", "dog")

    def __init__(self, split: str, kind: str = "pil", count: int | None = None) -> None:
        self.split, self.kind = split, kind
        self.count = COUNTS[split] if count is None else count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        array = pixels(index, self.split)
        made = {
            "pil": lambda: Image.fromarray(array),
            "tensor": lambda: torch.from_numpy(array).permute(2, 0, 1),
            "array": lambda: array,
            "planes": lambda: array.transpose(2, 0, 1),
            "grey": lambda: array[:, :, 0],
        }
        return made[self.kind](), index % 2


class Numbered(Photos):
    """Without names of its classes; its labels are tensors."""

    classes = None

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], torch.tensor(index % 3)


class LikeTorchvision(Photos):
    """With torchvision's arguments, and its files under root."""

    def __init__(self, root: str, train: bool = True, transform: Any = None, download: bool = False) -> None:
        super().__init__("train" if train else "test")
        assert download
        assert transform is None
        self.data = np.load(Path(root) / "data.npy")

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.fromarray(self.data[index]), index % 2


def factory(split: str, **more: Any) -> Photos:
    return Photos(split, kind=more["kind"])


class Endless(IterableDataset):
    def __init__(self, split: str) -> None: ...

    def __iter__(self) -> Any:
        yield pixels(0, "train"), 0


class Empty(Photos):
    def __len__(self) -> int:
        return 0


class OneSplit(Dataset):
    def __init__(self, root: str) -> None: ...


class Unequal(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.new("RGB", (5, 4 + (index == 7))), index % 2


class Floats(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(index)), index % 2


class Named(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], "cat"


class Shares(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], 0.5


class Keys(Photos):
    def __getitem__(self, index: int) -> Any:
        return {"image": super().__getitem__(index)[0]}


class Beyond(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], 2 * (index == 3)


class Gap(Numbered):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], 2 * (index % 2)


class Raises(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index == 5:
            raise FileNotFoundError("5.png is gone")
        return super().__getitem__(index)


class Random(Photos):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.new("RGB", (5, 4), (random.randrange(256), 0, index)), index % 2
