"""jobs/slurm.sh on two fake hosts: SIGUSR1 before the time limit, the queue, and the next start to the same weights."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import LONG, SMALL, assert_same, kinds, rows, wait_until
from tests.cluster.slurm import Allocation

SCRIPT = Path(__file__).parents[2] / "jobs/slurm.sh"
HOSTS = ["127.0.0.1", "127.0.0.2"]
TIMEOUT_S = 300  # a bound for a loaded machine

pytestmark = pytest.mark.timeout(900)


@dataclass
class Starts:
    """What came of the starts of one job."""

    codes: list[int] = field(default_factory=list)
    outs: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    requeued: list[list[str]] = field(default_factory=list)
    left: dict[int, bytes] = field(default_factory=dict)


def job_with_a_free_port() -> int:
    """A job id whose port, by the script's rule, nothing listens on."""
    for job in range(100, 6000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + job)) and probe.connect_ex(("127.0.0.1", 26000 + job)):
                return job
    raise AssertionError("no free port")


def of_job(job: int) -> dict[int, bytes]:
    """Processes that carry the job's id in their environment or their folder in their command."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"raylr-{job}-".encode() in said or f"SLURM_JOB_ID={job}\0".encode() in said:
            found[int(pid)] = said[:100]
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Allocation]:
    one = Allocation(tmp_path_factory.mktemp("slurm"), HOSTS, job_with_a_free_port())
    yield one
    for pid in of_job(one.job):
        os.kill(pid, signal.SIGKILL)


def _trains_or_ended(run: Path, process: subprocess.Popen[str]) -> bool:
    return len(rows(run, "ledger.jsonl")) > 5 or process.poll() is not None


@pytest.fixture(scope="module")
def starts(job: Allocation, where: Path, expected_long: Any) -> Starts:
    """The time limit comes in the middle of the first start; the second is undisturbed."""
    told, run = Starts(), where / f"slurm-{job.job}"
    flags = [*SMALL, str(where / "cache"), *LONG, "--storage", str(where), "--precision", "fp32", "--workers", "2"]
    for restarts in (0, 1):
        process = job.start(SCRIPT, *flags, restarts=restarts)
        try:
            if not restarts:
                wait_until(partial(_trains_or_ended, run, process), "updates", TIMEOUT_S)
                process.send_signal(signal.SIGUSR1)
            out, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            job.end(process)
        told.codes.append(process.returncode)
        told.outs.append(out)
        told.statuses.append(json.loads((run / "result.json").read_text())["status"] if run.exists() else out)
        told.steps.append(len(rows(run, "ledger.jsonl")))
        told.requeued.append(job.requeued)
        told.left |= of_job(job.job)
    return told


def test_both_nodes_join_and_the_run_trains_on_them(starts: Starts, job: Allocation) -> None:
    out = starts.outs[0]
    assert f"slurm: job {job.job}, start 1, 2 nodes from 127.0.0.1, Ray at " in out
    assert "raylr: all 2 nodes have joined" in out, out
    assert re.search(r"^ *\d+\. workers +2 ", out, re.MULTILINE), out


def test_the_time_limit_leads_to_a_checkpoint_and_back_into_the_queue(
    starts: Starts, job: Allocation, where: Path
) -> None:
    out = starts.outs[0]
    assert (starts.codes[0], starts.statuses[0]) == (143, "stopped"), out
    assert "slurm: the time limit is near: the run stops with a checkpoint" in out
    assert out.rstrip().endswith(f"slurm: job {job.job} is back in the queue and goes on from the checkpoint")
    assert starts.requeued[0] == [str(job.job)]


def test_the_next_start_goes_on_to_the_same_weights_and_is_not_requeued(
    starts: Starts, job: Allocation, where: Path, expected_long: Any
) -> None:
    assert (starts.codes[1], starts.statuses[1]) == (0, "complete"), starts.outs[1]
    assert f"slurm: job {job.job}, start 2, 2 nodes" in starts.outs[1]
    assert 5 < starts.steps[0] < starts.steps[1] == expected_long[0]["steps"]
    run = f"slurm-{job.job}"
    assert_same(where, run, json.loads((where / run / "result.json").read_text()), expected_long)
    assert kinds(where / run).count("stop") == 1
    assert starts.requeued[1] == [str(job.job)]


def test_nothing_is_left_on_the_nodes(starts: Starts, job: Allocation) -> None:
    assert starts.left == {}
    assert list(Path("/tmp").glob(f"raylr-{job.job}-*")) == []


def fake_python(folder: Path, code: int = 143) -> str:
    """What stands in for Python where Ray does not matter: nodes and a run that go on until SIGTERM, and then end."""
    path = folder / "python"
    path.write_text(
        f"""#!/bin/bash
        case "$*" in
            *"raylr train"*) ready=trains; end="exit {code}" ;;
            *wait_for_nodes*) exit 0 ;;
            *) ready=/dev/null; end="exit 1" ;;
        esac
        sleep 60 >/dev/null 2>&1 &
        trap "kill $!; $end" TERM
        touch $ready
        wait $!
        """
    )
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("restarts", "more", "line"),
    [
        (
            100,
            {},
            "slurm: the job was started 101 times, which is the limit; sbatch the same with --name to go on from the",
        ),
        (3, {"FAKE_REQUEUE": "1"}, "could not be requeued; sbatch the same with --name to go on from the checkpoint"),
    ],
)
def test_a_job_that_does_not_come_back_says_how_to_go_on(
    tmp_path: Path, restarts: int, more: dict[str, str], line: str
) -> None:
    job = Allocation(tmp_path, ["127.0.0.1"], 4001)
    stands_in = fake_python(tmp_path)
    process = job.start(SCRIPT, restarts=restarts, PYTHON=stands_in, **more)
    try:
        wait_until((tmp_path / "trains").exists, "the run", 30)
        process.send_signal(signal.SIGUSR1)
        out, _ = process.communicate(timeout=60)
    finally:
        job.end(process)
    assert process.returncode == 143, out
    assert line in out.splitlines()[-1]
    assert len(job.requeued) == (0 if restarts == 100 else 1)


def test_a_job_that_scancel_ends_stops_with_a_checkpoint_and_stays_out_of_the_queue(tmp_path: Path) -> None:
    job = Allocation(tmp_path, ["127.0.0.1"], 4002)
    stands_in = fake_python(tmp_path)
    process = job.start(SCRIPT, PYTHON=stands_in)
    try:
        wait_until((tmp_path / "trains").exists, "the run", 30)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        job.end(process)
    assert (process.returncode, job.requeued) == (143, [])
    assert "slurm: ended by SIGTERM: the run stops with a checkpoint" in out


def test_a_refused_config_ends_the_job_with_2_even_near_the_time_limit(tmp_path: Path) -> None:
    job = Allocation(tmp_path, ["127.0.0.1"], 4003)
    stands_in = fake_python(tmp_path, 2)
    process = job.start(SCRIPT, PYTHON=stands_in)
    try:
        wait_until((tmp_path / "trains").exists, "the run", 30)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=60)
    finally:
        job.end(process)
    assert (process.returncode, job.requeued) == (2, [])


def test_the_script_asks_slurm_for_what_its_comment_says() -> None:
    """By sbatch(1): B: signals the batch shell alone; a requeued job keeps its id and, with append, its log."""
    asked = set(re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), re.MULTILINE))
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= asked
    subprocess.run(["bash", "-n", SCRIPT], check=True)
