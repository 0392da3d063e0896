"""What the installed Ray offers, read from its files: Ray reads its environment when it is imported, so this imports none.

Every private name that raylr uses stands here with the file that must hold it. A feature is there when all of its names are;
nothing else asks for a version.
"""

import functools
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from raylr.errors import ConfigError
from raylr.planning.facts import NEWEST_RAY, OLDEST_RAY, OLDEST_TORCH, Features, refuse_older

_TRAIN, _CONTROL = "train/v2/_internal", "train/v2/_internal/execution"
_GROUP, _SCALING = f"{_CONTROL}/worker_group", f"{_CONTROL}/scaling_policy"
# By file of the package: names of a module, members of a class (Class.member), or text that is there ("text") or not (!"text").
Names = dict[str, tuple[str, ...]]
NEEDED: Names = {
    "train/v2/api/data_parallel_trainer.py": ("DataParallelTrainer",),
    "train/backend.py": ("Backend", "BackendConfig"),
    "actor.py": ('"def __ray_ready__("',),
}
FEATURES: dict[str, Names] = {
    "replace_one_worker": {
        "train/backend.py": ("Backend.has_replica_groups",),
        "train/v2/api/data_parallel_trainer.py": (
            "DataParallelTrainer._create_default_callbacks",
            "DataParallelTrainer._initialize_and_run_controller",
        ),
        f"{_TRAIN}/callbacks/__init__.py": ("DatasetsCallback",),
        f"{_TRAIN}/callbacks/placement_group_callback.py": ("PlacementGroupCleanerCallback",),
        f"{_TRAIN}/exceptions.py": ("WorkerGroupStartupFailedError",),
        f"{_CONTROL}/context.py": ("get_train_context", "TrainContext.execution_context"),
        f"{_CONTROL}/controller/controller.py": (
            "TrainController.worker_group_cls",
            "TrainController._failure_policy",
            "TrainController._worker_group",
            "TrainController._poll_workers",
            "TrainController._replace_bad_workers",
        ),
        f"{_CONTROL}/failure_handling/__init__.py": ("create_failure_policy",),
        f"{_SCALING}/fixed.py": ("FixedScalingPolicy",),
        f"{_SCALING}/scaling_policy.py": (
            "ScalingPolicy.after_controller_start",
            "ScalingPolicy._maybe_send_resource_request",
        ),
        f"{_GROUP}/worker_group.py": (
            "SynchronizationActor",
            "WorkerGroup._worker_cls",
            "WorkerGroup._worker_group_state",
            "WorkerGroup._replica_groups",
            "WorkerGroup._init_train_context_on_workers",
            "WorkerGroup._start",
            "WorkerGroup.has_started",
            "WorkerGroup.poll_status",
            "WorkerGroup.replace_replica_group",
        ),
        f"{_GROUP}/poll.py": ("WorkerStatus", "WorkerGroupPollStatus.failing_replica_group_indices"),
        f"{_GROUP}/state.py": ("_shutdown_sync_actor",),
        f"{_GROUP}/thread_runner.py": ("ThreadRunner._thread",),
        f"{_GROUP}/worker.py": ("RayTrainWorker.poll_status",),
        "runtime_context.py": ("RuntimeContext.current_actor",),
        "_private/state.py": ("actors",),
    },
    "elastic": {"train/v2/api/config.py": ("ScalingConfig.elastic_resize_monitor_interval_s",)},
    "local_cluster": {
        "scripts/scripts.py": ("main", '"--temp-dir"', '"--node-name"'),
        "_private/utils.py": ("write_ray_address",),
        "_common/utils.py": ('"ray_current_cluster"',),
    },
    "local_nodes": {"scripts/scripts.py": ('!"is a required flag to use `--temp-dir`"',)},  # then nodes share a folder
    "quiet_agent": {
        "dashboard/agent.py": ("persist_port",),  # the raylet learns the agent's ports from files
        "_private/services.py": ("start_ray_process", "RAY_PATH"),
    },
    "lean_start": {"_private/node.py": ("Node.start_api_server", "Node.start_monitor", "Node.start_log_monitor")},
    "population": {"tune/experiment/trial.py": ('"stub: bool"', '"_setup_default_resource: bool"')},
    "pbt": {
        "train/_internal/session.py": ("_TrainingResult",),
        "train/_internal/checkpoint_manager.py": ("_CheckpointManager._latest_checkpoint_result",),
        "tune/schedulers/pbt.py": (
            "PopulationBasedTraining._checkpoint_or_exploit",
            "PopulationBasedTraining._get_new_config",
            "PopulationBasedTraining._save_trial_state",
            "PopulationBasedTraining._trial_state",
        ),
    },
    "pb2_kernel": {"tune/schedulers/pb2_utils.py": ("TV_SquaredExp", '"sklearn"')},  # once it was of GPy
    "gcs_calls": {
        "_private/gcs_utils.py": ("create_gcs_channel",),
        "core/generated/gcs_service_pb2.py": ('"GetClusterIdRequest"', '"InternalKVGetRequest"'),
        "core/generated/gcs_service_pb2_grpc.py": ("NodeInfoGcsServiceStub", "InternalKVGcsServiceStub"),
    },
    "find_cluster": {"_private/services.py": ("find_gcs_addresses", "find_bootstrap_address")},
    "drains": {"_private/state.py": ("GlobalState.get_draining_nodes",)},
    "autoscaler_report": {
        "_private/ray_constants.py": ("DEBUG_AUTOSCALING_STATUS",),
        "autoscaler/v2/sdk.py": ("get_cluster_status",),
        "autoscaler/v2/utils.py": ("is_autoscaler_v2",),
        "experimental/internal_kv.py": ("_internal_kv_get",),
    },
}


@functools.cache
def features() -> Features:
    """The features of the installed Ray.

    Raises ConfigError, one line with what is installed and what is needed, for a Ray or a torch that is too old or not there,
    and for a Ray that has lost what nothing can stand in for.
    """
    refuse_older("torch", _installed("torch"), OLDEST_TORCH)
    found = find_spec("ray")
    return features_of(None if found is None or found.origin is None else Path(found.origin).parent)


def features_of(package: Path | None) -> Features:
    """The features of the Ray in this folder."""
    text = _text(package / "_version.py") if package is not None else ""
    number = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    refuse_older("ray", number and number[1], OLDEST_RAY)
    assert package is not None
    assert number is not None
    if lost := lacking(package, NEEDED):
        raise ConfigError(
            f"ray={number[1]} has no {lost[0]}, which raylr needs; use ray {OLDEST_RAY} to {NEWEST_RAY}: "
            f'pip install "ray=={NEWEST_RAY}.*"'
        )
    return Features(number[1], **{name: not lacking(package, names) for name, names in FEATURES.items()})


def lacking(package: Path, names: Names) -> list[str]:
    """The names that the files of a package do not hold, as `file: name`."""
    return [
        f"{file}: {name}" for file, wanted in names.items() for name in wanted if not _has(_text(package / file), name)
    ]


def _has(text: str, name: str) -> bool:
    if name.startswith("!"):
        return bool(text) and not _has(text, name[1:])
    if name.startswith('"'):
        return name.strip('"') in text
    owner, _, member = name.rpartition(".")
    if not owner:
        own = rf"^(?:async )?(?:class|def) {name}\b|^{name}\s*[:=]|^(?: {{4}}|from .*\bimport .*\b){name}\b\s*(?:,|$)"
        return re.search(own, text, re.MULTILINE) is not None
    inside = rf"^ {{4}}(?:async )?def {member}\b|^ {{4}}{member}\s*[:=]|^ {{8}}self\.{member}\s*[:=]"
    return re.search(inside, _body(text, owner), re.MULTILINE) is not None


def _body(text: str, owner: str) -> str:
    """The lines of a class at the top of a module, up to the next line that is not indented."""
    if (head := re.search(rf"^class {owner}\b.*(?:\n\).*)?", text, re.MULTILINE)) is None:
        return ""
    end = re.compile(r"^[^\s#)]", re.MULTILINE).search(text, head.end())
    return text[head.end() : end.start() if end else None]


def _text(path: Path) -> str:
    """A file's text; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
