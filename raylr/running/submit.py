"""`raylr submit`: a job handed to a cluster's job server, its log followed, its exit code passed on."""

import asyncio
import http.client
import logging
import os
import shlex
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raylr.errors import ConfigError, RaylrError, first_line
from raylr.running.local_cluster.state import STOP_WAIT_S
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.start import newest_cluster
from raylr.running.session import check_reachable, found_cluster, set_up
from raylr.running.signals import handling
from raylr.storage.home import find_a_home

SCRIPT = "jobs/train_cifar10.py"
FINISHED = {"SUCCEEDED": 0, "STOPPED": 143, "FAILED": 1}
CONNECT_TIMEOUT_S = 10.0
MAX_PORT = 65_535
SILENCE_TIMEOUT_S = 30.0  # how long a job server may be silent after it took the job
SUBMIT_TIMEOUT_S = 600.0  # the working directory goes with it


def submit(
    arguments: Sequence[str],
    address: str | None,
    submission_id: str | None,
    working_dir: Path,
    say: Callable[[str], None],
) -> int:
    """Submit `python jobs/train_cifar10.py ARGUMENTS`, follow its log, and return the driver's own exit code.

    `say` gets the log as it comes: pieces of text with their line ends.

    A given address goes before those of RAY_API_SERVER_ADDRESS and RAY_ADDRESS; the token is where Ray puts it
    (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token). Raises ConfigError when the job server does not answer or
    does not let us in, RaylrError when it is gone before the job has ended.
    """
    if not (working_dir / SCRIPT).exists():
        raise ConfigError(f"working-dir={working_dir} has no {SCRIPT}; run this in a checkout of the project")
    find_a_home()  # where Ray looks for a token
    features()  # refuses a Ray that is too old
    _check_server(address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or _newest())
    if address:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray lets its own variables go before what a caller says
    os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
    import ray.exceptions
    from ray.job_submission import JobSubmissionClient

    for logger in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # the latter has a level of its own
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        client = JobSubmissionClient(address)
        job = _in_time(
            SUBMIT_TIMEOUT_S,
            client.submit_job,
            entrypoint=shlex.join(["python", SCRIPT, *arguments]),
            submission_id=submission_id,
            runtime_env={
                "working_dir": str(working_dir),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if submission_id and f"submission_id {submission_id} already exists" in str(error):
            raise ConfigError(
                f"submission-id={submission_id} was used before on this cluster; give another, or leave it out"
            ) from error
        where = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "none given"
        raise ConfigError(f"address={where}: no job was submitted: {first_line(error)}{_proxy(where)}") from error
    say(f"job {job} is submitted; Ctrl-C leaves it running, `ray job stop {job}` stops it with a checkpoint\n")
    try:
        with handling(signal.default_int_handler, signal.SIGINT):  # which leaves the job as it is
            return _ended(client, job, say)
    except KeyboardInterrupt:
        say(f"job {job} goes on; `ray job logs --follow {job}` shows its log\n")
        return 130


def _check_server(where: str) -> None:
    """Raise ConfigError, at once or after a deadline, where no job server can be reached through this address."""
    if where.startswith(("http://", "https://")):
        try:
            parts = urlsplit(where)
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ConfigError(f"address={where} is no address ({error}); use one such as http://HOST:8265") from None
        if host and not _proxy(where):
            _connect(where, host, port)
    elif where == "auto":
        set_up()
        found_cluster(where)
    elif "://" not in where:
        name, _, number = where.rpartition(":")
        hint = f"; the address of a job server begins with http://, such as http://{where}"
        if not name or not number.isdecimal() or int(number) > MAX_PORT:
            raise ConfigError(f"address={where} is no address{hint}")
        _connect(where, name.strip("[]"), int(number), hint)
        if _speaks_http(name.strip("[]"), int(number)):
            raise ConfigError(f"address={where} needs its scheme; use http://{where}")
        set_up()
        check_reachable(where)  # a cluster's own address, whose job server Ray finds


def _newest() -> str:
    """Return `auto` where a cluster was started on this machine, else the address that Ray takes then."""
    set_up()
    try:
        newest_cluster()
    except ConfigError:
        return "http://127.0.0.1:8265"
    return "auto"


def _connect(where: str, host: str, port: int, hint: str = "") -> None:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"address={where} does not answer: {error.strerror or error}{hint}") from error


def _speaks_http(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _proxy(where: str) -> str:
    """Return a hint where the environment leads requests to this address through a proxy; else nothing."""
    parts = urlsplit(where)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    shown = proxy.rpartition("@")[2].rpartition("//")[2]  # without a password
    return f"; a proxy is set ({shown}) and was asked for it: add {parts.hostname} to NO_PROXY if it is not to be"


def _ended(client: Any, job: str, say: Callable[[str], None]) -> int:
    """Follow the job's log to its end; returns its exit code."""
    import aiohttp

    try:
        asyncio.run(_follow(client, job, say))
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        say(f"the log of job {job} can no longer be followed: {first_line(error)}\n")
    heard_at = time.monotonic()
    while True:
        try:
            info = _in_time(SILENCE_TIMEOUT_S, client.get_job_info, job)
            heard_at = time.monotonic()
        except (OSError, RuntimeError) as error:
            if time.monotonic() - heard_at > SILENCE_TIMEOUT_S:
                raise RaylrError(f"the job server is gone, and what became of job {job} is not known") from error
        else:
            if info.status in FINISHED:
                return FINISHED[info.status] if info.driver_exit_code is None else int(info.driver_exit_code)
        time.sleep(0.5)


async def _follow(client: Any, job: str, say: Callable[[str], None]) -> None:
    """Say the job's log as it comes. Raises OSError when the server is silent, which a log may well be."""
    pieces = aiter(client.tail_job_logs(job))
    while True:
        piece = asyncio.ensure_future(anext(pieces, None))
        while not (await asyncio.wait((piece,), timeout=SILENCE_TIMEOUT_S))[0]:
            await asyncio.to_thread(_in_time, SILENCE_TIMEOUT_S, client.get_job_info, job)
        text = piece.result()
        if text is None:
            return
        say(text)


def _in_time(timeout_s: float, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a call answers that has no deadline of its own. Raises TimeoutError, an OSError, without an answer in time."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(ask(*arguments, **named))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="job server")
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return answers[0]


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path("~/.ray/auth_token").expanduser().exists()
