"""cluster.yaml and jobs/rayjob.yaml against Ray's schema, KubeRay's fields and what they promise."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent

# Fields of the ray.io/v1 API of KubeRay that a training job may need, by the object that holds them.
RAYJOB_FIELDS = {
    "RayJob": "apiVersion kind metadata spec",
    "spec": "activeDeadlineSeconds backoffLimit entrypoint entrypointNumCpus entrypointNumGpus entrypointResources "
    "jobId metadata rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig "
    "submitterPodTemplate suspend ttlSecondsAfterFinished",
    "rayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling headGroupSpec headServiceAnnotations "
    "rayVersion suspend workerGroupSpecs",
    "authOptions": "mode secretName",
    "autoscalerOptions": "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
    "volumeMounts",
    "headGroupSpec": "enableIngress headService rayStartParams serviceType template",
    "workerGroupSpec": "groupName maxReplicas minReplicas numOfHosts rayStartParams replicas scaleStrategy template",
}


def launcher_config() -> dict[str, Any]:
    return read_yaml((ROOT / "cluster.yaml").read_text())


def read_yaml(text: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def on_premise_config() -> dict[str, Any]:
    """What a user gets who follows the comment: the "#: " lines in place of those from provider to head_node_type."""
    text = (ROOT / "cluster.yaml").read_text()
    own = "\n".join(line.removeprefix("#: ") for line in text.splitlines() if line.startswith("#: "))
    head, _, rest = text.partition("provider:\n")
    return read_yaml(head + own + rest[rest.index("\ndocker:") :])


def checked(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r'"([a-z]+)(?:\[[a-z,]+\])?==([0-9.]+)"', text))


@pytest.mark.parametrize("config", [launcher_config, on_premise_config])
def test_the_launcher_config_passes_rays_own_schema(config: Any) -> None:
    assert checked(config())["cluster_name"] == "raylr"


def test_the_schema_check_sees_a_misspelt_field() -> None:
    with pytest.raises(Exception, match="max_worker'"):
        checked(launcher_config() | {"max_worker": 4})


def test_the_head_trains_nothing_and_gpu_workers_start_from_none() -> None:
    config = launcher_config()
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "--num-cpus=0 --num-gpus=0" in config["head_start_ray_commands"][-1]
    worker = config["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"] == 4
    assert worker["resources"] == {"CPU": 48, "GPU": 4}


def test_the_on_premise_lines_name_their_machines_and_have_no_node_types_of_a_cloud() -> None:
    prepared = checked(on_premise_config())
    assert prepared["provider"] == {"type": "local", "head_ip": "10.0.0.10", "worker_ips": ["10.0.0.11", "10.0.0.12"]}
    assert prepared["available_node_types"]["local.cluster.node"]["max_workers"] == 2


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/rayjob.yaml"])
def test_the_pinned_versions_are_ones_that_the_project_allows(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    versions = pinned((ROOT / name).read_text())
    assert versions.keys() == {"ray", "torch", "torchvision"}
    assert all(allowed[package].contains(version) for package, version in versions.items())
    assert f"raylr-{project['version']}-py3-none-any.whl" in (ROOT / name).read_text()
    assert f"rayproject/ray:{versions['ray']}-py311" in (ROOT / name).read_text()


def test_nothing_is_open_to_the_outside_and_the_token_travels_as_a_file() -> None:
    config = launcher_config()
    assert config["provider"]["use_internal_ips"] is True
    assert "security_group" not in config["provider"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/rayjob.yaml"])
def test_no_secret_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"AKIA|aws_secret|PRIVATE KEY|password|RAY_AUTH_TOKEN[:=]|[0-9a-f]{32}", text)


def test_the_rayjob_uses_only_fields_that_kuberay_knows() -> None:
    job = yaml.safe_load((ROOT / "jobs/rayjob.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    used = {"RayJob": job, "spec": job["spec"], "rayClusterSpec": cluster}
    used |= {part: cluster[part] for part in ("authOptions", "autoscalerOptions", "headGroupSpec")}
    used |= {"workerGroupSpec": cluster["workerGroupSpecs"][0]}
    assert [(part, field) for part in used for field in used[part] if field not in RAYJOB_FIELDS[part].split()] == []
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")


def test_the_rayjob_scales_gpu_workers_under_a_head_that_trains_nothing() -> None:
    cluster = yaml.safe_load((ROOT / "jobs/rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 4)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not container["image"].endswith(":latest")


def test_the_rayjob_gives_a_stopped_run_time_for_its_checkpoint() -> None:
    spec = yaml.safe_load((ROOT / "jobs/rayjob.yaml").read_text())["spec"]
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/rayjob.yaml"])
def test_the_wheel_and_the_image_are_of_the_version_that_ships(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / name).read_text()
    named = re.findall(r"raylr-([\d.]+)-py3|raylr:([\d.]+)", text)
    assert {wheel or image for wheel, image in named} == {version}
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
