"""`raylr submit`: a job handed to a cluster's job server, its log followed, its exit code passed on."""

import asyncio
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylr.errors import ConfigError, RaylrError, first_line
from raylr.running.job_server import ANSWER_TIMEOUT_S, JobServer, in_time, refusal
from raylr.running.local_cluster.state import STOP_WAIT_S
from raylr.running.signals import handling

FINISHED = {"SUCCEEDED": 0, "STOPPED": 143, "FAILED": 1}
SUBMIT_TIMEOUT_S = 600.0  # the working directory goes with it
CONNECTIONS = 5  # to a log, without a new word in between, before only its end is waited for
ENTRY = ("python", "-m", "raylr")


@dataclass(frozen=True)
class Job:
    """What is asked of the cluster: `python -m raylr ARGUMENTS` in a copy of `folder`; `labels` are kept with it."""

    arguments: Sequence[str]
    folder: Path
    submission_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def submit(server: JobServer, job: Job) -> str:
    """Hand the job over and return its id. Raises ConfigError where the job server does not take it."""
    import ray.exceptions

    try:
        name: str = in_time(
            SUBMIT_TIMEOUT_S,
            server.client.submit_job,
            entrypoint=shlex.join([*ENTRY, *job.arguments]),
            submission_id=job.submission_id,
            metadata=dict(job.labels),
            runtime_env={
                "working_dir": str(job.folder),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if job.submission_id and f"submission_id {job.submission_id} already exists" in str(error):
            raise ConfigError(
                f"submission-id={job.submission_id} was used before on this cluster; give another, or leave it out"
            ) from error
        raise refusal(server.where, error) from error
    return name


def follow(server: JobServer, job: str, say: Callable[[str], None]) -> int:
    """Say the job's log as it comes, in pieces with their line ends, and return the job's own exit code.

    Ctrl-C leaves the job as it is, and gives 130. Raises RaylrError when the job server is gone before the job has ended.
    """
    try:
        with handling(signal.default_int_handler, signal.SIGINT):
            asyncio.run(_whole_log(server.client, job, say))
            return _exit_code(server.client, job)
    except KeyboardInterrupt:
        say(f"job {job} goes on; `{verb(server)} --logs {job}` shows its log\n")
        return 130


def verb(server: JobServer) -> str:
    """Return the command that looks at the jobs of this server."""
    return f"raylr jobs {f'--cluster {server.own.name}' if server.own else f'--address {server.where}'}"


async def _whole_log(client: Any, job: str, say: Callable[[str], None]) -> None:
    """Say the log once, to the job's end; a connection that breaks is made again, and what was said is passed over."""
    import aiohttp

    said, tries = 0, CONNECTIONS
    while tries:
        before, passed = said, 0
        try:
            async for text in _pieces(client, job):
                fresh = text[max(0, said - passed) :]
                passed += len(text)
                said = max(said, passed)
                if fresh:
                    say(fresh)
            return
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            cause = first_line(error)
        if await asyncio.to_thread(_has_ended, client, job):
            await asyncio.to_thread(_say_rest, client, job, said, say)
            return
        tries = CONNECTIONS if said > before else tries - 1
        await asyncio.sleep(1)
    say(f"the log of job {job} can no longer be followed: {cause}\n")


async def _pieces(client: Any, job: str) -> Any:
    """The job's log as it comes. Raises OSError when the server is silent, which a log may well be."""
    pieces = aiter(client.tail_job_logs(job))
    while True:
        piece = asyncio.ensure_future(anext(pieces, None))
        while not (await asyncio.wait((piece,), timeout=ANSWER_TIMEOUT_S))[0]:
            await asyncio.to_thread(in_time, ANSWER_TIMEOUT_S, client.get_job_info, job)
        text = piece.result()
        if text is None:
            return
        yield text


def _has_ended(client: Any, job: str) -> bool:
    try:
        return in_time(ANSWER_TIMEOUT_S, client.get_job_info, job).status in FINISHED
    except (OSError, RuntimeError):
        return False


def _say_rest(client: Any, job: str, said: int, say: Callable[[str], None]) -> None:
    try:
        text: str = in_time(ANSWER_TIMEOUT_S, client.get_job_logs, job)
    except (OSError, RuntimeError) as error:
        text = f"{' ' * said}the end of the log of job {job} was not found: {first_line(error)}\n"
    if text[said:]:
        say(text[said:])


def _exit_code(client: Any, job: str) -> int:
    """Wait for the job's end; returns its exit code."""
    heard_at = time.monotonic()
    while True:
        try:
            info = in_time(ANSWER_TIMEOUT_S, client.get_job_info, job)
            heard_at = time.monotonic()
        except (OSError, RuntimeError) as error:
            if time.monotonic() - heard_at > ANSWER_TIMEOUT_S:
                raise RaylrError(f"the job server is gone, and what became of job {job} is not known") from error
        else:
            if info.status in FINISHED:
                return FINISHED[info.status] if info.driver_exit_code is None else int(info.driver_exit_code)
        time.sleep(0.5)
