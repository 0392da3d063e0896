"""The loop's interface to its runtime: membership, orders, events.

The loop knows this protocol only. `running` fills it for Ray; `Plain` fills it for plain processes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from raylr.events import JoinKind, Member, News, Order
from raylr.training.group import Group

Mark = tuple[int, int]  # (position, position of the last evaluation): the most advanced rank holds the state


@dataclass(frozen=True)
class Quorum:
    """The group as it was agreed. With `source` None nobody holds the state: it comes from a checkpoint."""

    group: Group
    source: int | None
    writer: int
    all_equal: bool
    cause: JoinKind  # start, continue (some were lost) or rejoin (newcomers came)
    members: tuple[Member, ...] = ()  # by group rank
    lost: tuple[int, ...] = ()  # ranks that were members of the group before
    left: tuple[int, ...] = ()  # and those that have left it, on nodes that are about to go

    def member(self, group_rank: int) -> Member:
        """The member of this group rank; one of no process and no host where nobody has agreed on them."""
        return self.members[group_rank] if self.members else Member(group_rank, 0, "")


class RunEnded(Exception):
    """The others ended the run before this rank came; carries the run's result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__("the run has ended")
        self.result = result


class Membership(Protocol):
    """The loop's interface to its runtime."""

    can_continue: bool

    def rendezvous(self, mark: Mark | None, trouble: str = "") -> Quorum:
        """Agree with the others on the group; `mark` is None for a rank without a state, `trouble` what broke the last group.

        Raises GroupBroken, RunEnded, and GroupUnusable where no group comes about.
        """

    def has_orders(self) -> bool:
        """True when this rank knows of an order; asked once an update, so it must be quick."""

    def orders(self, since: int) -> list[Order]:
        """The orders with a number above `since`, and `rejoin` when a newcomer waits; asked of the writer only."""

    def end(self, result: dict[str, Any]) -> None:
        """Leave the result for ranks that come too late; called by the writer once all have finished."""

    def publish(self, news: News) -> None:
        """Publish news. Must neither block nor fail."""


class Plain:
    """Membership of a group that was formed beforehand and does not change: one process alone, or ranks under torchrun."""

    can_continue = False

    def __init__(self, group: Group | None = None) -> None:
        self.group = group or Group()

    def rendezvous(self, mark: Mark | None, trouble: str = "") -> Quorum:
        return Quorum(self.group, None, 0, True, "start")

    def has_orders(self) -> bool:
        return False

    def orders(self, since: int) -> list[Order]:
        return []

    def end(self, result: dict[str, Any]) -> None:
        pass

    def publish(self, news: News) -> None:
        pass
