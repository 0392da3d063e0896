"""A population as it goes, from its events: a live table in a terminal, or lines in a log, then the result."""

import math
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeGuard, assert_never

from rich.console import Console
from rich.live import Live
from rich.table import Table

from raylr.events import (
    Aborted,
    Exploit,
    Explored,
    LoopAttached,
    News,
    OfTrial,
    PopulationNews,
    PopulationPlanned,
    Preparing,
    Progress,
    RoundDecided,
    Starting,
    TrialEnded,
    TrialReport,
    Waiting,
    Warned,
)
from raylr.lr import duration_text
from raylr.lr.distill import Distilled
from raylr.planning.loop_plan import LOOP
from raylr.reporting.bar import duration
from raylr.reporting.ending import failure, named
from raylr.reporting.prose import Prose
from raylr.reporting.startup import Startup, phase_of
from raylr.reporting.tables import console, is_live, plain_table, rates
from raylr.storage import folder_at

LOG_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Trial:
    """The state of a trial: a row of the table."""

    position: int = 0
    score: float | None = None
    lr: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    generation: int = 0
    parent: str = ""


class PopulationDisplay:
    """Shows the events of a population; call it with each of them."""

    def __init__(self, out: Console | None = None, log_interval_s: float = LOG_INTERVAL_S) -> None:
        self.out = out or console()
        self.log_interval_s = log_interval_s
        self._trials: dict[str, Trial] = {}
        self._count, self._all, self._started, self._logged_at = 1, 1, time.monotonic(), -log_interval_s
        self._live: Live | None = None
        self._startup = Startup(self.out, self._print)

    def __enter__(self) -> Self:
        self._startup.look()
        return self

    def __exit__(self, *_: object) -> None:
        self._startup.end(started=False)
        self._end_live()

    def __call__(self, news: PopulationNews) -> None:
        """Show one piece of news."""
        match news:
            case Preparing(done, total, what):
                self._show_preparing(done, total, what)
            case PopulationPlanned():
                self._show_plan(news)
            case Waiting(text):
                self._print(text)
            case Starting():
                if not self._trials:
                    self._startup.begin(phase_of(news))
            case OfTrial(trial, told):
                self._show_trial(trial, told)
            case RoundDecided(_, standings):
                for one in standings:
                    self._note(one.trial, position=one.position, score=one.score, lr=one.lr, settings=one.settings)
                self._show(now=True)
            case Exploit():
                self._show_exploit(news)
            case Explored():
                self._show_result(news)
            case Aborted(status, reason):
                self._startup.end(started=False)
                self._end_live()
                self._print(f"{status} before its end: {reason}")
            case _:
                assert_never(news)

    def _show_preparing(self, done: int, total: int, what: str) -> None:
        if time.monotonic() - self._logged_at >= self.log_interval_s:
            self._logged_at = time.monotonic()
            self._print(f"{done / total:4.0%}  {what}")

    def _show_plan(self, plan: PopulationPlanned) -> None:
        self._startup.end(started=False)
        lengths = plan.lengths or ((plan.trials, plan.total_examples),)
        self._count, self._all = plan.trials, sum(count * length for count, length in lengths)
        self._print(
            f"{plan.trials} trials of {plan.workers} workers, {plan.at_once} at once, compared every "
            f"{plan.interval} ({plan.search})"
        )
        each = ", then ".join(f"{count} over {length:,} examples" for count, length in plan.lengths)
        each = each if len(lengths) > 1 else f"{plan.total_examples:,} examples each"
        self._print(f"{plan.model}, {each}, global batch {plan.global_batch}")
        for note in plan.notes:
            self._print(note)
        self._print(f"population folder: {plan.run_dir}")

    def _show_trial(self, trial: str, news: News | TrialReport | TrialEnded | LoopAttached) -> None:
        """Show a trial's own progress and warnings; its other reports appear in the table after its round."""
        match news:
            case Progress(position=position, lr=lr):
                self._startup.end()
                self._note(trial, position=position, lr=lr)
                self._show()
            case Warned(text):
                self._print(f"warning: {text}")

    def _show_exploit(self, exploit: Exploit) -> None:
        generation = self._trials.get(exploit.receiver, Trial()).generation + 1
        self._note(exploit.receiver, parent=exploit.donor, generation=generation, settings=exploit.factors_after)
        change = f"lr factor {exploit.factors_before['lr']:.4g} -> {exploit.factors_after['lr']:.4g}"
        took = "" if exploit.latency_s is None else f", in {exploit.latency_s:.2f} s"
        self._print(f"round {exploit.round}: {exploit.receiver} copies {exploit.donor}, {change}{took}")

    def _show_result(self, explored: Explored) -> None:
        self._startup.end(started=False)
        self._end_live()
        result = explored.result
        for row in result["trials"]:
            self._note(row["trial"], **{name: row[name] for name in ("position", "score", "lr", "settings")})
        self._print(population_table(self._trials))
        self._print(f"{result['status']}: {_took(result)}")
        if explored.again:
            self._print("this population is complete; --fresh starts it over")
        for line in failure(folder_at(explored.run_dir), result):
            self._print(line)
        if result["best"] is not None:
            self._print(f"best: {result['best']}, {result['score']} {abs(result['best_score'] or 0):.4f}")
            self._print(f"its LR: {explored.run_dir}/best_policy.json")
        folder = folder_at(explored.run_dir)
        self._print(f"population folder: {folder}")
        if self.out.is_terminal and result["best"] is not None:
            found = f"{shlex.quote(str(folder))}/best_policy.json"
            own = f'policy="{found}" for raylr.loop.attach'
            self._print(f"next: {own}" if result.get("task") == LOOP else f"next: raylr train --policy {found}")
            self._print(f"      raylr distill {named(folder)}")

    def _note(self, trial: str, **fields: Any) -> None:
        self._trials[trial] = replace(self._trials.get(trial, Trial()), **fields)

    def _show(self, now: bool = False) -> None:
        if is_live(self.out):
            if self._live is None:
                self._live = Live(console=self.out, get_renderable=self._view, transient=True, refresh_per_second=2)
                self._live.start()
            self._live.refresh()
        elif now or time.monotonic() - self._logged_at >= self.log_interval_s:
            self._logged_at = time.monotonic()
            self._print(self._line())

    def _view(self) -> Table:
        table = population_table(dict(self._trials))  # the screen is drawn by another thread
        table.caption = self._line()
        return table

    def _line(self) -> str:
        trials = list(self._trials.values())
        positions = [one.position for one in trials]
        done = sum(positions) / self._all
        elapsed = time.monotonic() - self._started
        left = f"{elapsed * (1 - done) / done:.0f} s left" if done else "starting"
        scores = [one.score for one in trials if _is_known(one.score)]
        best = f", best score {max(scores):.4f}" if scores else ""
        return f"{done:.0%} of {self._count} trials{best}, {elapsed:.0f} s, {left}"

    def _print(self, what: object) -> None:
        self.out.print(Prose(what) if isinstance(what, str) else what, soft_wrap=isinstance(what, str))

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _took(result: Mapping[str, Any]) -> str:
    """How much was done for a result."""
    facts = [
        f"{result[name]} {words}"
        for name, words in (("rounds", "rounds"), ("num_exploits", "copies"))
        if name in result
    ]
    if shared := result.get("shared_examples"):
        share = shared / (shared + result["trained_examples"])
        facts.append(f"{share:.0%} of the examples shared")
    took = [duration(result["wall_s"])] if "wall_s" in result else []
    return ", ".join([f"{len(result['trials'])} trials", *facts, *took])


def population_table(trials: Mapping[str, Trial]) -> Table:
    """The trials, best first."""
    table = plain_table(
        "trial",
        "lr",
        "factor",
        "score",
        "examples",
        "generation",
        "parent",
        drops=("generation", "factor", "examples", "parent"),
    )
    for name, one in sorted(trials.items(), key=lambda item: -_sortable(item[1].score)):
        table.add_row(
            name,
            rates(one.lr) if one.lr else "",
            f"{one.settings['lr']:.4g}" if one.settings else "",
            f"{one.score:.4f}" if _is_known(one.score) else "",
            f"{one.position:,}",
            str(one.generation),
            one.parent,
        )
    return table


def fit_rows(found: Distilled) -> list[dict[str, Any]]:
    """All fits as numbers, best first."""
    return [
        {"rms": fit.rms, "largest": fit.largest, "numbers": fit.num_parameters, "chosen": fit is found.chosen}
        for fit in found.fits
    ]


def fit_table(found: Distilled) -> Table:
    """All fits, best first; the one that is written is marked."""
    table = plain_table("", "RMS error", "largest", "numbers", "LR", drops=("largest", "numbers"), wraps=("LR",))
    for fit in found.fits:
        mark = "->" if fit is found.chosen else ""
        epoch = fit.policy.examples_per_epoch
        curves = [
            f"{schedule.base_lr:g} x {schedule.shape.brief(epoch)}"
            + (f" after {duration_text(schedule.warmup.examples, epoch)} of warmup" if schedule.warmup.examples else "")
            for _, schedule in fit.policy.schedules
        ]
        table.add_row(mark, f"{fit.rms:.1%}", f"{fit.largest:.1%}", str(fit.num_parameters), "; ".join(curves))
    table.columns[-1].justify = "left"
    return table


def standing_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Schedules that were trained from scratch, best mean first, and the examples spent on finding each."""
    headings = ("schedule", "test accuracy", "standard deviation", "seeds", "failed", "examples to find it")
    table = plain_table(*headings, drops=("failed", "seeds", "examples to find it"))
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


def _is_known(score: float | None) -> TypeGuard[float]:
    return score is not None and math.isfinite(score)


def _sortable(score: float | None) -> float:
    return score if score is not None else -math.inf
