"""Ray Train without its own process group: workers form theirs through the hub, and a dead one is replaced alone.

Touches what Ray 2.60 calls developer API: a backend with `has_replica_groups` makes Train's controller replace only the
worker that failed and leave the train function of the others running.
"""

from dataclasses import dataclass
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class RestartBackend(Backend):
    share_cuda_visible_devices = True


class ContinueBackend(Backend):
    share_cuda_visible_devices = True
    has_replica_groups = True


@dataclass
class OwnGroupConfig(BackendConfig):
    """`can_continue`: survivors go on when a worker dies; otherwise Train restarts all."""

    can_continue: bool = True

    @property
    def backend_cls(self) -> type[Backend]:
        return ContinueBackend if self.can_continue else RestartBackend


class LeanTrainer(DataParallelTrainer):
    """Ray Train's trainer without the detached process that frees placement groups after a dead controller.

    That process needs Ray's dashboard, and Ray frees a job's placement groups itself when its driver ends.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, PlacementGroupCleanerCallback)]
