"""How large the weights of each optimizer are, and what an update adds to them: two numbers each, for the ledger.

Both are computed on the device from weights that are equal on all ranks, so they are equal at every world size. They come
by a copy that nothing waits for, and are read once the next update's numbers have come too.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from raylr.training.captured import Readback


@dataclass(frozen=True)
class Norms:
    """L2 norms by optimizer: of the weights before an update, and of their change by it."""

    weights: Mapping[str, float]
    update: Mapping[str, float]


class NormReader:
    """Takes the norms around the optimizers' step. What `taken` returns reads them, until two more updates have begun."""

    def __init__(self, optimizers: Mapping[str, Optimizer], device: torch.device) -> None:
        self.names = tuple(optimizers)
        parts = [[one for group in each.param_groups for one in group["params"]] for each in optimizers.values()]
        self.parameters: list[Tensor] = [parameter for part in parts for parameter in part]
        sizes = [sum(parameter.numel() for parameter in part) for part in parts]
        flat = torch.empty(sum(sizes), device=device)
        self.parts = flat.split(sizes)
        self.kept = [
            view.as_strided(parameter.shape, parameter.stride())
            for view, parameter in zip(
                flat.split([parameter.numel() for parameter in self.parameters]), self.parameters, strict=True
            )
        ]
        self.readbacks = [Readback(device), Readback(device)]
        self.taken: Callable[[], Norms] = self._none

    @contextmanager
    @torch.no_grad()
    def around(self) -> Iterator[None]:
        """Take the norms of what is done to the weights inside."""
        torch._foreach_copy_(self.kept, self.parameters)
        before = [torch.linalg.vector_norm(part) for part in self.parts]
        yield
        torch._foreach_sub_(self.kept, self.parameters)
        readback = self.readbacks[0]
        self.readbacks.reverse()
        readback.begin(torch.stack([*before, *(torch.linalg.vector_norm(part) for part in self.parts)]))
        self.taken = lambda: self._norms(readback.end())

    def _norms(self, numbers: list[float]) -> Norms:
        count = len(self.names)
        return Norms(
            dict(zip(self.names, numbers[:count], strict=True)), dict(zip(self.names, numbers[count:], strict=True))
        )

    def _none(self) -> Norms:
        return Norms({}, {})
