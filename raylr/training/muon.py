"""Muon for convolutions: torch's takes matrices only, so each filter bank is shown to it as one.

Muon (Jordan et al. 2024) makes the update of a matrix orthogonal. That of a convolution is [filters, everything else].
On a GPU the directions of all matrices are one CUDA graph: some 30 small kernels each, which take longer to launch than to
run. The LR is no part of it, so it holds for the whole run.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon, Optimizer

from raylr.training.captured import Captured


class FilterMuon(Optimizer):
    """torch's Muon over parameters of two or more dimensions; its state and groups are those of the parameters."""

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.95, nesterov: bool = True, weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})
        self.directions = Captured("Muon", _directions, wanted=True)  # asked on a GPU only

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient. Views are made anew each time, for parameters that have moved."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            if moved[0].is_cuda:
                self._step_on_gpu(group, moved)
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


def _directions(*updates: Tensor) -> tuple[Tensor, ...]:
    """What torch's Muon adds to each matrix at an LR of 1."""
    steps = [torch.zeros_like(update) for update in updates]
    for step, update in zip(steps, updates, strict=True):
        step.grad = update
    Muon(steps, lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    return tuple(step.detach() for step in steps)


def _matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The parameter, or a tensor laid out in memory as it is, as a view [first dimension, all others].

    Columns stand in the order of the memory, which channels_last changes; Muon gives the same for any order.
    """
    others = sorted(range(1, parameter.ndim), key=lambda dim: -parameter.stride()[dim])
    return tensor.detach().permute(0, *others).view(len(parameter), -1)
