"""List runs and populations from their folders: how far each is, how good it was, how long it will take, why it failed."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from raylr.events import JoinKind, as_test
from raylr.reporting.rows import DAMAGE, last_row
from raylr.storage import (
    POPULATION,
    POPULATION_RESULT,
    RUN,
    RUN_RESULT,
    Folder,
    runs_under,
    trials_of,
)

JOINS = frozenset(get_args(JoinKind))
RUNNING, UNFINISHED = "running", "unfinished"  # without a result: with and without a process that holds the folder


@dataclass(frozen=True)
class Listed:
    """A run or a population in the list. None for what is not known, or does not apply."""

    name: str
    kind: str  # run or population
    status: str  # running, unfinished, complete, stopped or failed
    run_dir: str
    epoch: float | None = None
    epochs: float | None = None  # that it is to have
    test_accuracy: float | None = None  # of the last test; of a population, of its best trial
    validation_accuracy: float | None = None  # of the last test, where it was on a validation split
    best_accuracy: float | None = None  # of the tests on the way
    best_epoch: float | None = None
    eta_s: float | None = None  # of a running one
    wall_s: float | None = None
    data_source: str | None = None
    trials: int | None = None
    best_trial: str | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """The entry as plain data."""
        return asdict(self)


def listed_under(storage: str) -> list[Listed]:
    """The runs and populations under `storage`, by name; a damaged file counts as one that is not there."""
    found = runs_under(storage, RUN, POPULATION)
    return [_population(one) if one.exists(POPULATION) else _run(one) for one in found]


def _run(folder: Folder) -> Listed:
    result, policy = _json(folder, RUN_RESULT), _json(folder, RUN)
    rows = map(as_test, _rows(folder, "metrics.jsonl"))
    tests = [row for row in rows if isinstance(row.get("test_accuracy"), float)]
    best = max(tests, key=lambda row: row["test_accuracy"], default={})
    last = tests[-1] if tests else {}
    known: dict[str, Any] = {
        "name": folder.name,
        "kind": "run",
        "run_dir": str(folder),
        "epochs": _ratio(policy.get("total_examples"), policy.get("examples_per_epoch")),
        f"{last.get('split', 'test')}_accuracy": last.get("test_accuracy"),
        "best_accuracy": best.get("test_accuracy"),
        "best_epoch": best.get("epoch"),
    }
    if result:
        return Listed(**known | _ended(result) | {"epoch": result.get("epochs", last.get("epoch"))})
    status = _status(folder)
    row = last_row(folder, "ledger.jsonl") or {}
    epoch = _ratio(_end(row), policy.get("examples_per_epoch"))
    eta_s = _eta_s(folder, _end(row), policy.get("total_examples")) if status == RUNNING else None
    return Listed(**known, status=status, epoch=epoch, eta_s=eta_s)


def _population(folder: Folder) -> Listed:
    result = _json(folder, POPULATION_RESULT)
    has_ended = result.get("status", RUNNING) != RUNNING
    trials = trials_of(folder)
    runs = [_run(one) for one in trials]
    best = result.get("best")
    accuracies = [one.best_accuracy for one in runs if one.best_accuracy is not None]
    number = _json(folder, POPULATION).get("trials") or len(runs)
    epochs = max((one.epochs or 0.0 for one in runs), default=0.0)
    done = sum(one.epoch or 0.0 for one in runs) / (epochs * number) if runs and epochs else 0.0
    status = str(result["status"]) if has_ended else _status(folder)
    return Listed(
        name=folder.name,
        kind="population",
        status=status,
        run_dir=str(folder),
        epoch=done * epochs,
        epochs=epochs or None,
        test_accuracy=next((one.test_accuracy for one in runs if one.name == best), None),
        validation_accuracy=next((one.validation_accuracy for one in runs if one.name == best), None),
        best_accuracy=max(accuracies, default=None),
        eta_s=_population_eta_s(trials, done) if status == RUNNING else None,
        wall_s=result.get("wall_s") if has_ended else None,
        data_source=result.get("data_source"),
        trials=number,
        best_trial=best,
        reason=result.get("reason"),
    )


def _status(folder: Folder) -> str:
    """Of one that has no result: whether something works on it."""
    return RUNNING if folder.is_held() else UNFINISHED


def _ended(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: result.get(name) for name in ("wall_s", "data_source", "reason")}
    accuracy = result.get("test_accuracy")
    return {**kept, "status": str(result.get("status", "failed"))} | (
        {} if accuracy is None else {"test_accuracy": accuracy}
    )


def _eta_s(folder: Folder, position: float | None, total: float | None) -> float | None:
    """Seconds to the end, at the pace since the last group was formed."""
    joined = [row for row in _rows(folder, "events.jsonl") if row.get("kind") in JOINS]
    if not joined or position is None or total is None:
        return None
    done = position - joined[-1]["position"]
    return (time.time() - joined[-1]["time"]) / done * (total - position) if done > 0 else None


def _population_eta_s(trials: list[Folder], done: float) -> float | None:
    """Seconds until all trials have ended, at the pace since the first began."""
    starts = [rows[0]["time"] for one in trials if (rows := _rows(one, "events.jsonl")) and "time" in rows[0]]
    return (time.time() - min(starts)) * (1 - done) / done if starts and done > 0 else None


def _end(row: Mapping[str, Any]) -> float | None:
    """The position after the update of a row."""
    return row["position"] + row["global_batch"] if "position" in row and "global_batch" in row else None


def _ratio(value: float | None, unit: float | None) -> float | None:
    return value / unit if value is not None and unit else None


def _json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        return dict(folder.read_json(name)) if folder.exists(name) else {}
    except DAMAGE:
        return {}


def _rows(folder: Folder, name: str) -> list[dict[str, Any]]:
    try:
        return [row for row in folder.read_rows(name) if isinstance(row, dict)]
    except Exception:
        return []
