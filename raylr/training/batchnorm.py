"""BatchNorm whose running statistics move once an update, however the global batch is cut over ranks.

Each micro-batch is normalised with its own statistics. Their mean over the micro-batches of an update (means, and unbiased
variances) moves the running statistics by the module's momentum; `num_batches_tracked` grows by one an update.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """The running statistics of all BatchNorms of a model, kept apart from the modules while micro-batches pass.

    During training a module's momentum is 1, so that after a forward pass its buffers hold that micro-batch's statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [
            module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        self.momenta = [module.momentum for module in self.modules]
        for module in self.modules:
            module.momentum = 1.0
        self.take()

    @property
    def length(self) -> int:
        return sum(buffer.numel() for buffer in self._buffers())

    def take(self) -> None:
        """Take what the modules hold (after a load) as the running statistics."""
        self.values = [buffer.clone() for buffer in self._buffers()]
        self.counts = [int(module.num_batches_tracked) for module in self.modules]  # type: ignore[arg-type]

    def read(self, out: Tensor) -> None:
        """Copy the last micro-batch's statistics into `out`."""
        if self.modules:
            torch.cat(self._buffers(), out=out)

    def move(self, mean: Tensor) -> None:
        """Move the running statistics by the mean over an update's micro-batches, and put them back into the modules."""
        if not self.modules:
            return
        parts = mean.split([buffer.numel() for buffer in self._buffers()])
        for index, (value, part) in enumerate(zip(self.values, parts, strict=True)):
            place = index // 2
            momentum = self.momenta[place]
            value.lerp_(part, 1.0 / (self.counts[place] + 1) if momentum is None else momentum)
        self.counts = [count + 1 for count in self.counts]
        self.restore()

    def restore(self) -> None:
        """Put the running statistics into the modules: for an evaluation, a checkpoint, or after an update that broke."""
        for buffer, value in zip(self._buffers(), self.values, strict=True):
            buffer.copy_(value)
        for module, count in zip(self.modules, self.counts, strict=True):
            module.num_batches_tracked.fill_(count)  # type: ignore[union-attr]

    def _buffers(self) -> list[Tensor]:
        return [buffer for module in self.modules for buffer in (module.running_mean, module.running_var)]  # type: ignore[misc]
