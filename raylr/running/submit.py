"""`raylr submit`: a job handed to a cluster's job server, its log followed, its exit code passed on."""

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raylr.errors import ConfigError
from raylr.running.local import first_line

SCRIPT = "jobs/train_cifar10.py"
STOP_WAIT_S = 30  # Ray kills a stopped job after 3 s unless told otherwise: too soon for a checkpoint
EXCLUDES = ["/.git", "/.venv", "/.uv", "/runs", "/data", "/tests", "/benchmarks", "__pycache__", "*.egg-info"]
FINISHED = {"SUCCEEDED": 0, "STOPPED": 143, "FAILED": 1}


def submit(
    arguments: Sequence[str],
    address: str | None,
    submission_id: str | None,
    working_dir: Path,
    say: Callable[[str], None],
) -> int:
    """Submit `python jobs/train_cifar10.py ARGUMENTS`, follow its log, and return the driver's own exit code.

    The address and the token are found where Ray puts them (RAY_API_SERVER_ADDRESS, RAY_ADDRESS; RAY_AUTH_TOKEN_PATH,
    RAY_AUTH_TOKEN, ~/.ray/auth_token). Raises ConfigError when the job server does not answer or does not let us in.
    """
    if not (working_dir / SCRIPT).exists():
        raise ConfigError(f"working-dir={working_dir} has no {SCRIPT}; run this in a checkout of the project")
    os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=shlex.join(["python", SCRIPT, *arguments]),
            submission_id=submission_id,
            runtime_env={
                "working_dir": str(working_dir),
                "excludes": EXCLUDES,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"address={address or 'that of RAY_ADDRESS'}: no job was submitted: {first_line(error)}"
        ) from error
    say(f"job {job} is submitted; Ctrl-C leaves it running, `ray job stop {job}` stops it with a checkpoint")
    asyncio.run(_follow(client, job, say))
    while (info := client.get_job_info(job)).status not in FINISHED:
        time.sleep(0.5)
    return FINISHED[info.status] if info.driver_exit_code is None else int(info.driver_exit_code)


async def _follow(client: object, job: str, say: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):  # type: ignore[attr-defined]
        for line in lines.splitlines():
            say(line)


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path("~/.ray/auth_token").expanduser().exists()
