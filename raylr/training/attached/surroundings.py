"""The interface of a loop of one's own to what runs it: who its ranks are, where orders come from, whom a report is for.

`Plain` is a process alone or ranks under torchrun; `running` fills the protocol inside Ray Train and in a population.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from raylr.events import Order
from raylr.lr import Policy
from raylr.planning.loop_plan import LoopPlan
from raylr.storage import Folder
from raylr.training.attached.group import default_group
from raylr.training.attached.orders import forget, waiting
from raylr.training.group import Group

if TYPE_CHECKING:
    from raylr.training.attached.loop import OwnLoop


class Surroundings(Protocol):
    """What a loop asks of its surroundings. Orders are asked for on the rank that writes alone."""

    group: Group
    keeps_reports: bool  # whether each report leaves a checkpoint

    def place(self, storage: str, name: str) -> tuple[str, str]:
        """The storage and the name of the run, where the surroundings decide on them."""

    def policy_for(self, policy: Policy, plan: LoopPlan) -> Policy:
        """The policy that the loop trains under, made from the one that it was attached with and would have this plan."""

    def orders(self, folder: Folder, since: int) -> list[Order]:
        """The orders with a number above `since`."""

    def done(self, folder: Folder, number: int) -> None:
        """Take note that the orders up to this number were carried out."""

    def begun(self, loop: "OwnLoop") -> None:
        """Take note of the loop that begins, or goes on."""

    def reported(self, loop: "OwnLoop", row: Mapping[str, Any], kept_in: str | None) -> None:
        """Pass a report on, on every rank. `kept_in` is the run's folder where a checkpoint of it is being written."""

    def finishing(self, loop: "OwnLoop") -> None:
        """Take note, on every rank, that the loop has come to its end."""

    def finished(self, result: dict[str, Any]) -> None:
        """Take the result, on the rank that writes."""

    def state(self) -> dict[str, Any]:
        """What the surroundings want to have in a checkpoint."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""


class Plain:
    """A process alone, or ranks under torchrun or Ray Train."""

    keeps_reports = True

    def __init__(self, group: Group | None = None) -> None:
        self.group = group or default_group()

    def place(self, storage: str, name: str) -> tuple[str, str]:
        return storage, name

    def policy_for(self, policy: Policy, plan: LoopPlan) -> Policy:
        return policy

    def orders(self, folder: Folder, since: int) -> list[Order]:
        return waiting(folder, since)

    def done(self, folder: Folder, number: int) -> None:
        forget(folder, number)

    def begun(self, loop: "OwnLoop") -> None:
        pass

    def reported(self, loop: "OwnLoop", row: Mapping[str, Any], kept_in: str | None) -> None:
        pass

    def finishing(self, loop: "OwnLoop") -> None:
        pass

    def finished(self, result: dict[str, Any]) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        pass


_given: ContextVar[Surroundings | None] = ContextVar("surroundings", default=None)


@contextlib.contextmanager
def inside(surroundings: Surroundings) -> Iterator[None]:
    """Let the loops that this thread attaches meanwhile be in these surroundings."""
    token = _given.set(surroundings)
    try:
        yield
    finally:
        _given.reset(token)


def given() -> Surroundings | None:
    """The surroundings that `inside` gave; None where there are none."""
    return _given.get()
