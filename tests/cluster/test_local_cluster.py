"""Local clusters with the real commands: one is shared by most tests, a second comes up beside it and crashes."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import ConfigError, RaylrError
from raylr.running.local_cluster import commands as cluster
from raylr.running.local_cluster import nodes as cluster_nodes
from raylr.running.local_cluster.commands import LocalCluster
from raylr.running.local_cluster.state import read
from raylr.running.ray_internals.features import features
from tests.cluster.commands import SMALL, Command, needs, said_by

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(180), needs("local_nodes")]


def left_of(one: LocalCluster, index: int | None = None) -> set[int]:
    """Running processes with the id of the cluster (of its node) in the environment, or its temporary folder's name
    in the command line."""
    words = [f"{one.temp_dir.name}", f"{one.id}"] if index is None else [f"{one.id}/{index}\0"]
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
    return {pid for pid in pids if any(word.encode() in said_by(pid) for word in words)}


def wait_until(holds: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not so after {timeout_s:g} s"
        time.sleep(0.05)


def answer(one: LocalCluster, token: str | None) -> int:
    """The HTTP status with which the job server answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{one.dashboard}/api/jobs/", headers=headers)) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clusters")


@pytest.fixture(scope="module")
def shared(clusters: Path) -> Iterator[LocalCluster]:
    home = clusters / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))  # of the nodes and of what runs on them
        one = cluster.up("shared", nodes=2, cpus=1, clusters=clusters)
    yield one
    cluster.down("shared", clusters=clusters)
    assert not (home / ".ray").exists()  # no token but the cluster's own
    assert left_of(one) == set()
    assert not one.temp_dir.exists()
    assert not one.folder.exists()


def test_all_nodes_are_alive_after_up(shared: LocalCluster, clusters: Path) -> None:
    states = [(node.index, node.cpus, node.state) for node in cluster.status("shared", clusters=clusters).nodes]
    assert states == [(0, 1, "alive"), (1, 1, "alive")]
    assert len(left_of(shared)) > len(left_of(shared, 0)) > len(left_of(shared, 1)) >= 4


def test_the_state_is_json_and_the_token_is_for_its_owner_only(shared: LocalCluster) -> None:
    assert json.loads((shared.folder / "state.json").read_text())["dashboard"] == shared.dashboard
    assert shared.env["RAY_AUTH_TOKEN_PATH"] == str(shared.folder / "token")
    assert shared.token_path.stat().st_mode & 0o777 == 0o600


def test_the_job_server_refuses_a_missing_and_a_wrong_token(shared: LocalCluster) -> None:
    assert answer(shared, None) == 401
    assert answer(shared, "0" * 64) == 403
    assert answer(shared, shared.token_path.read_text()) == 200


def test_more_workers_or_trials_than_the_cluster_holds_are_refused_with_the_numbers(
    shared: LocalCluster, tmp_path: Path
) -> None:
    storage, cache = f"--storage={tmp_path}", f"--data.cache-dir={tmp_path / 'cache'}"
    run = Command(
        "train", *SMALL[:-1], cache, storage, "--workers=3", f"--address={shared.address}", cwd=tmp_path, **shared.env
    )
    code, _, err = run.end(60)
    message = "workers=3 need 3 CPUs, but the cluster has 2; lower --workers or add a node"
    assert (code, err) == (2, f"error: {message}\n")
    many = ["--trials=3", "--interval=1ep", "--workers=1"]
    code, _, err = Command(
        "explore", *SMALL[:-1], cache, storage, *many, f"--address={shared.address}", cwd=tmp_path, **shared.env
    ).end(60)
    message = "trials=3 of 1 workers need 3 CPUs at once, but the cluster has 2; use --trials 2"
    assert (code, err) == (2, f"error: {message}\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}  # no run folder


def test_a_run_is_refused_in_one_line_without_the_token_and_where_nothing_listens(
    shared: LocalCluster, tmp_path: Path
) -> None:
    flags = ["train", *SMALL, str(tmp_path / "cache"), f"--storage={tmp_path}"]
    strange = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    refused = Command(*flags, f"--address={shared.address}", cwd=tmp_path, **strange).end(120)
    reason = "does not take the token; RAY_AUTH_TOKEN_PATH must name the file with the cluster's"
    assert (refused[0], refused[2]) == (2, f"error: address={shared.address} {reason}\n")
    code, _, err = Command(*flags, "--address=127.0.0.1:1", cwd=tmp_path).end(120)
    assert (code, err) == (2, "error: address=127.0.0.1:1 does not answer: Connection refused\n")


@contextlib.contextmanager
def another_version(one: LocalCluster, field: str, version: str) -> Iterator[None]:
    """Let the cluster's head tell another version of itself for a while."""
    program = """
import json, sys
from ray._raylet import GcsClient
address, field, version = sys.argv[1:]
head, key, names = GcsClient(address=address), b"CLUSTER_METADATA", b"cluster"
told = json.loads(head.internal_kv_get(key, names))
print(told[field])
head.internal_kv_put(key, json.dumps({**told, field: version}).encode(), True, names)
"""

    def tell(number: str) -> str:
        command = [sys.executable, "-c", program, one.address, field, number]
        env = {**os.environ, **one.env}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    before = tell(version)
    try:
        yield
    finally:
        tell(before)


@pytest.mark.parametrize(
    ("field", "theirs"), [("ray_version", "Ray 2.51.0 on"), ("python_version", "on Python 2.51.0,")]
)
def test_a_cluster_of_another_ray_or_python_is_refused_in_one_line_with_both(
    shared: LocalCluster, tmp_path: Path, field: str, theirs: str
) -> None:
    flags = ["train", *SMALL, str(tmp_path / "cache"), f"--storage={tmp_path}", f"--address={shared.address}"]
    with another_version(shared, field, "2.51.0"):
        code, _, err = Command(*flags, cwd=tmp_path, **shared.env).end(60)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert err.startswith(f"error: address={shared.address} runs Ray ")
    assert theirs in err
    assert f"and this driver has Ray {features().ray} on Python {platform.python_version()}; use the cluster's" in err


def test_a_job_server_that_does_not_answer_is_told_in_one_line() -> None:
    address = "http://127.0.0.1:1"
    refused = Command("submit", f"--address={address}", "--", "--workers=1", cwd=ROOT).end(120)
    assert (refused[0], refused[2]) == (2, f"error: address={address} does not answer: Connection refused\n")


def test_the_printed_line_runs_a_job_that_sees_all_nodes(shared: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os, subprocess, ray\n"
        "ray.init(log_to_driver=False)\n"
        "print('nodes', len(ray.nodes()), 'waits', os.environ['RAY_JOB_STOP_WAIT_TIME_S'])\n"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)  # outlives its job; `down` must find it\n"
    )
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    line = shared.submit_line("python job.py")
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "nodes 2 waits 30" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_a_killed_node_is_dead_at_once_and_another_joins(shared: LocalCluster, clusters: Path) -> None:
    killed = cluster.kill_node("shared", 1, clusters=clusters)
    assert [node.state for node in killed.nodes] == ["alive", "dead"]
    assert left_of(shared, 1) == set()
    cluster.add_node("shared", cpus=1, clusters=clusters)
    now = cluster.status("shared", clusters=clusters)
    assert [(node.index, node.state) for node in now.nodes] == [(0, "alive"), (1, "dead"), (2, "alive")]


def test_two_clusters_live_side_by_side_and_a_crashed_one_is_ended_completely(
    shared: LocalCluster, clusters: Path
) -> None:
    second = cluster.up("second", nodes=1, cpus=1, clusters=clusters)
    assert answer(shared, second.token_path.read_text()) == 403
    os.kill(second.nodes[0].process.pid, signal.SIGKILL)
    wait_until(lambda: not second.runs())
    assert left_of(second)  # its agents live on for a while
    with pytest.raises(ConfigError, match="name=second, this cluster is gone: its head has ended"):
        cluster.status("second", clusters=clusters)
    cluster.down("second", clusters=clusters)
    assert left_of(second) == set()
    assert not second.temp_dir.exists()
    assert cluster.status("shared", clusters=clusters).nodes[0].state == "alive"


def test_down_ends_what_a_killed_up_had_started(clusters: Path) -> None:
    command = f"from raylr.running.local_cluster.commands import Path, up; up('cut', clusters=Path({str(clusters)!r}))"
    starting = subprocess.Popen([sys.executable, "-c", command])
    wait_until(lambda: (one := read(clusters / "cut")) and len(left_of(one)) > 2)
    with pytest.raises(ConfigError, match="name=cut, another command works on this cluster; wait for its end"):
        cluster.down("cut", clusters=clusters)
    starting.kill()
    starting.wait()
    one = read(clusters / "cut")
    assert one
    assert left_of(one)
    cluster.down("cut", clusters=clusters)
    assert left_of(one) == set()


def test_a_node_that_does_not_come_up_is_told_with_its_cause_and_leaves_nothing(
    clusters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_nodes, "OBJECT_STORE_BYTES", 1)  # less than Ray takes
    with pytest.raises(RaylrError, match=r"node 0 ended while it started: .*minimum allowed.*; all it said: .*-0.log"):
        cluster.up("small", nodes=1, clusters=clusters)
    assert [path.name for path in (clusters / "small").iterdir()] == ["node-0.log"]
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"node-name=small" in said_by(int(pid))]


def test_a_name_and_a_port_in_use_are_refused(shared: LocalCluster, clusters: Path) -> None:
    port = int(shared.dashboard.rpartition(":")[2])
    with pytest.raises(
        ConfigError, match=f"name=shared, it is up at {shared.dashboard}; end it first, or use another name"
    ):
        cluster.up("shared", clusters=clusters)
    with pytest.raises(ConfigError, match=rf"dashboard_port={port}, the port is in use; use \d+ or leave it out"):
        cluster.up("other", dashboard_port=port, clusters=clusters)


def test_only_living_nodes_beside_the_head_can_be_killed(shared: LocalCluster, clusters: Path) -> None:
    with pytest.raises(
        ConfigError, match='index=0, a cluster ends with its head; use "raylr cluster down --name shared"'
    ):
        cluster.kill_node("shared", 0, clusters=clusters)
    with pytest.raises(ConfigError, match=r"index=7, no such node is alive; use [12]"):
        cluster.kill_node("shared", 7, clusters=clusters)


@pytest.mark.parametrize("verb", [cluster.status, cluster.down, cluster.add_node])
def test_a_verb_without_an_up_names_the_clusters_that_are(verb: Any, shared: LocalCluster, clusters: Path) -> None:
    with pytest.raises(ConfigError, match="name=lost, no such cluster is up; those that are: shared"):
        verb("lost", clusters=clusters)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "../home/me"}, "name=../home/me, a cluster's name is of letters, digits, - and _; use home-me"),
        ({"nodes": 0}, "nodes=0, it counts from one; use 1"),
        ({"cpus": -1}, "cpus=-1, it counts from one; use 1"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(wrong: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        cluster.up(**wrong, clusters=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 30 * "x")
    with pytest.raises(ConfigError, match=r"TMPDIR=/tmp/x+, Ray's socket paths leave it \d+ bytes; use TMPDIR=/tmp"):
        cluster.up(clusters=tmp_path)


def test_a_state_that_is_none_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"local/state.json is not a cluster's state .*; delete the file"):
        cluster.down(clusters=tmp_path)
