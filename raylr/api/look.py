"""`raylr.explain` and `raylr.report`: what a run did, from its folder alone."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from raylr.storage import open_run

Run = str | PathLike[str]


def explain(run: Run, step: int, storage: str = "runs") -> str:
    """Return why the LR of one update was what it was: each factor and its cause, as text.

    `run` is a run's folder, or its name under `storage`; the first update is step 0. Raises ConfigError when there is no
    such run or update.
    """
    from raylr.reporting.runs import explain_step

    return explain_step(open_run(_text(run), storage), step)


def report(runs: Run | Sequence[Run], out: str | PathLike[str] = "report.html", storage: str = "runs") -> Path:
    """Lay runs over each other in one self-contained HTML page, and return its path.

    Each of `runs` is a run's folder, or its name under `storage`. Raises ConfigError when there is no such run.
    """
    from raylr.reporting.report import report_on

    named = [runs] if isinstance(runs, str | PathLike) else list(runs)
    return report_on([_text(run) for run in named], storage, Path(out))


def _text(run: Run) -> str:
    return str(run)
