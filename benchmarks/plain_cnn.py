"""A small convolutional network without any normalisation: what its loss does at a large LR, no BatchNorm hides."""

from itertools import pairwise

from torch import nn


def build(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Three convolutions, each followed by ReLU and a pooling, then the mean over what is left and a linear layer."""
    widths = (image_shape[2], 24, 48, 96)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))
