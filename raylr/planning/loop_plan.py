"""The plan of a loop of one's own: what its run's files say of it, and nothing of what only its author knows.

It stands in plan.json in the place of a run's `Plan`; `task` tells the two apart.
"""

from collections.abc import Mapping
from typing import Any, Literal

from raylr.errors import ConfigError
from raylr.lr import Ramp
from raylr.planning.plan import Frozen, Parent, Plan, Reason
from raylr.storage import Folder

LOOP = "loop"


class LoopPlan(Frozen):
    """The clock of a loop of one's own, and what was attached."""

    task: Literal["loop"] = "loop"
    workers: tuple[int, int]  # ranks of its last start, twice
    num_train: int  # examples per epoch, of its policy
    total_examples: int
    global_batch: int | None  # None with per_worker_size; the largest with a ramp
    ramp: tuple[tuple[int, int], ...] = ()
    per_worker_size: int | None
    rewarm: int
    models: dict[str, str]  # classes by name, as are the next
    optimizers: dict[str, str]
    checkpoint_keep: int
    parent: Parent | None = None  # of a fork
    story: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()

    def batch_at(self, world_size: int, position: int | None = None) -> int:
        """The global batch of `world_size` ranks in the update at `position`; the largest without one."""
        if self.ramp and position is not None:
            return Ramp(self.ramp).batch_at(position)
        return self.global_batch if self.global_batch is not None else (self.per_worker_size or 0) * world_size

    def batches(self, world_size: int) -> Ramp:
        """The global batches of `world_size` ranks over the run."""
        return Ramp(self.ramp) if self.ramp else Ramp.of(self.batch_at(world_size))

    @property
    def split(self) -> str:
        """What its metrics are of is known to the loop alone; they keep their names."""
        return "test"

    @property
    def model(self) -> str:
        """What was attached, in the words in which a run's plan names its network."""
        return ", ".join(self.models.values())


AnyPlan = Plan | LoopPlan


class Workers(Frozen):
    """What the ranks of loops of one's own need to start and to find each other: no more is known of them."""

    device: str
    workers: tuple[int, int]
    cpus_per_worker: int
    gpus_per_worker: float = 1.0
    reduce: str = "ddp"  # torch's default group is theirs
    backend: str
    max_failures: int
    failure_mode: str
    stall_s: float


def is_loop(data: Mapping[str, Any]) -> bool:
    """Whether a plan.json is that of a loop of one's own."""
    return data.get("task") == LOOP


def plan_in(folder: Folder) -> AnyPlan:
    """The plan of a run, of whichever kind."""
    return plan_of(folder.read_json("plan.json"))


def plan_of(data: Mapping[str, Any]) -> AnyPlan:
    """The plan that a plan.json holds."""
    return LoopPlan.model_validate(data) if is_loop(data) else Plan.model_validate(data)


def refuse_loop(folder: Folder, wanted: str) -> None:
    """Raise ConfigError for a loop of one's own, which raylr cannot start or build again; `wanted` is a verb.

    A plan that is not there, or is damaged, is for others to refuse.
    """
    try:
        found = is_loop(folder.read_json("plan.json"))
    except (OSError, ValueError, AttributeError):
        return
    if found:
        raise ConfigError(
            f"run={folder.name} is a loop of one's own, which only its script can build, so raylr cannot {wanted} it; "
            "the script can, with raylr.loop.attach and the run's checkpoints"
        )
