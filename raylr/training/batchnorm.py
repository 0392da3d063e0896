"""BatchNorm whose running statistics move once an update, however the global batch is cut over ranks.

Each micro-batch is normalised with its own statistics. Their mean over the micro-batches of an update (means, and unbiased
variances) moves the running statistics by the module's momentum; `num_batches_tracked` grows by one an update.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """The running statistics of all BatchNorms of a model, kept apart from the modules while micro-batches pass.

    During training a module's momentum is 1, so that after a forward pass its buffers hold that micro-batch's statistics.
    """

    def __init__(self, model: nn.Module, still: Collection[nn.Module] = ()) -> None:
        """`still`: BatchNorms whose statistics never move."""
        self.modules = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats and module not in still
        ]
        self.momenta = [module.momentum for module in self.modules]
        for module in self.modules:
            module.momentum = 1.0
        self.take()

    @property
    def length(self) -> int:
        return sum(buffer.numel() for buffer in self.buffers())

    def take(self) -> None:
        """Take what the modules hold (after a load) as the running statistics."""
        self.values = [buffer.clone() for buffer in self.buffers()]
        self.counts = [int(module.num_batches_tracked) for module in self.modules]  # type: ignore[arg-type]

    def read(self, out: Tensor) -> None:
        """Copy the last micro-batch's statistics into `out`."""
        if self.modules:
            torch.cat(self.buffers(), out=out)

    def move(self, mean: Tensor) -> None:
        """Move the running statistics by the mean over an update's micro-batches, and put them back into the modules."""
        if not self.modules:
            return
        weights = [
            1.0 / (count + 1) if momentum is None else momentum
            for count, momentum in zip(self.counts, self.momenta, strict=True)
            for _ in ("running_mean", "running_var")
        ]
        parts = mean.split([value.numel() for value in self.values])
        for weight in dict.fromkeys(weights):  # mostly one for all of them, and then one kernel on a GPU
            same = [index for index, other in enumerate(weights) if other == weight]
            torch._foreach_lerp_([self.values[index] for index in same], [parts[index] for index in same], weight)
        self.counts = [count + 1 for count in self.counts]
        self.restore()

    def restore(self) -> None:
        """Put the running statistics into the modules: for an evaluation, a checkpoint, or after an update that broke."""
        if not self.modules:
            return
        torch._foreach_copy_(self.buffers(), self.values)
        tracked: list[Tensor] = [module.num_batches_tracked for module in self.modules]  # type: ignore[misc]
        if len(set(self.counts)) > 1:
            for one, count in zip(tracked, self.counts, strict=True):
                one.fill_(count)
        else:
            torch._foreach_zero_(tracked)
            torch._foreach_add_(tracked, self.counts[0])

    def buffers(self) -> list[Tensor]:
        """The modules' running means and variances."""
        return [buffer for module in self.modules for buffer in (module.running_mean, module.running_var)]  # type: ignore[misc]
