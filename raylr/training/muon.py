"""Muon for convolutions: torch's takes matrices only, so each filter bank is shown to it as one.

Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. That of a convolution is [filters, everything else].
On a GPU the directions of all matrices are one CUDA graph: matrices of one shape are multiplied together, other shapes beside
them. Some 30 small kernels each would take longer to launch than to run. The LR is no part of it, so it holds for the whole
run.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer

from raylr.training.captured import Captured, side_by_side

A, B, C, EPS = 3.4445, -4.7750, 2.0315, 1e-7  # torch.optim.Muon's defaults, from Jordan et al. 2024


class FilterMuon(Optimizer):
    """torch's Muon over parameters of two or more dimensions; its state and groups are those of the parameters."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        normalise: bool = False,
    ) -> None:
        """`normalise`: before its update a weight of n filters is scaled to the norm sqrt(n), as in airbench (Jordan 2024)."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})
        self.ns_steps, self.normalise = ns_steps, normalise
        self.directions = Captured("Muon", partial(_directions, ns_steps), wanted=True)  # asked on a GPU only

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient. Views are made anew each time, for parameters that have moved."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            if self.normalise:
                _normalise(moved)
            if moved[0].is_cuda:
                self._step_on_gpu(group, moved)
                continue
            settings = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
            muon = Muon([_matrix(parameter, parameter) for parameter in moved], ns_steps=self.ns_steps, **settings)
            for parameter, matrix in zip(moved, muon.param_groups[0]["params"], strict=True):
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                matrix.grad = _matrix(parameter.grad, parameter)
                muon.state[matrix]["momentum_buffer"] = _matrix(state["momentum_buffer"], parameter)
            muon.step()

    def _step_on_gpu(self, group: dict[str, Any], moved: list[Tensor]) -> None:
        """The same step in fewer launches; its last bits may differ from those of torch's Muon."""
        momentum, lr = group["momentum"], group["lr"]
        for parameter in moved:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        matrices = [_matrix(parameter, parameter) for parameter in moved]
        gradients = [_matrix(parameter.grad, parameter) for parameter in moved if parameter.grad is not None]
        buffers = [_matrix(self.state[parameter]["momentum_buffer"], parameter) for parameter in moved]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum) if group["nesterov"] else tuple(buffers)
        directions = self.directions(*updates)
        torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
        torch._foreach_add_(matrices, list(directions), alpha=lr)


def _normalise(parameters: list[Tensor]) -> None:
    """Scale each parameter of n filters to the norm sqrt(n): 1 a filter, on average."""
    for parameter, norm in zip(parameters, torch._foreach_norm(parameters), strict=True):
        parameter.mul_(len(parameter) ** 0.5 / norm)


def _directions(ns_steps: int, *updates: Tensor) -> tuple[Tensor, ...]:
    """What torch's Muon adds to each matrix at an LR of 1; matrices of one shape, or of its transpose, together."""
    alike: dict[tuple[int, int], list[int]] = {}
    for place, update in enumerate(updates):
        rows, columns = update.shape
        alike.setdefault((min(rows, columns), max(rows, columns)), []).append(place)
    wide = [torch.stack([_wide(updates[place]) for place in places]).to(torch.bfloat16) for places in alike.values()]
    orthogonal = side_by_side([partial(_orthogonal, matrices, ns_steps) for matrices in wide])
    found = {
        place: one
        for places, matrices in zip(alike.values(), orthogonal, strict=True)
        for place, one in zip(places, matrices.unbind(), strict=True)
    }
    return tuple(_wide(found[place], update).to(update.dtype) * -_scale(update) for place, update in enumerate(updates))


def _orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """About U V^T of each matrix U S V^T of [n, rows, columns], rows <= columns, by torch's Newton and Schulz."""
    x: Tensor = matrices / torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x


def _wide(matrix: Tensor, like: Tensor | None = None) -> Tensor:
    """Transposed where it, or the matrix that it is the direction of, has more rows than columns."""
    rows, columns = (matrix if like is None else like).shape
    return matrix.T if rows > columns else matrix


def _scale(matrix: Tensor) -> float:
    """What Muon multiplies the LR by: a tall matrix moves further."""
    return math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))


def _matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The parameter, or a tensor laid out in memory as it is, as a view [first dimension, all others].

    Columns stand in the order of the memory, which channels_last changes; Muon gives the same for any order.
    """
    others = sorted(range(1, parameter.ndim), key=lambda dim: -parameter.stride()[dim])
    return tensor.detach().permute(0, *others).view(len(parameter), -1)
