"""The network of airbench94 (Jordan 2024, arXiv 2404.00498), whose record of training on CIFAR-10 others are measured by.

Beside the other small networks here: a first layer that whitens, BatchNorm without a trained weight and with an average over
fewer updates, a last layer of unit variance, and logits divided by its inputs. 1.97 million weights, 94 % in 8 epochs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.training.whitening import Whitening

WIDTHS = (64, 256, 256)
NORM_MOMENTUM, NORM_EPS = 0.4, 1e-12  # torch's momentum: the share of the newest


class Group(nn.Module):
    """Halve the resolution: conv, pool, norm, gelu, conv, norm, gelu."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = identity_conv(channels_in, channels_out), _norm(channels_out)
        self.conv2, self.norm2 = identity_conv(channels_out, channels_out), _norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Logits [b, num_classes] from images [b, channels, H, W] of at least 9 x 9 pixels."""

    def __init__(self, num_classes: int, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.whiten = Whitening(channels)
        self.groups = nn.Sequential(*map(Group, (self.whiten.out_channels, *WIDTHS), WIDTHS))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTHS[-1], num_classes, bias=False)
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.whiten(x)))
        logits: Tensor = self.head(self.dropout(x.amax((2, 3))))
        return logits / WIDTHS[-1]


def identity_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A convolution of 3 x 3 without bias whose first filters pass their channel on."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:channels_in])
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm
