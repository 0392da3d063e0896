"""Ray Train without its own process group: workers form theirs through the hub, and a dead one is replaced alone.

Needs `Features.replace_one_worker`: a backend with `has_replica_groups` makes Train's controller replace only the worker that
failed and leave the train function of the others running. The stock controller gives up when a second worker dies before
the first is replaced; ours looks for all the dead first.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import ray
from ray.exceptions import RayActorError
from ray.runtime_context import RuntimeContext
from ray.train import FailureConfig, Result
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus, state, worker_group
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from raylr.running.ray_internals.overriding import overriding
from raylr.running.ray_internals.state import kill_actors, sign_of_life
from raylr.running.ray_internals.stock import StockBackend
from raylr.running.ray_internals.train_worker import LOOK_S, RayTrainWorker

BETWEEN_LOOKS_S = 0.02
LIVENESS_TIMEOUT_S = 5.0
UNUSED = (PlacementGroupCleanerCallback, DatasetsCallback)


@overriding()
class ContinueBackend(StockBackend):
    has_replica_groups = True


@dataclass
class OwnGroupConfig(BackendConfig):
    """`can_continue`: survivors go on when a worker dies; otherwise Train restarts all."""

    can_continue: bool = True

    @property
    def backend_cls(self) -> type[Backend]:
        return ContinueBackend if self.can_continue else StockBackend


@overriding()
class FixedNumber(FixedScalingPolicy):
    """Train's policy for a fixed number of workers, without the process that asks an autoscaler for their places.

    The placement group of the workers asks too, and `wait_for_capacity` did before them.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class NoBarrier:
    """In place of the process behind `ray.train.report`, which our workers never call."""

    def options(self, **_: Any) -> "NoBarrier":
        return self

    def remote(self, **_: Any) -> "NoBarrier":
        return self

    @property
    def reset(self) -> "Answer":
        return Answer()


class Answer:
    def remote(self) -> Any:
        return ray.put(None)


@overriding()
class StartingGroup(WorkerGroup):
    """Train's workers; one that is lost with its node just as it is told to train does not fail the run either."""

    _worker_cls = RayTrainWorker

    def _init_train_context_on_workers(self, *arguments: Any) -> None:
        with patch.object(RuntimeContext, "current_actor", None):  # our controller is no actor; no worker asks it
            super()._init_train_context_on_workers(*arguments)

    def _start(self) -> None:
        try:
            super()._start()
        except RayActorError as error:
            if self.has_started():
                self._worker_group_state.shutdown()
            raise WorkerGroupStartupFailedError(str(error)) from error


@overriding("abort")
class ReplacingController(TrainController):
    """Train's controller, which replaces several dead workers at once."""

    worker_group_cls = StartingGroup

    def __init__(self, *positional: Any, **settings: Any) -> None:
        worker_group.SynchronizationActor = NoBarrier()
        state._shutdown_sync_actor = lambda sync_actor: None
        super().__init__(*positional, **settings)

    def abort(self) -> None:
        """End now, also where a replacement is waited for that no node has room for. Another thread calls it."""
        self._failure_policy = create_failure_policy(FailureConfig(max_failures=0, controller_failure_limit=0))
        kill_actors("PENDING_CREATION")

    async def _poll_workers(self) -> WorkerGroupPollStatus:
        """Look at the workers again at once: each waits before it answers."""
        await asyncio.sleep(BETWEEN_LOOKS_S)
        return self._worker_group.poll_status(timeout=2 * LOOK_S)

    def _replace_bad_workers(self, poll_status: WorkerGroupPollStatus) -> None:
        groups = self._worker_group._replica_groups
        signs = [sign_of_life(group.get_workers()[0].actor) for group in groups]
        ray.wait(signs, num_returns=len(signs), timeout=LIVENESS_TIMEOUT_S)
        failing = poll_status.failing_replica_group_indices
        dead = [index for index, sign in enumerate(signs) if index in failing or not _is_alive(sign)]
        for index in dead:
            groups[index].shutdown()
        for index in dead:
            try:
                self._worker_group.replace_replica_group(index)
            except RayActorError:  # one more died meanwhile; the next poll finds it
                return


def _is_alive(sign: Any) -> bool:
    try:
        ray.get(sign, timeout=0)
    except (RayActorError, ray.exceptions.GetTimeoutError):
        return False
    return True


@overriding("abort")
class LeanTrainer(DataParallelTrainer):
    """Ray Train's trainer with the controller above in the caller's thread, and without the processes that nobody asks for.

    One frees placement groups, for which it needs Ray's dashboard; Ray frees a job's own when its driver ends. Another
    deals out Ray datasets. `FixedNumber` and `NoBarrier` save two more. An actor for the controller would be lost with the
    driver all the same, and wakes a hundred times a second on a core that training could have.
    """

    controller: ReplacingController

    def abort(self) -> None:
        """End now. Another thread than that of `fit` calls it."""
        self.controller.abort()

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, UNUSED)]

    def _initialize_and_run_controller(self, **settings: Any) -> Result:
        if isinstance(settings["scaling_policy"], FixedScalingPolicy):
            settings["scaling_policy"] = FixedNumber(self.scaling_config)
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what failed is in the run's result and events
        self.controller = ReplacingController(**settings)
        asyncio.run(self.controller.run())
        return self.controller.get_result()
