"""A run as it goes, from its events: a live line in a terminal or lines in a log, then a table and a JSON line."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from raylr.reporting.tables import console, rates, results, story
from raylr.storage import folder_at

LOG_INTERVAL_S = 10.0
QUIET = {"start", "checkpoint", "finish"}  # events that every run has


class Display:
    """Shows the events of one run; it is called with each of them."""

    def __init__(self, out: Console | None = None, log_interval_s: float = LOG_INTERVAL_S) -> None:
        self.out = out or console()
        self.log_interval_s = log_interval_s
        self._rows: list[dict[str, Any]] = []
        self._logged_at = -log_interval_s
        self._bar: Progress | None = None  # only in a terminal, while something moves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_bar()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; a kind that is not known here is passed over."""
        show = getattr(self, f"_on_{event['kind']}", None)
        if show is not None:
            show(event)

    def _on_prepare(self, event: dict[str, Any]) -> None:
        self._move("decoding images", event["done"], event["total"])

    def _on_plan(self, event: dict[str, Any]) -> None:
        self._end_bar()
        self._line(story(event["plan"]))
        for warning in event["plan"].warnings:
            self._line(f"warning: {warning}")
        self._line(f"run folder: {event['run_dir']}")

    def _on_waiting(self, event: dict[str, Any]) -> None:
        self._line(event["text"])

    def _on_started(self, event: dict[str, Any]) -> None:
        self._line("training has started")

    def _on_progress(self, event: dict[str, Any]) -> None:
        text = f"epoch {event['epoch']:.2f}  lr {rates(event['lr'])}"
        if event["train_loss"] is not None:  # not known to who only sees the files
            text += f"  loss {event['train_loss']:.4f}"
        if self._rows:
            text += f"  test accuracy {self._rows[-1]['test_accuracy']:.2%}"
        if event["images_per_s"] is not None:
            text += f"  {event['images_per_s']:,.0f} images/s"
        text += f"  {event['world_size']} workers"
        self._move(text, event["position"], event["total"])

    def _on_metrics(self, event: dict[str, Any]) -> None:
        row = event["row"]
        self._rows.append(row)
        self._line(
            f"epoch {row['epoch']:6.2f}  lr {rates(row['lr'])}  train loss {row['train_loss']:.4f}  test loss "
            f"{row['test_loss']:.4f}  test accuracy {row['test_accuracy']:.2%}  {row['images_per_s']:,.0f} images/s"
        )

    def _on_event(self, event: dict[str, Any]) -> None:
        row = event["row"]
        if row["kind"] not in QUIET:
            details = "  ".join(f"{key}={value}" for key, value in row.items() if key not in ("time", "kind"))
            self._line(f"{row['kind']}: {details}")

    def _on_finished(self, event: dict[str, Any]) -> None:
        self._end_bar()
        folder = folder_at(event["run_dir"])
        rows = folder.read_rows("metrics.jsonl") or self._rows
        if rows:
            self.out.print(results(rows))
        if event["result"]["status"] == "failed" and folder.exists("failure.txt"):
            *_, reason = folder.read_bytes("failure.txt").decode().strip().splitlines()
            self._line(f"failed: {reason} (failure.txt has all of it)")
        if event.get("again"):
            self._line("this run is complete; --fresh starts it over")
        self._line(f"run folder: {event['run_dir']}")
        self._line(json.dumps(event["result"]))

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


def _bar(out: Console) -> Progress:
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    return Progress(text, BarColumn(bar_width=20), TimeRemainingColumn(), console=out, transient=True)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that shows how far `what` is."""
    with Display() as display:
        yield lambda done, total: display._move(what, done, total)
