"""What an instrument does around an update: it is due at some, lets it be done, looks, and leaves no trace.

A reading depends on the weights before the update, the update and its examples alone, so it is the same at every world size.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raylr.training.group import Group, GroupBroken

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer, Update


@dataclass(frozen=True)
class Unsteady:
    """Two losses at the same weights, of the same examples, that differ: nothing can be read."""

    first: float
    second: float


class Instrument(ABC):
    """Looks at the updates that pass a multiple of `every` examples, the first update among them."""

    def __init__(self, trainer: "Trainer", every: int) -> None:
        self.trainer, self.every = trainer, every

    def is_due(self, world_size: int) -> bool:
        """True where the next update takes the first example after a multiple of the interval."""
        position = self.trainer.position
        last = position + self.trainer.plan.batch_at(world_size, position) - 1
        return last // self.every > (position - 1) // self.every

    def around(self, update: Callable[[], "Update"], group: Group) -> "Update":
        """Do an update and look. Raises GroupBroken, with the state as it was, when a peer is gone meanwhile."""
        trainer = self.trainer
        state, late = trainer.state(), trainer.reads_late
        trainer.reads_late = False  # the weights of the update to come would be read
        try:
            done = update()
            return done if done.rolled_back else self.noted(done, state["model"], group)
        except GroupBroken:
            trainer.load(state)
            raise
        finally:
            trainer.reads_late = late

    @abstractmethod
    def noted(self, update: "Update", before: Mapping[str, torch.Tensor], group: Group) -> "Update":
        """The update with what was read; `before` are the weights before it, by name."""
