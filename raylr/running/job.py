"""What a run and a population have in common on the driver."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo
from raylr.planning.plan import Plan

RAY_FOLDER = ".ray"  # what Ray Train wants to have on the storage; empty of ours, and removed at the end
Listener = Callable[[dict[str, Any]], None]


def data_for_workers(config: Config, info: DatasetInfo) -> dict[str, Any]:
    """The data's config with the source that was found, and paths that hold in any working directory."""
    absolute = {name: str(Path(getattr(config.data, name)).expanduser().resolve()) for name in ("root", "cache_dir")}
    source = info.source if info.source in ("cifar10", "synthetic") else str(Path(info.source).expanduser().resolve())
    return config.data.model_copy(update={**absolute, "source": source}).model_dump(mode="json")


def look_at_own_parts(plan: Plan) -> None:
    """Import torch on the driver only where the user's own model, loss or patterns could fail on the workers."""
    if ":" in plan.model or ":" in plan.loss or any(one.match != "*" for one in plan.optimizers.values()):
        from raylr.training.check import check

        check(plan)


def refuse_throw_away_storage(config: Config) -> None:
    """A submitted job runs in a copy of the working directory that Ray throws away."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not (
        "://" in config.storage or Path(config.storage).expanduser().is_absolute()
    ):
        raise ConfigError(
            f"storage={config.storage} is relative, and Ray throws a job's folder away; use an absolute path"
        )


def identity(plan: Plan, policy: Policy, info: DatasetInfo) -> dict[str, Any]:
    return {
        "policy_sha256": policy.sha256,
        "seed": plan.seed,
        "data_source": info.source,
        "data_sha256": info.data_sha256,
        "precision": plan.precision,
        "num_threads": plan.num_threads,
        "versions": {name: version(name) for name in ("raylr", "ray", "torch", "torchvision", "numpy")},
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {plan.device}",
    }
