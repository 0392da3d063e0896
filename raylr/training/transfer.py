"""An LR that was tuned at one width of a model, carried over to another: the rule of each class of parameters.

The width part of CompleteP (Dey et al. 2025, arXiv 2505.01618) and Complete(d)P (Mlodozeniec et al. 2025, arXiv 2512.22382),
which is that of muP (Yang et al. 2022, arXiv 2203.03466, table 3). With m = width / width of the tuning, the LR of
- what reads the image (stem, patches, positions), biases and norms: x 1 with Adam, x m with SGD;
- hidden weights, whose fan-in and fan-out grow: x 1/m with Adam, x 1 with SGD;
- the head: x 1/m, and it begins with weights of a deviation x 1/m, hidden ones of x 1/sqrt(m).
Weight decay is divided by the same factor, so that LR x decay stays. Depth, batch and duration stay as they are, and so do
Adam's eps and the scale of attention.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from raylr.training.vit import ViT

INPUTS = ("stem.", "patches.", "positions")
HEAD = "head."


def lr_scale(name: str, ndim: int, kind: str, m: float) -> float:
    """The factor on the LR of a parameter by its name in a model that ships.

    >>> [lr_scale(name, 2, "adamw", 4.0) for name in ("stem.weight", "blocks.0.qkv.weight", "head.weight")]
    [1.0, 0.25, 0.25]
    """
    if name.startswith(HEAD) and ndim > 1:
        return 1 / m
    grows = 1.0 if name.startswith(INPUTS) or ndim < 2 else 0.0  # with the width in the fan-out alone
    return float(m ** (grows - (0.0 if kind == "sgd" else 1.0)))


def lr_scales(named: Iterable[tuple[str, nn.Parameter]], kind: str, m: float) -> Mapping[str, float]:
    """The factor of each parameter; none where the width is that of the tuning."""
    return {} if m == 1.0 else {name: lr_scale(name, one.ndim, kind, m) for name, one in named}


def begin(model: nn.Module, m: float) -> None:
    """Give a fresh model the weights that it begins with under the rule: the head x 1/sqrt(m) of those of its own fan-in.

    A ViT begins with one standard deviation at every width, so there hidden weights are x 1/sqrt(m) too, and the head x 1/m.
    """
    if m == 1.0:
        return
    same = isinstance(model, ViT)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith(INPUTS):
                parameter.mul_(m ** (-0.5 * (same + name.startswith(HEAD))))
