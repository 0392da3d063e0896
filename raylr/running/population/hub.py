"""The hub of a population: one small actor with a hub for each trial, the decisions, and all news in one list."""

import asyncio
import contextlib
from typing import Any

from raylr.running.hub import Hub

STOP = {"do": "stop"}


class Hubs:
    """One process for all trials. All methods run in one event loop."""

    def __init__(self, trials: list[str]) -> None:
        self.hubs = {trial: Hub() for trial in trials}
        self.decisions: dict[tuple[str, int], dict[str, Any]] = {}
        self.stopping = False
        self.news: list[dict[str, Any]] = []
        self.changed = asyncio.Condition()

    async def call(self, trial: str, method: str, *arguments: Any) -> Any:
        """What the hub of a trial answers; its news goes to all."""
        if method == "publish":
            await self._add({"trial": trial, **arguments[0]})
            return None
        if method == "end":
            await self._add({"trial": trial, "kind": "result", "result": arguments[0]})
        return await getattr(self.hubs[trial], method)(*arguments)

    async def _add(self, news: dict[str, Any]) -> None:
        self.news.append(news)
        await self._notify()

    async def decide(self, decisions: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Let trials go on after a round. What was decided once stays."""
        for trial, number, decision in decisions:
            self.decisions.setdefault((trial, number), decision)
        await self._notify()

    async def decision(self, trial: str, number: int) -> dict[str, Any]:
        """What the trial does after this round; waits for it. All ranks of a trial get the same answer."""
        key = trial, number
        async with self.changed:
            await self.changed.wait_for(lambda: key in self.decisions or self.stopping)
        return self.decisions.setdefault(key, STOP)

    async def stop(self) -> None:
        """Stop all trials: at their next update, or where they wait."""
        self.stopping = True
        for hub in self.hubs.values():
            await hub.order({"kind": "stop"})
        await self._notify()

    async def news_after(self, count: int, timeout_s: float) -> list[dict[str, Any]]:
        """News from index `count` on; waits for some, at most `timeout_s`."""
        async with self.changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(lambda: len(self.news) > count), timeout_s)
        return self.news[count:]

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
