"""Ray Train's worker, whose main thread sleeps while another one trains."""

from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.worker_group import worker
from ray.train.v2._internal.execution.worker_group.poll import WorkerStatus

from raylr.running.ray_internals.overriding import overriding

LOOK_S = 2.0


@overriding()
class RayTrainWorker(worker.RayTrainWorker):
    """A worker that answers a look at it when its training has ended, or after `LOOK_S`.

    Ray's main thread wakes a hundred times a second while it has no task, on the core that trains.
    """

    def poll_status(self) -> WorkerStatus:
        training = get_train_context().execution_context.training_thread_runner._thread
        if training is not None:
            training.join(LOOK_S)
        return super().poll_status()
