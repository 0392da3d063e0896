"""The live line of a run: how far it is in its own unit, a bar, the time that is left, and what fits of its numbers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import Progress, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

MIN_BAR, MAX_BAR = 6, 24


class Bar(Progress):
    """A live line in a terminal, gone when it stops."""

    def __init__(self, out: Console) -> None:
        super().__init__(console=out, transient=True, refresh_per_second=5)

    def move(self, unit: str, done: int, total: int, details: Sequence[str] = ()) -> None:
        """Show that `done` of `total` is reached; of the `details` as many as there is room for, the first ones first."""
        if not self.tasks:
            self.add_task(unit, total=total, completed=done, details=details)
            self.start()
        else:
            self.update(self.tasks[0].id, description=unit, completed=done, total=total, details=details)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The line; called by rich."""
        for task in self.tasks:
            yield _Line(task)


class _Line:
    def __init__(self, task: Task) -> None:
        self.task = task

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task, share = self.task, self.task.percentage / 100
        head, tail = task.description, f"{share:.0%} {_left(task)}"
        details = fitting(head, tail, task.fields["details"], options.max_width)
        used = len(head) + len(tail) + 2 + sum(len(one) + 2 for one in details)
        width = min(MAX_BAR, options.max_width - used)
        line = Table.grid(padding=(0, 1))
        cells: list[Any] = [Text(head, no_wrap=True)]
        if width >= MIN_BAR:
            cells.append(ProgressBar(total=task.total, completed=task.completed, width=width))
        cells.append(Text("  ".join([tail, *details]), no_wrap=True, overflow="ellipsis"))
        line.add_row(*cells)
        yield line


def fitting(head: str, tail: str, details: Sequence[str], width: int) -> list[str]:
    """The details that fit beside a bar: the first of them, up to the first that does not.

    >>> fitting("2.1/5 epochs", "42% 1:23 left", ["lr 0.1", "loss 1.25"], 50)
    ['lr 0.1']
    """
    room = width - len(head) - len(tail) - 2 - MIN_BAR
    kept: list[str] = []
    for one in details:
        room -= len(one) + 2
        if room < 0:
            break
        kept.append(one)
    return kept


def _left(task: Task) -> str:
    seconds = task.time_remaining
    return "-:-- left" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """So long, as on a clock.

    >>> duration(83), duration(3723)
    ('1:23', '1:02:03')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
