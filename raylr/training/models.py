"""The models that ship: convolutional networks of the fast kind, after airbench94 (Jordan 2024, arXiv 2404.00498).

A 2 x 2 stem, three groups that halve the resolution, a max over what is left, a linear layer scaled down. Convolutions
start as the identity on their first channels, so that the signal passes a fresh network.
"""

import difflib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.errors import ConfigError

WIDTHS = {"cnn-small": (32, 64, 128), "cnn-large": (64, 256, 256)}
STEM_CHANNELS = 24
HEAD_SCALE = 1 / 9
SMALLEST_SIDE = 9  # 9 - 1 by the stem, then 4, 2, 1


class Group(nn.Module):
    """Halve the resolution: conv, pool, norm, gelu, conv, norm, gelu."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = _identity_conv(channels_in, channels_out)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = _identity_conv(channels_out, channels_out)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class FastCNN(nn.Module):
    """Logits [b, num_classes] from images [b, channels, H, W] of at least 9 x 9 pixels."""

    def __init__(self, widths: tuple[int, ...], num_classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, STEM_CHANNELS, 2)
        self.groups = nn.Sequential(*map(Group, (STEM_CHANNELS, *widths), widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.stem(x)))
        logits: Tensor = self.head(self.dropout(x.amax((2, 3))))
        return logits * HEAD_SCALE


def build(name: str, num_classes: int, image_shape: tuple[int, int, int], dropout: float = 0.0) -> nn.Module:
    """A fresh model for images of image_shape (H, W, C), from torch's global random generator."""
    if name not in WIDTHS:
        nearest = difflib.get_close_matches(name, WIDTHS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"model.name={name} is none of {', '.join(WIDTHS)}; did you mean {nearest}?")
    height, width, channels = image_shape
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"model.name={name} needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels; "
            f"data.source has {height} x {width}"
        )
    return FastCNN(WIDTHS[name], num_classes, channels, dropout)


def _identity_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:channels_in])
    return conv
