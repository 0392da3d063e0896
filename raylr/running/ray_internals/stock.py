"""Ray Train as it comes, without its own process group: workers form theirs through the hub; all restart when one dies.

For a Ray that cannot replace one worker. Uses its public API, but to end it early.
"""

from dataclasses import dataclass

from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from raylr.running.ray_internals.state import kill_actors


class StockBackend(Backend):
    """A worker sees the GPU that Ray gave it and no other, so that `cuda` is its own."""

    share_cuda_visible_devices = False


@dataclass
class StockConfig(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return StockBackend


class StockTrainer(DataParallelTrainer):
    """Ray Train's trainer, whose controller is an actor of its own."""

    def abort(self) -> None:
        """End now, the controller first of all. Another thread than that of `fit` calls it."""
        kill_actors("ALIVE", "PENDING_CREATION", "DEPENDENCIES_UNREADY", "RESTARTING")
