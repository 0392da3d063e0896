"""The hub of a population as it is, without Ray's actor around it: turns, orders, the status."""

import asyncio

from raylr.running.session import set_up

set_up()  # what Ray reads of the environment, before anything imports it

from raylr.running.population.hub import STOP, Hubs  # noqa: E402


def test_a_turn_is_waited_for_and_a_seat_without_a_trial_gets_none():
    async def story() -> None:
        hubs = Hubs(["a", "b", "c"])
        waiting = asyncio.create_task(hubs.turn(1, 0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await hubs.open([{"name": "a"}, {"name": "b"}])
        assert await waiting == {"name": "b"}
        await hubs.open([{"name": "c"}])
        assert [await hubs.turn(seat, 1) for seat in (0, 1)] == [{"name": "c"}, None]
        await hubs.open([])
        assert await hubs.turn(0, 2) is None

    asyncio.run(story())


def test_a_stop_reaches_trials_ranks_that_wait_and_turns_to_come():
    async def story() -> None:
        hubs = Hubs(["a", "b"])
        await hubs.open([{"name": "a"}])
        waiting = [asyncio.create_task(one) for one in (hubs.turn(0, 1), hubs.decision("a", 1))]
        number = await hubs.order({"kind": "stop"})
        assert await asyncio.gather(*waiting) == [None, STOP]
        assert [order["kind"] for order in await hubs.call("a", "orders_after", 0)] == ["stop"]
        answer = asyncio.create_task(hubs.answer(number, "stop", 10.0))
        await asyncio.sleep(0)
        assert not answer.done()
        await hubs.call("a", "end", {"status": "stopped"})
        assert await answer == {"kind": "stop", "trials": {"a": "stopped"}}

    asyncio.run(story())


def test_a_stop_that_is_not_carried_out_in_time_has_no_answer():
    async def story() -> None:
        hubs = Hubs(["a"])
        await hubs.open([{"name": "a"}])
        assert await hubs.answer(await hubs.order({"kind": "stop"}), "stop", 0.01) is None

    asyncio.run(story())


def test_the_status_is_the_newest_progress_of_each_trial():
    async def story() -> None:
        hubs = Hubs(["a", "b"])
        for position in (64, 128):
            await hubs.call("a", "publish", {"kind": "progress", "position": position})
        await hubs.call("b", "publish", {"kind": "event", "row": {}})
        status = await hubs.status()
        assert status == {"kind": "status", "turns": 0, "stopping": False, "trials": {"a": {"position": 128}}}

    asyncio.run(story())
