"""skypilot.yaml against SkyPilot's own schema where it is installed, else against the fields that it documents.

SkyPilot is no dependency of the tests: it needs older versions of packages that Ray and MLflow share. The fields are those of
version 0.14.1, by `sky.utils.schemas` and docs.skypilot.co/en/latest/reference/yaml-spec.html, against which the file was
checked by hand as well.
"""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "skypilot.yaml").read_text()
FIELDS = {
    "task": "api_server_access config envs event_callback file_mounts managed_secrets name num_nodes pool resources run "
    "secrets service setup volumes workdir",
    "resources": "accelerator_args accelerators any_of autostop cloud cpus disk_size disk_tier ephemeral_storage image_id "
    "infra instance_type job_recovery labels local_disk max_hourly_cost memory network_tier ordered ports priority "
    "priority_class region use_spot volumes zone",
}
VARIABLES = {"SKYPILOT_NODE_IPS", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES", "SKYPILOT_NUM_GPUS_PER_NODE"}


def task() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def unknown(config: dict[str, Any]) -> list[str]:
    """Keys that SkyPilot does not document."""
    parts = {"task": config, "resources": config["resources"]}
    return [key for part, held in parts.items() for key in held if key not in FIELDS[part].split()]


def test_the_task_uses_only_fields_that_skypilot_knows() -> None:
    config = task()
    assert unknown(config) == []
    assert unknown(config | {"num_node": 2}) == ["num_node"]
    assert {type(config[key]) for key in ("name", "setup", "run", "workdir")} == {str}
    assert type(config["num_nodes"]) is int
    assert all(isinstance(value, str) for value in config["envs"].values())


@pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="SkyPilot is not installed")
def test_the_task_passes_skypilots_own_schema() -> None:
    from jsonschema import ValidationError, validate
    from sky.utils import schemas

    validate(task(), schemas.get_task_schema())
    validate(task()["resources"], schemas.get_resources_schema())
    with pytest.raises(ValidationError, match="num_node"):
        validate(task() | {"num_node": 2}, schemas.get_task_schema())


def test_the_versions_are_those_that_the_project_allows_and_its_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    versions = dict(re.findall(r'"([a-z]+)(?:\[[a-z,]+\])?==([0-9.]+)"', TEXT))
    assert versions.keys() == {"ray", "torch", "torchvision"}
    assert all(allowed[package].contains(version) for package, version in versions.items())
    assert f"raylr-{project['version']}-py3-none-any.whl" in TEXT
    assert versions == dict(re.findall(r'"([a-z]+)(?:\[[a-z,]+\])?==([0-9.]+)"', (ROOT / "cluster.yaml").read_text()))


def test_its_commands_are_sound_and_use_the_variables_that_skypilot_sets() -> None:
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n", "-c", task()[part]], check=True)
    assert set(re.findall(r"SKYPILOT_\w+", task()["run"])) == VARIABLES


def test_the_token_is_a_secret_that_must_be_given_and_skypilots_own_ray_is_left_alone() -> None:
    """By docs.skypilot.co: its Ray listens on 6380 and 8266, and `ray stop` may end it."""
    assert task()["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert "RAY_AUTH_MODE=token" in task()["run"]
    assert not re.search(r"\b(6380|8266)\b|ray stop", task()["run"])


def test_each_node_does_its_part(tmp_path: Path) -> None:
    """The head starts Ray, waits for all nodes, trains and passes the run's code on; the other starts Ray and ends with 0."""
    for name in ("ray", "python"):
        (tmp_path / "raylr/bin").mkdir(parents=True, exist_ok=True)
        told = f'#!/bin/bash\necho "{name} $*" >> "$HOME/told"\n'
        waits = (
            "exec sleep 60 >/dev/null 2>&1\n"
            if name == "ray"
            else '[[ "$*" == *"raylr train"* ]] && exit 143\nexit 0\n'
        )
        (tmp_path / "raylr/bin" / name).write_text(told + waits)
        (tmp_path / "raylr/bin" / name).chmod(0o700)
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NUM_GPUS_PER_NODE": "4", "RAY_AUTH_TOKEN": "x", "FLAGS": "--workers 8", "BUCKET": "s3://b/runs",
    }  # fmt: skip

    def run(rank: int) -> tuple[int, set[str]]:
        (tmp_path / "told").unlink(missing_ok=True)
        done = subprocess.run(
            ["timeout", "5", "bash", "-c", task()["run"]], env=env | {"SKYPILOT_NODE_RANK": str(rank)}, timeout=60,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, set((tmp_path / "told").read_text().splitlines())

    code, told = run(0)
    assert code == 143
    assert "python -m raylr.running.wait_for_nodes 10.0.0.1:6479 2" in told
    assert "python -m raylr train --address 10.0.0.1:6479 --storage s3://b/runs --workers 8" in told
    assert any("--head --port=6479" in line and "--num-gpus=4" in line for line in told)
    (tmp_path / "raylr/bin/ray").write_text('#!/bin/bash\necho "ray $*" >> "$HOME/told"\nexit 1\n')
    code, told = run(1)
    assert code == 0
    assert [line.split()[-1] for line in told] == ["--address=10.0.0.1:6479"]
