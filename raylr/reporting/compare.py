"""Compare runs: results, the bits of the LR and of the weights, and the settings that differ."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylr.planning.watching import by_split
from raylr.reporting.recorded import RecordedRun
from raylr.reporting.rows import leaves, reported

MISSING = "-"


@dataclass(frozen=True)
class Row:
    """A line of a table that has a column per run."""

    name: str
    cells: tuple[str, ...]
    code: bool = False  # cells are hashes, paths or other text to be read letter by letter

    @property
    def differs(self) -> bool:
        return len(set(self.cells)) > 1


def _count(value: Any) -> str:
    return f"{value:,.0f}"


def _percent(value: Any) -> str:
    return f"{value:.2%}"


def duration(seconds: float) -> str:
    """Seconds in words: `7.2 s`, `3 min 5 s`, `2 h 4 min`.

    >>> [duration(seconds) for seconds in (7.25, 185, 7440)]
    ['7.2 s', '3 min 5 s', '2 h 4 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


FORMATS: dict[str, Callable[[Any], str]] = {
    "test_accuracy": _percent,
    "test_loss": lambda value: f"{value:.4f}",
    "validation_accuracy": _percent,
    "validation_loss": lambda value: f"{value:.4f}",
    "epochs": lambda value: f"{value:g}",
    "steps": _count,
    "images_per_s": _count,
    "wall_s": duration,
}
COUNTS = ("restarts", "rejoins", "resizes", "rollbacks")
SAID_ELSEWHERE = {
    "status",
    "rank",
    "task",
    "metrics",
    "position",
    "run_dir",
    "versions",
    "data_source",
    *FORMATS,
    *COUNTS,
}


def status(run: RecordedRun) -> str:
    """How the run ended, or how far it is."""
    if run.result:
        return str(run.result.get("status", "unknown"))
    return f"unfinished, at epoch {run.epoch:.4g} of {run.length:.4g}"


def reached(run: RecordedRun) -> dict[str, Any]:
    """The result; of an unfinished run its last report."""
    if run.result or not run.last_metrics:
        return run.result
    last = run.last_metrics
    if last.get("split") == "validation":
        last = {by_split(name, "validation"): value for name, value in last.items()}
    return {**last, "epochs": last.get("epoch"), "steps": last.get("step")}


def cell(facts: Mapping[str, Any], key: str) -> str:
    """A fact as it is shown; a dash when it is not known."""
    value = facts.get(key)
    if value is None:
        return MISSING
    if key in FORMATS and isinstance(value, int | float) and math.isfinite(value):
        return FORMATS[key](value)
    return value if isinstance(value, str) else json.dumps(value)


def headline(run: RecordedRun) -> tuple[str, str]:
    """The number that stands for a run, and its name: the test accuracy, a task's score, or what a loop reports first."""
    facts, name, task = reached(run), "test_accuracy", run.plan.get("task")
    if isinstance(task, dict) and facts.get(name) is None:
        name = str(task.get("score"))
    if run.is_loop and facts.get(name) is None:
        name = next(iter(reported(run.last_metrics)), name)
        facts = run.last_metrics
    value = facts.get(name)
    known = name in FORMATS or not isinstance(value, int | float)
    return cell(facts, name) if known else f"{value:.4g}", name.replace("_", " ")


def results(runs: Sequence[RecordedRun]) -> list[Row]:
    """The results, a row per fact."""
    facts = [reached(run) for run in runs]
    rows = [Row("status", tuple(status(run) for run in runs))]
    for key in (*FORMATS, *COUNTS, "data_source"):
        if any(one.get(key) is not None for one in facts):
            rows.append(Row(key, tuple(cell(one, key) for one in facts)))
    for key in dict.fromkeys(name for run in runs if run.is_loop for name in run.own_metrics):
        rows.append(Row(key, tuple(cell(run.last_metrics, key) for run in runs)))
    return rows


def identity(runs: Sequence[RecordedRun]) -> list[Row]:
    """The conditions of the results: hashes, data, precision, versions, hardware."""
    facts = [{**run.result, **leaves(run.result.get("versions") or {}, "versions")} for run in runs]
    keys = dict.fromkeys(key for one in facts for key in one if key not in SAID_ELSEWHERE)
    return [Row(key, tuple(cell(one, key) for one in facts), key.endswith("sha256")) for key in keys]


def story(run: RecordedRun) -> list[tuple[str, str, str]]:
    """The plan's story: each setting, its value and the reason."""
    reasons = run.plan.get("story")
    told = [one for one in reasons if isinstance(one, dict)] if isinstance(reasons, list) else []
    return [(str(one.get("what")), str(one.get("value")), str(one.get("why"))) for one in told]


def differences(runs: Sequence[RecordedRun]) -> list[Row]:
    """The config fields that differ, and the numbers of the plan and the policy that differ although no field does."""
    rows = []
    for prefix, found in (
        ("", [{**run.config, "name": None} for run in runs]),
        ("plan: ", [{**run.plan, "story": None, "warnings": None} for run in runs]),
        ("policy: ", [_by_name(run.policy) for run in runs]),
    ):
        flat = [leaves(one) for one in found]
        for key in dict.fromkeys(key for one in flat for key in one):
            row = Row(prefix + key, tuple(json.dumps(one[key]) if key in one else MISSING for one in flat))
            if row.differs:
                rows.append(row)
    return rows


def _by_name(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A policy with its schedules under their names."""
    schedules = policy.get("schedules")
    if not isinstance(schedules, list) or not all(isinstance(one, dict) for one in schedules):
        return dict(policy)
    return {**policy, "schedules": {str(one.get("name")): one for one in schedules}}


@dataclass(frozen=True)
class Branch:
    """A line of the tree of forks: how deep it stands, the run's place among the runs (None: not one of them)."""

    depth: int
    label: str
    index: int | None
    text: str = ""


def forks(runs: Sequence[RecordedRun]) -> list[Branch]:
    """Parents and their forks as a tree, each line below its parent's; nothing where no run is a fork.

    A fork names its parent by the name of its folder.
    """
    by_name = {run.run_dir.name: index for index, run in enumerate(runs)}
    children: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        if run.parent is not None:
            children.setdefault(run.parent.run, []).append(index)
    roots = [name for name in children if name not in by_name or runs[by_name[name]].parent is None]
    lines: list[Branch] = []

    def grow(name: str, depth: int) -> None:
        index = by_name.get(name)
        run = None if index is None else runs[index]
        lines.append(Branch(depth, name if run is None else run.label, index, _leaving(run)))
        for child in sorted(children.pop(name, []), key=lambda one: _position(runs[one])):
            grow(runs[child].run_dir.name, depth + 1)

    for root in roots:
        grow(root, 0)
    return lines


def _position(run: RecordedRun) -> float:
    return run.parent.epoch if run.parent else 0.0


def _leaving(run: RecordedRun | None) -> str:
    """Where a fork leaves its parent, what it changes, and how good it was."""
    if run is None:
        return "not on this page"
    told = []
    if run.parent is not None:
        told.append(f"from epoch {run.parent.epoch:.4g}, step {run.parent.step}")
        told.append("; ".join(run.parent.changes) or "nothing changed")
    if run.best is not None:
        told.append(f"best {run.best[0]:.2%}")
    return " · ".join(told)


def same_weights(runs: Sequence[RecordedRun]) -> list[list[str]]:
    """Labels of runs that ended with the same weights, to the last bit: groups of two and more."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        if run.result.get("weights_sha256"):
            groups.setdefault(str(run.result["weights_sha256"]), []).append(run.label)
    return [labels for labels in groups.values() if len(labels) > 1]


def lr_agreement(first: RecordedRun, other: RecordedRun, optimizer: str) -> str:
    """How far the LR of another run is that of the first, update by update; "" when they share none."""
    sides = [_lr_by_position(run, optimizer) for run in (first, other)]
    common, mine, its = np.intersect1d(sides[0][0], sides[1][0], return_indices=True)
    if not len(common):
        return ""
    one, two = sides[0][1][mine], sides[1][1][its]
    unequal = np.flatnonzero(one != two)
    many = "the one update" if len(common) == 1 else f"all {len(common):,} updates"
    if not len(unequal):
        return f"{other.label}: the LR of {first.label} to the last bit, at {many} that both made"
    at = unequal[0]
    epoch, values = common[at] / first.policy["examples_per_epoch"], f"{float(two[at])} against {float(one[at])}"
    return f"{other.label}: not the LR of {first.label} from epoch {epoch:.4g} on ({values})"


def _lr_by_position(run: RecordedRun, optimizer: str) -> tuple[Any, Any]:
    return np.array(run.positions.get(optimizer, ())), np.array(run.curve("lr", optimizer).values)
