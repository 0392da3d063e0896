"""A run on a cluster whose autoscaler starts nodes: Ray's own for tests, which starts real ones on this machine."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from raylr.running.local_cluster import commands as cluster
from raylr.running.local_cluster import nodes as cluster_nodes
from raylr.running.local_cluster.commands import LocalCluster
from tests.cluster.commands import SMALL, Command, kinds, rows, wait_until

NOTHING = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)
PROVIDER = {
    "type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
    "disable_launch_config_check": True,
}  # fmt: skip
CONFIG = {
    "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": 10, "upscaling_speed": 1.0,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "more": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default", "file_mounts_sync_continuously": False,
    **{name: {} for name in ("auth", "docker", "file_mounts")}, **{name: [] for name in NOTHING},
}  # fmt: skip

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node; its autoscaler may start two more."""
    folder, plain = tmp_path_factory.mktemp("scaling"), cluster_nodes._command

    def command(one: LocalCluster, index: int, cpus: int) -> list[str]:
        config = {**CONFIG, "provider": {**PROVIDER, "gcs_address": one.address}}
        (folder / "autoscaling.yaml").write_text(yaml.safe_dump(config))
        return [*plain(one, index, cpus), f"--autoscaling-config={folder / 'autoscaling.yaml'}"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_nodes, "_command", command)
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        patch.setenv("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "fffffffffffffffffffffffffffffffffffffffffffffffffff00000")
        one = cluster.up("scaling", nodes=1, cpus=1, clusters=folder)
    yield one
    cluster.down("scaling", clusters=folder)


def test_a_run_waits_for_the_node_that_an_autoscaler_starts_and_says_for_what(
    scaling: LocalCluster, tmp_path: Path
) -> None:
    flags = [*SMALL, str(tmp_path / "cache"), "--epochs=1", f"--address={scaling.address}", f"--storage={tmp_path}"]
    code, out, err = Command("train", *flags, "--workers=2", "--name=two", cwd=tmp_path, **scaling.env).end(400)
    assert code == 0, err + out
    assert "waiting for nodes: workers=2 need 2 CPUs, but the cluster has 1" in out
    assert json.loads(out.splitlines()[-1])["status"] == "complete"


def test_a_run_of_a_changing_number_of_workers_grows_by_the_node_that_an_autoscaler_starts(
    scaling: LocalCluster, tmp_path: Path
) -> None:
    flags = [*SMALL, str(tmp_path / "cache"), "--epochs=2000", f"--address={scaling.address}", f"--storage={tmp_path}"]
    run = Command("train", *flags, "--workers=2:3", "--name=grown", cwd=tmp_path, **scaling.env)
    wait_until(lambda: any(row["world_size"] == 3 for row in rows(tmp_path / "grown", "ledger.jsonl")), "three workers")
    run.signal(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 143, err
    assert "restart" not in kinds(tmp_path / "grown")
