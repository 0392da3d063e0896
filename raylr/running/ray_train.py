"""A Ray Train run from its start to its end, for one run or for all trials of a population."""

import os
from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig

from raylr.run_plan import Plan
from raylr.running.backend import LeanTrainer, OwnGroupConfig
from raylr.running.driver import RAY_FOLDER
from raylr.running.room import resources
from raylr.storage import Folder


def fit(
    rank: Callable[[dict[str, Any]], Any],
    settings: dict[str, Any],
    plan: Plan,
    folder: Folder,
    outcome: dict[str, Any],
    trials: int = 1,
    gpus: float = 1.0,
) -> None:
    """Run `rank(settings)` on the plan's workers, or on those of so many trials, each with a share of a GPU.

    Returns when all have ended; puts the `trainer` into `outcome`, and at the end its `result` or `error`.
    """
    low, high = plan.workers
    if low != high:  # how long Train waits for nodes that have gone; 60 s by default
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    trainer = LeanTrainer(
        rank,
        train_loop_config=settings,
        backend_config=OwnGroupConfig(plan.failure_mode == "continue"),
        scaling_config=ScalingConfig(
            num_workers=trials * high if low == high else (low, high),
            use_gpu=plan.device == "cuda",
            resources_per_worker=resources(plan, gpus),
            elastic_resize_monitor_interval_s=2.0,
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(folder),
            failure_config=FailureConfig(plan.max_failures, controller_failure_limit=plan.max_failures),
        ),
    )
    outcome["trainer"] = trainer
    try:
        outcome["result"] = trainer.fit().return_value
    except Exception as error:
        outcome["error"] = error
