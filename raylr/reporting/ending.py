"""How a run has ended, for people: status and length, accuracy with the best one, where it is, and what to do next."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raylr.planning.loop_plan import LOOP
from raylr.reporting.bar import duration
from raylr.storage import Folder

TRACEBACK = "Traceback (most recent call last):"
DISTURBANCES = {  # counts of result.json, in the user's words: one, several
    "restarts": ("restart from a checkpoint", "restarts from a checkpoint"),
    "rejoins": ("worker replaced", "workers replaced"),
    "resizes": ("change of the number of workers", "changes of the number of workers"),
    "rollbacks": ("rollback", "rollbacks"),
    "corruptions": ("wrong result of a worker", "wrong results of workers"),
}


def summary(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines about a result.json and the rows of its metrics.jsonl."""
    length = [f"{result['epochs']:.4g} epochs"] if "epochs" in result else []
    length += [f"{result['steps']:,} updates"] if "steps" in result else []
    text = ", ".join(length) + (f" in {duration(result['wall_s'])}" if length and "wall_s" in result else "")
    yield f"{result['status']}" + (f": {text}" if text else "")
    if (accuracy := result.get("validation_accuracy")) is not None:
        yield f"validation accuracy {accuracy:.2%}{_best(accuracy, rows)}"
        rows = ()  # of the test images there is one test
    if (accuracy := result.get("test_accuracy")) is not None:
        yield f"test accuracy {accuracy:.2%}{_best(accuracy, rows)}"
    elif told := [f"{name.replace('_', ' ')} {result[name]:.4g}" for name in result if _is_metric(name, result[name])]:
        yield ", ".join(told)
    if own := {name: value for name, value in result.get("metrics", {}).items() if isinstance(value, int | float)}:
        yield ", ".join(f"{name} {value:.4g}" for name, value in own.items() if name != "test_accuracy")
    if told := list(_disturbances(result)):
        yield f"on the way: {', '.join(told)}"


def _is_metric(name: str, value: object) -> bool:
    return name.startswith("test_") and isinstance(value, float)


def _best(accuracy: float, rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) < 2:
        return ""
    best = max(rows, key=lambda row: row["test_accuracy"])
    if best["test_accuracy"] <= accuracy:
        return f", the best of {len(rows)} tests"
    return f", the best was {best['test_accuracy']:.2%} at epoch {best['epoch']:.4g}"


def _disturbances(result: Mapping[str, Any]) -> Iterator[str]:
    for name, words in DISTURBANCES.items():
        if count := result.get(name):
            yield f"{count} {words[count > 1]}"


def next_commands(result: Mapping[str, Any], folder: Folder, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Two commands that a user may want next."""
    run = named(folder)
    if result["status"] == "complete":
        step = max(0, int(result.get("steps", 1)) - 1)
        return [f"raylr report {run}", f"raylr explain {run} --step {step}" if rows else f"raylr export {run}"]
    again = f"raylr train {shlex.quote(str(folder))}/config.json"
    return ["its own script goes on with it" if result.get("task") == LOOP else again, f"raylr report {run}"]


def named(folder: Folder) -> str:
    """The run as a command takes it: by its name where it is in `runs`."""
    if folder.is_local and Path(folder.storage).resolve() == Path("runs").resolve():
        return shlex.quote(folder.name)
    return shlex.quote(str(folder))


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
