"""The Frechet distance between real and made images in a space of features that needs no downloaded weights.

As the FID (Heusel et al. 2017), but the features are those of a small network of fixed random weights, the same for every run,
seed and trial, and learned from nothing. Random embeddings rank generators much as trained ones do (Naeem et al. 2020), and
favour none that has seen the data of a trained one. Distances compare runs on one data set; they are no FIDs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FILTERS = (16, 32)  # of the two layers
SEED = 0  # of the features, whatever the seed of the run
SMALLEST = 1e-6  # a feature that varies less is left as it is


class Features:
    """32 features of images [b, channels, H, W] in -1..1: mean and deviation over the image of each second-layer filter."""

    def __init__(self, channels: int) -> None:
        generator = torch.Generator().manual_seed(SEED)
        first, second = FILTERS
        self.weights = [
            torch.randn(first, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5,
            torch.randn(second // 2, first, 3, 3, generator=generator) / (9 * first / 2) ** 0.5,
        ]

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 [b, 32], outside autocast."""
        with torch.autocast(images.device.type, enabled=False):
            hidden = images.float()
            for weight in self.weights:
                hidden = F.relu(F.conv2d(hidden, weight.to(images.device), stride=2, padding=1))
            maps = hidden.flatten(2)
            return torch.cat([maps.mean(2), maps.std(2, correction=0)], dim=1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of the features and of their products over the examples, float64: [d] and [d, d]."""
    values = features.double()
    return values.sum(0), values.mT @ values


def distance(real: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor], count: int) -> float:
    """The squared Frechet distance of two Gaussians with the moments of so many examples each.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), each feature in units of its deviation over the real images.
    """
    (mean, cov), (other_mean, other_cov) = (_gaussian(*sums, count) for sums in (real, made))
    units = cov.diagonal().clamp(min=0).sqrt()
    units = torch.where(units > SMALLEST, units, torch.ones_like(units))
    scale = units[:, None] * units[None, :]
    cov, other_cov = cov / scale, other_cov / scale
    root = _root(cov)
    shared = torch.linalg.eigvalsh(root @ other_cov @ root).clamp(min=0).sqrt().sum()
    apart = ((mean - other_mean) / units).square().sum()
    return float(apart + cov.trace() + other_cov.trace() - 2 * shared)


def _gaussian(sums: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mean = sums / count
    return mean, products / count - mean[:, None] * mean[None, :]


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.mT
    return root
