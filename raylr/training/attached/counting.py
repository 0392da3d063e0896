"""What a loop of one's own counts: steps against written LRs, and updates until orders are asked for again."""

import time
from collections.abc import Iterable

from torch.optim import Optimizer

from raylr.errors import ConfigError

SYNC_S = 2.0  # about so often orders are asked for between two reports
MAX_UPDATES = 10_000  # between two times


class Steps:
    """Counts the steps of optimizers since the last report, beside the times that their LR was written."""

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self.written = 0
        self._stepped: list[int] = []
        for index, optimizer in enumerate(optimizers):
            self._stepped.append(0)
            optimizer.register_step_post_hook(lambda *_, index=index: self._count(index))

    def _count(self, index: int) -> None:
        self._stepped[index] += 1

    def refuse_forgotten(self) -> None:
        """Begin to count again. Raises ConfigError where each optimizer was stepped more often than the LR was written."""
        stepped, written = min(self._stepped) if self.written else max(self._stepped), self.written
        self._stepped, self.written = [0] * len(self._stepped), 0
        if stepped > written:
            raise ConfigError(
                f"before_step was called {written} times and the optimizer stepped {stepped} times since the last report, so "
                "the LR of those updates is not the policy's; call loop.before_step() before each optimizer.step()"
            )


class Pace:
    """The number of updates that take about SYNC_S, as the last ones did."""

    def __init__(self) -> None:
        self._at, self._step = time.monotonic(), 0

    def updates(self, step: int) -> int:
        """How many updates to let pass after this one."""
        (at, before), (self._at, self._step) = (self._at, self._step), (time.monotonic(), step)
        if step <= before or self._at <= at:
            return 1
        return max(1, min(MAX_UPDATES, int(SYNC_S * (step - before) / (self._at - at))))
