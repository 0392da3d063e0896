"""How far each gradient points where the one before did: the cosine that the hypergradient needs (Baydin et al. 2018).

Of the whole gradient, summed over the ranks, before clipping: the same on all of them. The gradient before is a part of the
run's state. After an update that was taken back there is none.
"""

import torch
from torch import Tensor


class Before:
    """The gradient of the update before."""

    def __init__(self) -> None:
        self.gradient: Tensor | None = None

    def cosine(self, gradient: Tensor) -> Tensor:
        """The cosine of the angle to the gradient before, as one number; NaN where there is none. Keeps this one."""
        before, self.gradient = self.gradient, gradient.clone()
        if before is None:
            return torch.full((1,), torch.nan, device=gradient.device)
        lengths = torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(before)
        return (gradient * before).sum().div(lengths).view(1)

    def forget(self) -> None:
        self.gradient = None

    def state(self) -> Tensor | None:
        return self.gradient

    def load(self, state: Tensor | None, device: torch.device) -> None:
        self.gradient = None if state is None else state.detach().clone().to(device)
