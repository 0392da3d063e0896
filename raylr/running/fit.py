"""A Ray Train run from its start to its end, for one run or for all trials of a population."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from raylr.errors import RaylrError
from raylr.planning.loop_plan import Workers
from raylr.planning.plan import Plan
from raylr.running.capacity import resources
from raylr.running.job import RAY_FOLDER
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.start import START_TIMEOUT
from raylr.running.ray_internals.stock import StockConfig, StockTrainer
from raylr.running.resizing import ResizableGroup
from raylr.storage import Folder

SHUTDOWN_TIMEOUT_S = 15.0  # for Ray Train to end after the run has
NEWS_S = 2.0  # every look takes time from the workers' cores
SAY_EVERY_S = 60.0  # when no news come: lost workers may wait for a place that no node has
SILENCE_TIMEOUT_S = 3600.0


class TrainRun:
    """`rank(settings)` on the plan's workers, or on those of so many trials, each with a share of a GPU.

    Ray Train runs in a thread of its own. `outcome` holds its `result` or `error` once it has ended.
    """

    def __init__(
        self,
        rank: Callable[[dict[str, Any]], Any],
        settings: dict[str, Any],
        plan: Plan | Workers,
        folder: Folder,
        trials: int = 1,
        gpus: float | None = None,
    ) -> None:
        self.trainer = _trainer(rank, settings, plan, folder, trials, gpus)
        self.outcome: dict[str, Any] = {}
        self.thread = threading.Thread(target=self._run, daemon=True, name="fit")

    def follow(
        self, news: Any, take: Callable[[Any], None], say: Callable[[str], None], look: Callable[[], None] | None = None
    ) -> Any:
        """Start, and pass on what the actor's method `news` gives, and what is true at the end, which is returned.

        `say` hears what is waited for. Ray Train is waited for only so long: it would wait for ever for the replacement of a
        worker that no node has room for. Silence ends it after SILENCE_TIMEOUT_S; a lost actor ends it too.
        """
        self.thread.start()
        ended, count, deadline, silence = None, 0, math.inf, _Silence()
        while True:
            alive = self.thread.is_alive() and time.monotonic() < deadline
            try:
                found, ended = ray.get(news.remote(count, NEWS_S if alive and not ended else 0.0))
                count += len(found)
                if (text := silence.after(bool(found), bool(ended))) is not None:
                    say(text)
                for event in found:
                    take(event)
                if look:
                    look()
            except ray.exceptions.RayError:  # the hub is lost, and with it who trains with whom
                self.thread.join(SHUTDOWN_TIMEOUT_S)
                break
            if not alive or silence.is_too_long:
                break
            if ended:
                deadline = min(deadline, time.monotonic() + SHUTDOWN_TIMEOUT_S)
                self.thread.join(0.5)
        if self.thread.is_alive():  # it must not wait on Ray while Ray is shut down: that ends the process
            self.trainer.abort()
            self.thread.join(SHUTDOWN_TIMEOUT_S)
        if silence.is_too_long:
            self.outcome["error"] = RaylrError(f"{silence}; look at the nodes of the cluster")
        return ended

    def reason(self, left: Any) -> dict[str, Any]:
        """Why there is no result: what Ray says of the workers it lost, and the error that the actor's method `left` gives."""
        error, own = self.outcome.get("error", "the hub was lost"), None
        failures: dict[int, Exception] = getattr(error, "worker_failures", {})
        by_ray = "\n".join(f"rank {rank}: {one}" for rank, one in sorted(failures.items())) or str(error)
        with contextlib.suppress(ray.exceptions.RayError):
            own = ray.get(left.remote(), timeout=NEWS_S)
        return (
            {"status": "failed", "reason": by_ray} if own is None else {**own, "reason": f"{by_ray}\n{own['reason']}"}
        )

    def _run(self) -> None:
        try:
            found = getattr(self.trainer.fit(), "return_value", None)  # a Result has none below Ray 2.56
            if found is not None:
                self.outcome["result"] = found
        except Exception as error:
            self.outcome["error"] = error


def is_resizable(plan: Plan | Workers) -> bool:
    """True where workers come and go without a restart of the others."""
    return plan.failure_mode == "continue" and plan.workers[0] < plan.workers[1]


def _trainer(
    rank: Callable[[dict[str, Any]], Any],
    settings: dict[str, Any],
    plan: Plan | Workers,
    folder: Folder,
    trials: int,
    gpus: float | None,
) -> Any:
    """Ray Train's trainer, or workers of our own where their number changes while they train."""
    if isinstance(plan, Plan) and is_resizable(plan):
        return ResizableGroup(rank, settings, plan)
    low, high = plan.workers
    resize = {}
    if low != high:
        for name, value in START_TIMEOUT.items():
            os.environ.setdefault(name, value)
        resize["elastic_resize_monitor_interval_s"] = 2.0
    trainer, backend_config = _classes(plan)
    return trainer(
        rank,
        train_loop_config=settings,
        backend_config=backend_config,
        scaling_config=ScalingConfig(
            num_workers=trials * high if low == high else (low, high),
            use_gpu=plan.device == "cuda",
            resources_per_worker=resources(plan, gpus),
            **resize,
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(folder),
            failure_config=FailureConfig(plan.max_failures, controller_failure_limit=plan.max_failures),
        ),
    )


def _classes(plan: Plan | Workers) -> tuple[Any, Any]:
    """The class of Ray Train's trainer and its backend's config; the stock ones where Ray cannot replace one worker."""
    if not features().replace_one_worker:
        return StockTrainer, StockConfig()
    from raylr.running.ray_internals.train import LeanTrainer, OwnGroupConfig

    return LeanTrainer, OwnGroupConfig(plan.failure_mode == "continue")


class _Silence:
    """How long there has been no news."""

    def __init__(self) -> None:
        self.since = self.said = self.now = time.monotonic()

    def __str__(self) -> str:
        return f"no news from the workers for {self.now - self.since:.0f} s"

    def after(self, is_news: bool, ended: bool) -> str | None:
        """What to say after a look, if anything."""
        self.now = time.monotonic()
        if is_news or ended:
            self.since = self.said = self.now
        if self.now - self.said < SAY_EVERY_S:
            return None
        self.said = self.now
        return f"{self}: they prepare data, test, or wait for a place on a node"

    @property
    def is_too_long(self) -> bool:
        return self.now - self.since > SILENCE_TIMEOUT_S
