"""The hub of a population: one small actor with a hub for each trial, the decisions, and all news in one list."""

import asyncio
import contextlib
from typing import Any

from raylr.events import (
    Decision,
    OfTrial,
    Order,
    PopulationStatus,
    PopulationStopped,
    Progress,
    Stop,
    StopOrder,
    TrialEnded,
)
from raylr.running.hub import Hub


class Hubs:
    """One process for all trials. All methods run in one event loop."""

    def __init__(self, trials: list[str]) -> None:
        self.hubs = {trial: Hub() for trial in trials}
        self.turns: list[list[dict[str, Any]]] = []  # the trials of each, by slot; of none: all have had their turn
        self.decisions: dict[tuple[str, int], Decision] = {}
        self.stopping = False
        self.failure: dict[str, Any] | None = None  # what ended the population
        self.error: dict[str, Any] | None = None  # what ended a process last, of what may pass
        self.news: list[OfTrial] = []
        self.progress: dict[str, Progress] = {}  # the newest of each trial
        self.changed = asyncio.Condition()

    async def call(self, trial: str, method: str, *arguments: Any) -> Any:
        """What the hub of a trial answers; its end is news for all."""
        is_first = self.hubs[trial].result is None
        answer = await getattr(self.hubs[trial], method)(*arguments)
        if method == "end" and is_first:
            await self.add(OfTrial(trial, TrialEnded(arguments[0])))
        return answer

    async def add(self, news: OfTrial) -> None:
        """Keep news of a trial."""
        self.news.append(news)
        if isinstance(news.news, Progress):
            self.progress[news.trial] = news.news
        await self._notify()

    async def open(self, trials: list[dict[str, Any]]) -> None:
        """Let the next turn of trials begin."""
        self.turns.append(trials)
        await self._notify()

    async def turn(self, slot: int, number: int) -> dict[str, Any] | None:
        """The trial that the ranks of a slot train as their `number`th, once its turn has begun; None when there is none."""

        def own() -> list[dict[str, Any]]:
            return [turn[slot] for turn in self.turns if slot < len(turn)]

        async with self.changed:
            await self.changed.wait_for(lambda: len(own()) > number or self._all_began() or self.stopping)
        return own()[number] if number < len(own()) else None

    def _all_began(self) -> bool:
        return self.turns[-1:] == [[]]

    async def decide(self, decisions: list[tuple[str, int, Decision]]) -> None:
        """Let trials go on after a round. What was decided once stays."""
        for trial, number, decision in decisions:
            self.decisions.setdefault((trial, number), decision)
        await self._notify()

    async def decision(self, trial: str, number: int) -> Decision:
        """What the trial does after this round; waits for it. All ranks of a trial get the same answer."""
        key = trial, number
        async with self.changed:
            await self.changed.wait_for(lambda: key in self.decisions or self.stopping)
        return self.decisions.setdefault(key, Stop())

    async def stop(self) -> None:
        """Stop all trials, at their next update or where they wait; no further one begins."""
        self.stopping = True
        for hub in self.hubs.values():
            await hub.order(StopOrder())
        await self._notify()

    async def fail(self, trial: str | None, failed: dict[str, Any]) -> None:
        """End a trial with what failed in it, or before it began (None), and stop all others: it would come again."""
        self.failure = self.failure or failed
        for name in [trial] if trial else [name for name, result in self._results().items() if result is None]:
            if self.hubs[name].result is None:
                await self.call(name, "end", failed)
        if not self.stopping:
            await self.stop()

    async def note_error(self, failed: dict[str, Any]) -> None:
        """Keep what ended a process: it is the reason where no further start helps."""
        self.error = failed

    async def last_error(self) -> dict[str, Any] | None:
        return self.error

    async def failed(self) -> dict[str, Any] | None:
        """What ended the population; None where nothing did."""
        return self.failure

    async def status(self) -> PopulationStatus:
        """The newest progress of the trials that have begun, and how many turns have."""
        return PopulationStatus(len(self.turns), self.stopping, self.progress)

    async def order(self, order: Order) -> int:
        """Carry out an order; the only one is to stop."""
        await self.stop()
        return 0

    async def answer(self, order: Order, timeout_s: float) -> PopulationStopped | None:
        """How all trials that had begun have ended; None when not all did in time."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: all(self._results().values())), timeout_s)
            except TimeoutError:
                return None
        return PopulationStopped({name: (result or {})["status"] for name, result in self._results().items()})

    def _is_over(self) -> bool:
        """True once all trials that have begun have ended and no further one will begin."""
        return (self.stopping or self._all_began()) and all(self._results().values())

    def _results(self) -> dict[str, dict[str, Any] | None]:
        """Of the trials that have begun."""
        return {trial["name"]: self.hubs[trial["name"]].result for turn in self.turns for trial in turn}

    async def news_after(self, count: int, timeout_s: float) -> tuple[list[OfTrial], bool]:
        """News from index `count` on, and whether all is over; waits for either, at most `timeout_s`."""
        async with self.changed:
            is_news = self.changed.wait_for(lambda: len(self.news) > count or self._is_over())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_news, timeout_s)
        return self.news[count:], self._is_over()

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class HubOf:
    """The hub of one trial, called as if it were an actor of its own."""

    def __init__(self, hubs: Any, trial: str) -> None:
        self._hubs, self._trial = hubs, trial

    def __getattr__(self, method: str) -> "_Method":
        return _Method(self._hubs, self._trial, method)


class _Method:
    def __init__(self, hubs: Any, trial: str, name: str) -> None:
        self._hubs, self._trial, self._name = hubs, trial, name

    def remote(self, *arguments: Any) -> Any:
        return self._hubs.call.remote(self._trial, self._name, *arguments)
