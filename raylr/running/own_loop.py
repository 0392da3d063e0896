"""A loop of one's own inside stock Ray Train: its reports go to Ray too, and its ranks are those of the trainer's group."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed as dist

from raylr.errors import ConfigError
from raylr.storage import is_uri
from raylr.training.attached.loop import OwnLoop
from raylr.training.attached.surroundings import Plain

WHERE = "raylr.json"


class InRayTrain(Plain):
    """A worker of a TorchTrainer."""

    def __init__(self) -> None:
        size = ray.train.get_context().get_world_size()
        if size > 1 and not dist.is_initialized():
            raise ConfigError(
                f"Ray Train runs {size} workers that have no process group of torch; use ray.train.torch.TorchTrainer, or call "
                "torch.distributed.init_process_group before raylr.loop.attach"
            )
        super().__init__()

    def place(self, storage: str, name: str) -> tuple[str, str]:
        """As given. Raises ConfigError for a path in a copy of the working directory, which Ray throws away."""
        is_copy = bool(ray.get_runtime_context().runtime_env.get("working_dir"))
        if is_copy and not (is_uri(storage) or Path(storage).expanduser().is_absolute()):
            raise ConfigError(
                f"storage={storage} is relative, and Ray throws away the folder that this job runs in; use an absolute path "
                "that all nodes share, or a URI"
            )
        return storage, name

    def reported(self, loop: OwnLoop, row: Mapping[str, Any], kept_in: str | None) -> None:
        """Report to Ray Train, which keeps metrics with checkpoints: its own only says where ours is."""
        if kept_in is None:
            ray.train.report(dict(row))
            return
        with tempfile.TemporaryDirectory() as folder:
            where = {"run_dir": kept_in, "position": row["position"], "step": row["step"]}
            (Path(folder) / WHERE).write_text(json.dumps(where))
            ray.train.report(dict(row), checkpoint=ray.train.Checkpoint.from_directory(folder))


def is_train_worker() -> bool:
    """Whether this process runs a train function of Ray Train."""
    try:
        ray.train.get_context().get_world_size()
    except (RuntimeError, DeprecationWarning):  # the latter in a function of Ray Tune
        return False
    return True
