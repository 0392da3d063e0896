"""A run as it goes, from its events: a live line in a terminal or lines in a log, then a table."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, assert_never

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from raylr.events import (
    ROUTINE,
    Aborted,
    Checkpointed,
    Copied,
    Ended,
    Finished,
    Joined,
    Metrics,
    News,
    Overridden,
    Planned,
    Preparing,
    Resized,
    RolledBack,
    RunEvent,
    Starting,
    Unknown,
    Waiting,
    Warned,
    details,
)
from raylr.events import Progress as Position
from raylr.reporting.tables import console, rates, results, story
from raylr.storage import Folder, folder_at

LOG_INTERVAL_S = 10.0
TRACEBACK = "Traceback (most recent call last):"


class Display:
    """Shows the events of one run; call it with each of them."""

    def __init__(self, out: Console | None = None, log_interval_s: float = LOG_INTERVAL_S) -> None:
        self.out = out or console()
        self.log_interval_s = log_interval_s
        self._tests: list[Metrics] = []
        self._logged_at = -log_interval_s
        self._has_started = False
        self._bar: Progress | None = None  # only in a terminal, while something moves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_bar()

    def __call__(self, news: News) -> None:
        """Show one piece of news."""
        match news:
            case Preparing(done, total):
                self._move("decoding images", done, total)
            case Planned():
                self._show_plan(news)
            case Waiting(text):
                self._line(text)
            case Starting(workers):
                self._line(f"starting {workers} workers")
            case Warned(text):
                self._line(f"warning: {text}")
            case Position():
                self._show_progress(news)
            case Metrics():
                self._show_test(news)
            case Joined() | Resized() | RolledBack() | Overridden() | Copied() | Checkpointed() | Ended() | Unknown():
                if news.kind not in ROUTINE or (news.kind == "start" and self._has_started):
                    self._show_event(news)
                self._has_started |= news.kind == "start"
            case Finished():
                self._show_result(news)
            case Aborted(status, reason):
                self._end_bar()
                self._line(f"{status} before its end: {reason}")
            case _:
                assert_never(news)

    def _show_plan(self, planned: Planned) -> None:
        self._end_bar()
        self._line(story(planned.story))
        for warning in planned.warnings:
            self._line(f"warning: {warning}")
        self._line(f"run folder: {planned.run_dir}")

    def _show_progress(self, progress: Position) -> None:
        text = f"epoch {progress.epoch:.2f}  lr {rates(progress.lr)}"
        if progress.train_loss is not None:
            text += f"  loss {progress.train_loss:.4f}"
        if self._tests:
            text += f"  test accuracy {self._tests[-1].test_accuracy:.2%}"
        if progress.images_per_s is not None:
            text += f"  {progress.images_per_s:,.0f} images/s"
        text += f"  {progress.world_size} workers"
        self._move(text, progress.position, progress.total)

    def _show_test(self, metrics: Metrics) -> None:
        self._tests.append(metrics)
        self._line(
            f"epoch {metrics.epoch:6.2f}  lr {rates(metrics.lr)}  train loss {metrics.train_loss:.4f}  test loss "
            f"{metrics.test_loss:.4f}  test accuracy {metrics.test_accuracy:.2%}  {metrics.images_per_s:,.0f} images/s"
        )

    def _show_event(self, event: RunEvent) -> None:
        fields = {"position": event.position, **details(event)}
        self._line(f"{event.kind}: {'  '.join(f'{key}={value}' for key, value in fields.items())}")

    def _show_result(self, finished: Finished) -> None:
        self._end_bar()
        folder = folder_at(finished.run_dir)
        rows = folder.read_rows("metrics.jsonl") or [metrics.row() for metrics in self._tests]
        if rows:
            self.out.print(results(rows))
        for line in failure(folder, finished.result):
            self._line(line)
        if finished.again:
            self._line("this run is complete; --fresh starts it over")
        self._line(f"run folder: {finished.run_dir}")

    def _move(self, text: str, done: int, total: int) -> None:
        if self.out.is_terminal:
            if self._bar is None:
                self._bar = _bar(self.out)
                self._bar.add_task(text, total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], description=text, completed=done, total=total)
        elif time.monotonic() - self._logged_at >= self.log_interval_s:
            self._logged_at = time.monotonic()
            self._line(f"{done / total:4.0%}  {text}")

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        self.out.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def failure(folder: Folder, result: Mapping[str, Any]) -> Iterator[str]:
    """Why a job has failed, for the terminal: the traceback of an error in the user's code in full, else its last line."""
    if result["status"] != "failed":
        return
    if not folder.exists("failure.txt"):
        if "reason" in result:  # there was no room for the file
            yield f"failed: {result['reason']}"
        return
    text = folder.read_bytes("failure.txt").decode().strip()
    _, start, rest = text.partition(TRACEBACK)
    if start:
        yield f"{start}{rest}"
    reason = result.get("reason") or text.splitlines()[-1]
    yield f"failed: {reason} (failure.txt has all of it)"


def _bar(out: Console) -> Progress:
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    return Progress(text, BarColumn(bar_width=20), TimeRemainingColumn(), console=out, transient=True)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that shows how far `what` is."""
    with Display() as display:
        yield lambda done, total: display._move(what, done, total)
