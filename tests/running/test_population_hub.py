"""The hub of a population as it is, without Ray's actor around it: turns, orders, the status."""

import asyncio

from raylr.events import OfTrial, PopulationStopped, Progress, Stop, StopOrder, Waiting
from raylr.running.session import set_up

set_up()  # what Ray reads of the environment, before anything imports it

from raylr.running.population.hub import Hubs  # noqa: E402


def test_a_turn_is_waited_for_and_a_slot_without_a_trial_waits_for_the_next():
    async def story() -> None:
        hubs = Hubs(["a", "b", "c"])
        waiting = asyncio.create_task(hubs.turn(1, 0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await hubs.open([{"name": "a"}, {"name": "b"}])
        assert await waiting == {"name": "b"}
        await hubs.open([{"name": "c"}])
        assert await hubs.turn(0, 1) == {"name": "c"}
        waiting = asyncio.create_task(hubs.turn(1, 1))  # a turn after this one may have a trial for it
        await asyncio.sleep(0)
        assert not waiting.done()
        await hubs.open([{"name": "d"}, {"name": "e"}])
        assert await waiting == {"name": "e"}
        await hubs.open([])
        assert [await hubs.turn(0, 3), await hubs.turn(1, 2)] == [None, None]

    asyncio.run(story())


def test_a_stop_reaches_trials_ranks_that_wait_and_turns_to_come():
    async def story() -> None:
        hubs = Hubs(["a", "b"])
        await hubs.open([{"name": "a"}])
        waiting = [asyncio.create_task(one) for one in (hubs.turn(0, 1), hubs.decision("a", 1))]
        order = StopOrder()
        await hubs.order(order)
        assert await asyncio.gather(*waiting) == [None, Stop()]
        assert [type(one) for one in await hubs.call("a", "orders_after", 0)] == [StopOrder]
        answer = asyncio.create_task(hubs.answer(order, 10.0))
        await asyncio.sleep(0)
        assert not answer.done()
        await hubs.call("a", "end", {"status": "stopped"})
        assert await answer == PopulationStopped({"a": "stopped"})

    asyncio.run(story())


def test_a_stop_that_is_not_carried_out_in_time_has_no_answer():
    async def story() -> None:
        hubs = Hubs(["a"])
        await hubs.open([{"name": "a"}])
        await hubs.order(StopOrder())
        assert await hubs.answer(StopOrder(), 0.01) is None

    asyncio.run(story())


def test_the_status_is_the_newest_progress_of_each_trial():
    async def story() -> None:
        hubs = Hubs(["a", "b"])
        for position in (64, 128):
            newest = Progress(position, 640, position // 64, 0.1, {"sgd": 0.1}, 1.0, 0.5, 100.0, 1, 64)
            await hubs.add(OfTrial("a", newest))
        await hubs.add(OfTrial("b", Waiting("for a node")))
        status = (await hubs.status()).row()
        assert (status["kind"], status["turns"], status["stopping"]) == ("status", 0, False)
        assert status["trials"] == {"a": vars(newest)}
        assert status["trials"]["a"]["position"] == 128

    asyncio.run(story())
