"""The interface of a loop of one's own to what runs it: who its ranks are, where orders come from, whom a report is for.

`Plain` is a process alone or ranks under torchrun; `running` fills the protocol inside Ray Train and in a population.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from raylr.events import Order
from raylr.lr import Policy
from raylr.storage import Folder
from raylr.training.attached.group import default_group
from raylr.training.attached.orders import forget, waiting
from raylr.training.group import Group


class Surroundings(Protocol):
    """What a loop asks of its surroundings. Orders are asked for on the rank that writes alone."""

    group: Group

    def place(self, storage: str, name: str) -> tuple[str, str]:
        """The storage and the name of the run, where the surroundings decide on them."""

    def policy_for(self, policy: Policy) -> Policy:
        """The policy that the loop trains under, made from the one it was attached with."""

    def orders(self, folder: Folder, since: int) -> list[Order]:
        """The orders with a number above `since`."""

    def done(self, folder: Folder, number: int) -> None:
        """Take note that the orders up to this number were carried out."""

    def reported(self, metrics: Mapping[str, Any], kept_in: str | None) -> None:
        """Pass a report on, on every rank. `kept_in` is the run's folder where a checkpoint of it is being written."""


class Plain:
    """A process alone, or ranks under torchrun or Ray Train."""

    def __init__(self, group: Group | None = None) -> None:
        self.group = group or default_group()

    def place(self, storage: str, name: str) -> tuple[str, str]:
        return storage, name

    def policy_for(self, policy: Policy) -> Policy:
        return policy

    def orders(self, folder: Folder, since: int) -> list[Order]:
        return waiting(folder, since)

    def done(self, folder: Folder, number: int) -> None:
        forget(folder, number)

    def reported(self, metrics: Mapping[str, Any], kept_in: str | None) -> None:
        pass
