"""The jobs of a cluster with the runs that they train: what its job server and the runs' folders tell."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raylr.errors import ConfigError, RaylrError, first_line
from raylr.reporting.rows import tests_of
from raylr.running.job_server import ANSWER_TIMEOUT_S, JobServer, in_time, refusal
from raylr.storage import POPULATION_RESULT, RUN_RESULT, run_folder


@dataclass(frozen=True)
class JobRow:
    """A job, newest last. Times are seconds since the epoch; `run` is the run's folder, `told` what its files say."""

    job: str
    status: str
    began: float | None
    ended: float | None
    run: str
    told: str

    def row(self) -> dict[str, Any]:
        """The job as plain data."""
        return dict(vars(self))


def jobs(server: JobServer) -> list[JobRow]:
    """Return the submitted jobs of a cluster by their start. Raises ConfigError where its job server does not tell."""
    try:
        found = in_time(ANSWER_TIMEOUT_S, server.client.list_jobs)
    except (OSError, RuntimeError) as error:
        raise refusal(server.where, error, "no jobs were listed") from error
    rows = [_row(one) for one in found if one.submission_id]
    return sorted(rows, key=lambda row: row.began or 0.0)


def stop(server: JobServer, job: str) -> None:
    """Ask a job to stop with a checkpoint. Raises ConfigError for one that is not there."""
    _asked(server, job, server.client.stop_job)


def log(server: JobServer, job: str) -> str:
    """Return the log of a job so far. Raises ConfigError for one that is not there."""
    return str(_asked(server, job, server.client.get_job_logs))


def status(server: JobServer, job: str) -> str:
    """Return how a job stands: PENDING, RUNNING, SUCCEEDED, STOPPED or FAILED."""
    return str(_asked(server, job, server.client.get_job_status).value)


def _asked(server: JobServer, job: str, ask: Any) -> Any:
    try:
        return in_time(ANSWER_TIMEOUT_S, ask, job)
    except (OSError, RuntimeError) as error:
        if "does not exist" in str(error):
            known = ", ".join(row.job for row in jobs(server)) or "none"
            raise ConfigError(f"job={job} is not on this cluster; it has {known}") from None
        raise refusal(server.where, error, f"job {job} was not reached") from error


def _row(found: Any) -> JobRow:
    name, storage = _run_of(found)
    began, ended = (None if at is None else at / 1000 for at in (found.start_time, found.end_time))
    run = f"{storage.rstrip('/')}/{name}" if name and storage else name
    told = _told(storage, name) if name and storage else ""
    return JobRow(found.submission_id, str(found.status.value), began, ended or None, run, told)


def _run_of(found: Any) -> tuple[str, str]:
    """Name and storage of the run: as `raylr submit` has labelled the job, else as its command says."""
    labels = found.metadata or {}
    if "raylr_run" in labels:
        return labels["raylr_run"], labels.get("raylr_storage", "")
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("--name", default="")
    flags.add_argument("--storage", default="")
    try:
        given, _ = flags.parse_known_args(shlex.split(found.entrypoint))
    except (ValueError, argparse.ArgumentError):  # of quotes that do not close
        return "", ""
    return given.name, given.storage


def _told(storage: str, name: str) -> str:
    """How the run stands by its files; nothing where they are not there, or not to be read from here."""
    try:
        folder = run_folder(storage, name)
        for file in (RUN_RESULT, POPULATION_RESULT):
            if folder.exists(file):
                result = folder.read_json(file)
                return ", ".join(filter(None, (str(result["status"]), _accuracy(result.get("test_accuracy")))))
        return _newest(tests_of(folder))
    except (OSError, RaylrError, ValueError, KeyError, ImportError) as error:
        return f"not read: {first_line(error)}"


def _newest(tests: Sequence[dict[str, Any]]) -> str:
    if not tests:
        return ""
    last = tests[-1]
    return f"epoch {last['epoch']:.2f}, {_accuracy(last['test_accuracy'], last.get('split', 'test'))}"


def _accuracy(value: float | None, split: str = "test") -> str:
    return "" if value is None else f"{split} accuracy {value:.2%}"
