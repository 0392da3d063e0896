"""A model small enough for thousands of updates in seconds."""

from torch import Tensor, nn


class Tiny(nn.Module):
    """A linear layer over normalised pixels."""

    def __init__(self, num_classes: int, num_pixels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_pixels)
        self.head = nn.Linear(num_pixels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x.flatten(1)))
        return logits


def build(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    height, width, channels = image_shape
    return Tiny(num_classes, height * width * channels)


class Pooled(nn.Module):
    """The end of the networks that ship: normalised, curved, the largest value of each channel, a linear layer."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(channels, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x.flatten(2).mT).mT  # [b, 8, pixels]
        logits: Tensor = self.head(nn.functional.gelu(self.norm(x)).amax(2))
        return logits


def pooled(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Pooled(num_classes, image_shape[2])
