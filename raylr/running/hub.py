"""The hub of a run: one small actor that agrees on who trains together, holds orders, and passes on news.

It knows ranks and marks, never tensors; it imports neither torch nor the loop. A rank calls `join` when it starts, when a
collective broke, or when all ranks agreed to let a newcomer in; the answer is the group. Members of the last group that
do not come are asked for a sign of life: the dead are left out, and who hangs is killed, so that Ray replaces it. One may
hang in CUDA and yet give a sign of life: it is killed once it has not come for longer than a stalled collective may take.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import ray

from raylr.events import (
    Checkpointed,
    CheckpointOrder,
    Ended,
    JoinKind,
    Member,
    News,
    Order,
    Overridden,
    Progress,
    RejoinOrder,
    RunEvent,
    Status,
    StopOrder,
)
from raylr.running.gauges import Gauges
from raylr.running.joiners import Agreed, Answer, GivenUp, Joiner, Left, Over, Tries
from raylr.running.ray_internals.state import sign_of_life
from raylr.training.network import Endpoint

LIVENESS_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 2.0
START_PATIENCE_S = 20.0  # at the start, for workers that there should be room for, once the fewest are there
COMING_TIMEOUT_S = 15.0  # beyond the run's stall_s, for a member that gives a sign of life and yet does not come


class Hub:
    """State of one run's membership, orders and news. All methods run in one event loop."""

    def __init__(self, run: str | None = None) -> None:
        self.gauges = None if run is None else Gauges(run)  # of the run whose news come here
        self.generation = 0
        self.active: dict[int, Any] = {}  # rank -> actor handle, of the last group
        self.node_of: dict[int, str | None] = {}  # of the active ones
        self.draining: frozenset[str] = frozenset()  # nodes that are about to go
        self.waiting: dict[int, Joiner] = {}
        self.lost: set[int] = set()
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None  # what ended a process last, of what may pass
        self.orders: list[Order] = []
        self.news: list[News] = []
        self.changed = asyncio.Condition()
        self._all_leave = False  # those that train
        self._settling: asyncio.Task[None] | None = None
        self._tries = Tries()

    async def join(
        self,
        rank: int,
        world_size: int,
        mark: tuple[int, int] | None,
        endpoint: Endpoint,
        pid: int,
        actor: Any,
        stall_s: float,
        trouble: str = "",
        fewest: int | None = None,
        node: str | None = None,
    ) -> Answer:
        """Wait for the next group and return it; or the end of the run, or why it is to end for this rank or for all."""
        if self.result is not None:
            return Over(self.result)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if mark is None and rank in self.active:  # a new process in the place of an old one
            del self.active[rank]
            self.lost.add(rank)
        self.waiting[rank] = Joiner(
            rank, world_size, mark, endpoint, pid, actor, answer, stall_s, trouble, fewest, node
        )
        await self._notify()
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
            self._settling.add_done_callback(self._tell_failure)
        return await answer

    def _tell_failure(self, settling: asyncio.Task[None]) -> None:
        """Nobody waits for a group that will not come: an error of ours fails those who wait."""
        error = settling.exception()
        if error is not None:
            for joiner in self.waiting.values():
                joiner.answer.set_exception(error)
            self.waiting = {}

    async def _settle(self) -> None:
        """Form a group as soon as everybody who is expected waits."""
        since, broken_at = time.monotonic(), None
        while self.waiting:
            missing = [rank for rank in self.active if rank not in self.waiting]
            if not missing and (self.active or self._are_enough(time.monotonic() - since)):
                self._form()
                return
            broken = any(rank in self.waiting for rank in self.active)
            broken_at = (broken_at or time.monotonic()) if broken else None
            if missing and (broken or time.monotonic() - since > JOIN_TIMEOUT_S):
                overdue = broken_at is not None and time.monotonic() - broken_at > self._patience_s()
                await asyncio.gather(*(self._check(rank, self.active[rank], overdue) for rank in missing))
            async with self.changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.05 if broken else 0.5)

    def _world_size(self) -> int:
        return max(joiner.world_size for joiner in self.waiting.values())

    def _are_enough(self, waited_s: float) -> bool:
        """True when all have come that were expected at the start; after a while those that must be there are enough."""
        fewest = [joiner.fewest for joiner in self.waiting.values() if joiner.fewest is not None]
        enough = max(fewest) if fewest and waited_s > START_PATIENCE_S else self._world_size()
        return len(self.waiting) >= enough

    def _patience_s(self) -> float:
        return max(joiner.stall_s for joiner in self.waiting.values()) + COMING_TIMEOUT_S

    async def _check(self, rank: int, actor: Any, overdue: bool) -> None:
        """Drop a member that is dead; kill and drop one that gives no sign of life, not even by coming here, or is overdue."""
        sign = asyncio.wrap_future(sign_of_life(actor).future())
        coming = asyncio.create_task(self._wait_until(lambda: rank in self.waiting))
        await asyncio.wait((sign, coming), timeout=LIVENESS_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        coming.cancel()
        is_alive = sign.done() and sign.exception() is None
        if rank in self.waiting or (is_alive and not overdue):
            return
        if is_alive or not sign.done():
            ray.kill(actor)
        if self.active.get(rank) is actor:
            del self.active[rank]
            self.lost.add(rank)
            await self._notify()

    def _form(self) -> None:
        joiners, left = self._who_stay()
        reason = self._tries.another(joiners)
        if reason is not None:
            self._answer(joiners, GivenUp(reason))
            return
        marks = [joiner.mark for joiner in joiners]
        best = max((mark for mark in marks if mark is not None), default=None)
        source = None if best is None else marks.index(best)
        self.generation += 1
        cause: JoinKind = "start" if best is None else "rejoin" if None in marks else "continue"
        group = Agreed(
            generation=self.generation,
            size=len(joiners),
            source=source,
            writer=source or 0,
            endpoints=tuple(joiner.endpoint for joiner in joiners),
            all_equal=best is not None and all(mark == best for mark in marks),
            cause=cause,
            lost=tuple(sorted(self.lost)),
            left=left,
            members=tuple(Member(joiner.rank, joiner.pid, joiner.endpoint.address) for joiner in joiners),
        )
        self.active = {joiner.rank: joiner.actor for joiner in joiners}
        self.node_of = {joiner.rank: joiner.node for joiner in joiners}
        self.lost = set()
        self._answer(joiners, group)
        self._save_what_goes()

    def _who_stay(self) -> tuple[list[Joiner], tuple[int, ...]]:
        """Those that are to form the group, by rank, and the members that leave.

        Who sits on a node that is about to go is let go where another one has the state; otherwise it hands that to the
        newcomers first, or goes on for as long as it can.
        """
        joiners = [self.waiting[rank] for rank in sorted(self.waiting)]
        staying = [joiner for joiner in joiners if joiner.node not in self.draining]
        best = max((joiner.mark for joiner in joiners if joiner.mark is not None), default=None)
        if len(staying) == len(joiners) or best is None or best not in [joiner.mark for joiner in staying]:
            return joiners, ()
        leaving = [joiner for joiner in joiners if joiner.node in self.draining]
        self._answer(leaving, Left())
        return staying, tuple(joiner.rank for joiner in leaving if joiner.mark is not None)

    def _who_may_leave(self) -> set[int]:
        """Active ranks on nodes that are about to go, where others would go on."""
        leaving = {rank for rank in self.active if self.node_of.get(rank) in self.draining}
        return leaving if len(leaving) < len(self.active) else set()

    def _save_what_goes(self) -> None:
        """Order a checkpoint where all that train are on nodes that are about to go."""
        all_leave = bool(self.active) and {self.node_of.get(rank) for rank in self.active} <= self.draining
        if all_leave and not self._all_leave:
            self.orders.append(CheckpointOrder("preemption", time.time_ns()))
        self._all_leave = all_leave

    async def drain(self, nodes: Collection[str]) -> None:
        """Take note of nodes that are about to go: who sits there leaves between two updates, where others go on."""
        self.draining = frozenset(nodes)
        self._save_what_goes()
        await self._notify()

    def _answer(self, joiners: list[Joiner], answer: Answer) -> None:
        """Give all who wait the same answer, and each its rank."""
        for joiner in joiners:
            self.waiting.pop(joiner.rank, None)
        for group_rank, joiner in enumerate(joiners):
            if not joiner.answer.done():  # its caller may be gone
                own = replace(answer, group_rank=group_rank) if isinstance(answer, Agreed) else answer
                joiner.answer.set_result(own)

    async def missing(self) -> list[int]:
        """The ranks that others wait for."""
        expected = set(self.active) or set(range(self._world_size() if self.waiting else 0))
        return sorted(expected - set(self.waiting))

    async def broken(self, generation: int) -> None:
        """Return once a member of that group is lost or has failed, or the group is no more."""

        def is_broken() -> bool:
            return self.generation != generation or bool(self.lost) or (self.result or {}).get("status") == "failed"

        await self._wait_until(is_broken)

    async def wanted(self, since: int) -> None:
        """Return once there is an order younger than `since`, or a newcomer waits."""
        await self._wait_until(lambda: bool(self._orders_after(since)))

    async def orders_after(self, since: int) -> list[Order]:
        """The orders younger than the one numbered `since`, and `rejoin` when a newcomer waits."""
        return self._orders_after(since)

    def _orders_after(self, since: int) -> list[Order]:
        newcomer = self.active and any(rank not in self.active for rank in self.waiting)
        again = newcomer or bool(self._who_may_leave())
        return [order for order in self.orders if order.number > since] + ([RejoinOrder()] if again else [])

    async def order(self, order: Order) -> int:
        """Queue an order for all ranks; returns its number."""
        number = time.time_ns()
        self.orders.append(replace(order, number=number))
        await self._notify()
        return number

    async def end(self, result: dict[str, Any]) -> None:
        """Keep the run's first result for ranks that come after its end; those that wait for a group get it now."""
        if self.result is None:
            self.result = result
        self._answer(list(self.waiting.values()), Over(self.result))
        await self._notify()

    async def ended(self) -> dict[str, Any] | None:
        """The run's result, once it has one."""
        return self.result

    async def note_error(self, failed: dict[str, Any]) -> None:
        """Keep what ended a process: it is the run's reason where no further start helps."""
        self.error = failed

    async def last_error(self) -> dict[str, Any] | None:
        return self.error

    async def publish(self, news: News) -> None:
        self.news.append(news)
        if self.gauges is not None:
            self.gauges(news)
        await self._notify()

    async def status(self) -> Status:
        """The newest progress, the members, and how many groups there were."""
        progress = next((news for news in reversed(self.news) if isinstance(news, Progress)), None)
        return Status(progress, tuple(sorted(self.active)), self.generation)

    async def answer(self, order: Order, timeout_s: float) -> RunEvent | None:
        """The run's event for this order; None when none came in time."""

        def found() -> RunEvent | None:
            for news in self.news:
                match news:
                    case Overridden(number=order.number) | Checkpointed(number=order.number):
                        return news
                    case Ended(kind="stop") if isinstance(order, StopOrder):
                        return news
            return None

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wait_until(lambda: found() is not None), timeout_s)
        return found()

    async def news_after(self, count: int, timeout_s: float) -> tuple[list[News], dict[str, Any] | None]:
        """News from index `count` on, and the run's result, once it has one; waits for either, at most `timeout_s`."""
        is_news = self._wait_until(lambda: len(self.news) > count or self.result is not None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_news, timeout_s)
        return self.news[count:], self.result

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(holds)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()
