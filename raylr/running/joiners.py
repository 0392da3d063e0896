"""The ranks that wait for a group, and when a run gives up to form one: after several in a row that brought nobody further."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raylr.events import JoinKind, Member
from raylr.training.network import Endpoint, all_of

MAX_TRIES = 3


@dataclass(frozen=True)
class Agreed:
    """A group: `source` is the group rank that holds the state (None: nobody does), `endpoints` and `members` are by rank."""

    generation: int
    size: int
    source: int | None
    writer: int
    endpoints: tuple[Endpoint, ...]
    all_equal: bool
    cause: JoinKind
    lost: tuple[int, ...]
    members: tuple[Member, ...]
    left: tuple[int, ...] = ()
    group_rank: int = 0  # of the rank that gets this


@dataclass(frozen=True)
class Over:
    """The run has ended with this result."""

    result: dict[str, Any]


@dataclass(frozen=True)
class GivenUp:
    """No group comes about: the reason with which the run is to end."""

    reason: str


@dataclass(frozen=True)
class Left:
    """The rank is no longer of the run: its node is about to go, and others have its state."""


Answer = Agreed | Over | GivenUp | Left
LEFT = {"status": "left"}  # what a worker returns that has left


@dataclass(frozen=True)
class Joiner:
    """A rank that waits for a group: its process, how far it is, where it listens, and what broke its last group.

    So many workers are expected at the start, of which `fewest` are enough after a while. `node` is Ray's name of its node.
    """

    rank: int
    world_size: int
    mark: tuple[int, int] | None
    endpoint: Endpoint
    pid: int
    actor: Any
    answer: asyncio.Future[Answer]
    stall_s: float
    trouble: str = ""
    fewest: int | None = None
    node: str | None = None


@dataclass
class Tries:
    """Counts the groups of the same processes since anyone was further than before."""

    count: int = 0
    _since: float = 0.0
    _before: tuple[Any, ...] = field(default=())

    def another(self, members: Sequence[Joiner], now: float | None = None) -> str | None:
        """Count one more. Returns why the run should end, once it should.

        A group that never was is given up after MAX_TRIES. One that has trained may wait for a link that is cut, for as
        long as a stalled worker may.
        """
        now = time.monotonic() if now is None else now
        best = max((one.mark for one in members if one.mark is not None), default=None)
        state = best, {(one.rank, one.pid) for one in members}
        if state != self._before:
            self.count, self._since, self._before = 0, now, state
        self.count += 1
        patience_s = 0.0 if best is None else members[0].stall_s
        if self.count <= MAX_TRIES or now - self._since < patience_s:
            return None
        where = all_of(one.endpoint for one in members)
        trouble = next((one.trouble for one in members if "does not reach" in one.trouble), "")
        trouble = trouble or next((one.trouble for one in members if one.trouble), "the workers give no reason")
        advice = f"failure.stall_s={members[0].stall_s:g} must be longer than an update takes"
        if len({one.endpoint.address for one in members}) > 1:
            advice = (
                "open all TCP ports between the hosts, or name the interface that joins them in GLOO_SOCKET_IFNAME and "
                "NCCL_SOCKET_IFNAME on every node"
            )
        return (
            f"workers={len(members)} on {where} came to no update in {self.count - 1} groups over "
            f"{now - self._since:.0f} s: {trouble}; {advice}"
        )
