"""A run on three hosts, each with a network of its own: host names that mislead, links that are cut, a host that is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import hosts as own_hosts
from tests.cluster.commands import LONG, SMALL, assert_same, members, rows, wait_until

pytestmark = pytest.mark.timeout(300)
PORT = 6379
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # nothing outside the namespaces reaches it
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_worker_niceness": "0", "PYTHONUNBUFFERED": "1",
    "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "5000", "RAY_health_check_failure_threshold": "12",
}  # fmt: skip


class Cluster:
    """Three hosts with a Ray node each, of one CPU; drivers run on the first."""

    def __init__(self, hosts: own_hosts.Hosts, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_", "NCCL_"))}
        self.environment = {**kept, **ENVIRONMENT}
        self.address = f"{hosts.address(0)}:{PORT}"
        nodes = [self._start_node(index) for index in range(hosts.count)]
        wait_until(lambda: all(is_up() for is_up in nodes), "three nodes that have joined", 120)

    def _start_node(self, index: int) -> Any:
        temp_dir, log = self.folder / f"node-{index}", self.folder / f"node-{index}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={100 * 2**20}"]
        command += [f"--temp-dir={temp_dir}", f"--node-ip-address={self.hosts.address(index)}"]
        command += ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
        head = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        command += head if index == 0 else [f"--address={self.address}"]
        environment = {**self.environment, "RAY_NUM_REDIS_GET_RETRIES": "60"}
        process = self.hosts.start(index, command, environment, log)

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            return (temp_dir / "ray_current_cluster").exists()

        return is_up

    def train(self, where: Path, name: str, *flags: str, **environment: str) -> subprocess.Popen[str]:
        """The small run, by default on all three hosts, its driver on the first."""
        fixed = ["--storage", str(where), "--precision", "fp32", "--workers", "3", "--name", name]
        command = [sys.executable, "-m", "raylr", "train", *SMALL, str(where / "cache"), *fixed, *flags]
        return subprocess.Popen(
            self.hosts.command(0, *command, "--address", self.address), cwd=where, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**self.environment, **environment},
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := own_hosts.why_not():
        pytest.skip(reason)
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rh-") as name, own_hosts.Hosts(3, Path(name)) as hosts:
        yield Cluster(hosts, Path(name))


def ended(run: subprocess.Popen[str], timeout_s: float = 120) -> tuple[int, str, str]:
    try:
        out, err = run.communicate(timeout=timeout_s)
    finally:
        run.send_signal(signal.SIGKILL)
    return run.returncode, out, err


def test_plain_ddp_forms_its_group_on_such_hosts_too(where, cluster):
    code, out, err = ended(cluster.train(where, "ddp", "--batch.reduce", "ddp", "--workers", "2", "--epochs", "1"))
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["status"] == "complete"
    assert len({one["host"] for one in members(where / "ddp")}) == 2


def test_hosts_that_do_not_reach_each_other_end_the_run_in_a_line_that_names_both(where, cluster):
    one, other = (f"host {own_hosts.HOST_NAME} ({cluster.hosts.address(index)})" for index in (1, 2))
    with cluster.hosts.apart(1, 2):
        code, out, err = ended(cluster.train(where, "apart", "--failure.stall-s", "1"))
    assert code == 1, err
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "failed"
    reason = result["reason"]
    assert f"{one} does not reach {other} at port " in reason or f"{other} does not reach {one} at port " in reason
    assert reason.startswith(f"workers=3 on host {own_hosts.HOST_NAME} (")
    assert " came to no update in 3 groups over " in reason


def test_a_run_on_hosts_whose_names_mislead_keeps_the_local_hash_over_a_cut_link_and_a_lost_host(
    where, expected_long, cluster
):
    hosts, run_dir = cluster.hosts, where / "three"
    run = cluster.train(where, "three", *LONG, "--failure.stall-s", "3")

    def is_further(by: int) -> Any:
        before = len(rows(run_dir, "ledger.jsonl"))
        return lambda: len(rows(run_dir, "ledger.jsonl")) >= before + by

    def those_that_train() -> set[str]:
        return {one["host"] for one in members(run_dir)}

    wait_until(is_further(15), "15 updates", 60)
    assert those_that_train() == {hosts.address(index) for index in range(3)}
    hosts.cut(1)
    time.sleep(4.5)  # the length of the cut is what is tested
    hosts.mend(1)
    wait_until(is_further(5), "updates after the cut", 60)
    hosts.cut(2)
    wait_until(lambda: hosts.address(2) not in those_that_train(), "the others go on without the lost host", 60)
    code, out, err = ended(run)
    assert code == 0, err
    assert_same(where, "three", json.loads(out.splitlines()[-1]), expected_long)
    assert hosts.address(2) not in those_that_train()
