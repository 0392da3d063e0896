"""Two small networks beside those that come along: one without any normalisation, and a transformer with LayerNorm."""

from itertools import pairwise

import torch
from torch import Tensor, nn

PATCH, WIDTH, HEADS, DEPTH = 4, 48, 3, 3


def plain_cnn(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Three convolutions, each followed by ReLU and a pooling, then the mean over what is left and a linear layer."""
    widths = (image_shape[2], 24, 48, 96)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels through three blocks of width 48, norms first; their mean goes to a linear layer."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(height // PATCH * (width // PATCH), WIDTH))
        block = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, DEPTH, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return logits


def transformer(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Transformer(num_classes, image_shape)
