"""A population as it goes, from its events: a live table in a terminal, or lines in a log, then the result."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from raylr.lr import duration_text
from raylr.lr.distill import Distilled
from raylr.reporting.tables import console, plain_table, rates

LOG_INTERVAL_S = 10.0


class PopulationDisplay:
    """Shows the events of a population; it is called with each of them."""

    def __init__(self, out: Console | None = None, log_interval_s: float = LOG_INTERVAL_S) -> None:
        self.out = out or console()
        self.log_interval_s = log_interval_s
        self._trials: dict[str, dict[str, Any]] = {}
        self._count, self._total, self._started, self._logged_at = 1, 1, time.monotonic(), -log_interval_s
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_live()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; a kind that is not known here is passed over."""
        show = getattr(self, f"_on_{event['kind']}", None)
        if show is not None:
            show(event)

    def _on_population(self, event: dict[str, Any]) -> None:
        plan, config = event["space"].plan, event["space"].config
        self._count, self._total = config.trials, plan.total_examples
        self._print(
            f"{config.trials} trials of {plan.workers[1]} workers, {config.num_at_once} at once, compared every "
            f"{config.interval} ({config.search})"
        )
        self._print(f"{plan.model}, {self._total:,} examples each, global batch {plan.batch_at(plan.workers[1])}")
        self._print(f"population folder: {event['run_dir']}")

    def _on_progress(self, event: dict[str, Any]) -> None:
        self._trials.setdefault(event["trial"], {"generation": 0}).update(event)
        self._show()

    def _on_round(self, event: dict[str, Any]) -> None:
        for rank, row in enumerate(event["rows"], start=1):
            known = self._trials.setdefault(row["trial"], {"generation": 0})
            known.update(row, rank=rank, epoch=known.get("epoch", 0.0))
        self._show(now=True)

    def _on_exploit(self, event: dict[str, Any]) -> None:
        receiver = self._trials.setdefault(event["receiver"], {"generation": 0})
        receiver.update(parent=event["donor"], generation=receiver["generation"] + 1, settings=event["factors_after"])
        change = f"lr factor {event['factors_before']['lr']:.4g} -> {event['factors_after']['lr']:.4g}"
        took = "" if event["latency_s"] is None else f", in {event['latency_s']:.2f} s"
        self._print(f"round {event['round']}: {event['receiver']} copies {event['donor']}, {change}{took}")

    def _on_warning(self, event: dict[str, Any]) -> None:
        self._print(f"warning: {event['text']}")

    def _on_waiting(self, event: dict[str, Any]) -> None:
        self._print(event["text"])

    def _on_explored(self, event: dict[str, Any]) -> None:
        self._end_live()
        result = event["result"]
        for row in result["trials"]:
            self._trials.setdefault(row["trial"], {"generation": 0}).update(row)
        self._print(population_table(self._trials))
        if event.get("again"):
            self._print("complete: use --fresh to start over, or another --name")
        if result["best"] is not None:
            self._print(f"best: {result['best']}, {result['score']} {abs(result['best_score'] or 0):.4f}")
            self._print(f"its LR: {event['run_dir']}/best_policy.json")
        print(json.dumps(result), flush=True)

    def _show(self, now: bool = False) -> None:
        if self.out.is_terminal:
            if self._live is None:
                self._live = Live(console=self.out, auto_refresh=False)
                self._live.start()
            self._live.update(self._view(), refresh=True)
        elif now or time.monotonic() - self._logged_at >= self.log_interval_s:
            self._logged_at = time.monotonic()
            self._print(self._line())

    def _view(self) -> Table:
        table = population_table(self._trials)
        table.caption = self._line()
        return table

    def _line(self) -> str:
        positions = [one.get("position", 0) for one in self._trials.values()]
        done = sum(positions) / (self._count * self._total)
        elapsed = time.monotonic() - self._started
        left = f"{elapsed * (1 - done) / done:.0f} s left" if done else "starting"
        scores = [one["score"] for one in self._trials.values() if _is_known(one.get("score"))]
        best = f", best score {max(scores):.4f}" if scores else ""
        return f"{done:.0%} of {self._count} trials{best}, {elapsed:.0f} s, {left}"

    def _print(self, what: object) -> None:
        self.out.print(what, soft_wrap=isinstance(what, str))

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def population_table(trials: Mapping[str, Mapping[str, Any]]) -> Table:
    """The trials, best first."""
    table = plain_table("trial", "lr", "factor", "score", "examples", "generation", "parent")
    for name, one in sorted(trials.items(), key=lambda item: -_sortable(item[1].get("score"))):
        settings = one.get("settings", {})
        table.add_row(
            name,
            rates(one["lr"]) if one.get("lr") else "",
            f"{settings['lr']:.4g}" if settings else "",
            f"{one['score']:.4f}" if _is_known(one.get("score")) else "",
            f"{one.get('position', 0):,}",
            str(one.get("generation", 0)),
            str(one.get("parent", "")),
        )
    return table


def fit_table(found: Distilled) -> Table:
    """All fits, best first; the one that is written is marked."""
    table = plain_table("", "RMS error", "largest", "numbers", "LR")
    for fit in found.fits:
        mark = "->" if fit is found.chosen else ""
        epoch = fit.policy.examples_per_epoch
        curves = [
            f"{schedule.base_lr:g} x {schedule.shape.text(epoch)}"
            + (f" after {duration_text(schedule.warmup.examples, epoch)} of warmup" if schedule.warmup.examples else "")
            for _, schedule in fit.policy.schedules
        ]
        table.add_row(mark, f"{fit.rms:.1%}", f"{fit.largest:.1%}", str(fit.num_parameters), "; ".join(curves))
    table.columns[-1].justify = "left"
    return table


def standing_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Schedules that were trained from scratch, best mean first, and what finding each had cost."""
    table = plain_table("schedule", "test accuracy", "standard deviation", "seeds", "failed", "examples to find it")
    table.columns[0].justify = "left"
    for row in sorted(rows, key=lambda row: -_sortable(row["mean"])):
        table.add_row(
            row["name"],
            "" if row["mean"] is None else f"{row['mean']:.2%}",
            "" if row["sd"] is None else f"{row['sd']:.2%}",
            str(len(row["accuracies"])),
            str(sum(one is None for one in row["accuracies"])),
            "not known" if row["spent"] is None else f"{row['spent']:,}",
        )
    return table


def _is_known(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _sortable(score: float | None) -> float:
    return score if score is not None else -math.inf
