"""Muon for convolutions: torch's takes matrices only, so each filter bank is shown to it as one.

Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. That of a convolution is [filters, everything else].
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer


class FilterMuon(Optimizer):
    """torch's Muon over parameters of two or more dimensions; its state and groups are those of the parameters."""

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.95, nesterov: bool = True, weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient. Views are made anew each time, for parameters that have moved."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            settings = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
            muon = Muon([_matrix(parameter, parameter) for parameter in moved], **settings)
            for parameter, matrix in zip(moved, muon.param_groups[0]["params"], strict=True):
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                matrix.grad = _matrix(parameter.grad, parameter)
                muon.state[matrix]["momentum_buffer"] = _matrix(state["momentum_buffer"], parameter)
            muon.step()


def _matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The parameter, or a tensor laid out in memory as it is, as a view [first dimension, all others].

    Columns stand in the order of the memory, which channels_last changes; Muon gives the same for any order.
    """
    others = sorted(range(1, parameter.ndim), key=lambda dim: -parameter.stride()[dim])
    return tensor.detach().permute(0, *others).view(len(parameter), -1)
