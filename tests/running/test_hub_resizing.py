"""The hub lets workers leave whose nodes are about to go, where others have the state, and starts with those that come."""

import asyncio

from raylr.events import CheckpointOrder, RejoinOrder
from raylr.running import hub as hubs
from raylr.running.joiners import Agreed, Left, Over
from raylr.training.network import Endpoint


def joins(hub, rank, mark, node, expected=2, fewest=1):
    end = Endpoint("one", "127.0.0.1", 4000 + rank)
    return hub.join(rank, expected, mark, end, 70 + rank, None, 60.0, "", fewest, node)


def together(*waiting):
    return asyncio.wait_for(asyncio.gather(*waiting), 10)


def ranks_of(answer):
    return [member.rank for member in answer.members]


def test_who_sits_on_a_node_that_is_about_to_go_leaves_at_a_boundary_and_nobody_counts_it_as_lost():
    async def story():
        hub = hubs.Hub()
        await together(joins(hub, 0, None, "a"), joins(hub, 1, None, "b"))
        before = await hub.orders_after(0)
        word = asyncio.create_task(hub.wanted(0))
        await asyncio.sleep(0)
        await hub.drain({"a"})
        await asyncio.wait_for(word, 1)
        orders = await hub.orders_after(0)
        answers = await together(joins(hub, 0, (64, 0), "a"), joins(hub, 1, (64, 0), "b"))
        return before, orders, answers, await hub.orders_after(0), hub

    before, orders, (gone, stays), after, hub = asyncio.run(story())
    assert (before, orders, after) == ([], [RejoinOrder()], [])
    assert gone == Left()
    assert (stays.size, stays.group_rank, stays.source, stays.writer, stays.all_equal) == (1, 0, 0, 0, True)
    assert (stays.cause, stays.lost, ranks_of(stays), set(hub.active)) == ("continue", (), [1], {1})


def test_the_last_one_stays_and_saves_its_state_until_it_has_given_that_to_a_newcomer():
    async def story():
        hub = hubs.Hub()
        await together(joins(hub, 0, None, "a", expected=1))
        await hub.drain({"a"})
        (saving,) = await hub.orders_after(0)
        newcomer = asyncio.create_task(joins(hub, 1, None, "b"))
        await asyncio.sleep(0.01)
        calls = await hub.orders_after(saving.number)
        first = await together(joins(hub, 0, (64, 0), "a"), newcomer)
        again = await hub.orders_after(saving.number)
        second = await together(joins(hub, 0, (128, 0), "a"), joins(hub, 1, (128, 0), "b"))
        return saving, calls, first, again, second

    saving, calls, first, again, second = asyncio.run(story())
    assert (type(saving), saving.cause) == (CheckpointOrder, "preemption")
    assert calls == again == [RejoinOrder()]
    assert [(answer.cause, answer.source, ranks_of(answer)) for answer in first] == [("rejoin", 0, [0, 1])] * 2
    assert second[0] == Left()
    assert (second[1].size, second[1].all_equal, ranks_of(second[1])) == (1, True, [1])


def test_a_newcomer_on_a_node_that_is_about_to_go_does_not_come_in():
    async def story():
        hub = hubs.Hub()
        await together(joins(hub, 0, None, "a", expected=1))
        await hub.drain({"b"})
        return await together(joins(hub, 1, None, "b"), joins(hub, 0, (64, 0), "a"))

    gone, stays = asyncio.run(story())
    assert (gone, stays.size) == (Left(), 1)


def test_all_nodes_that_go_bring_one_checkpoint():
    async def story():
        hub = hubs.Hub()
        await together(joins(hub, 0, None, "a"), joins(hub, 1, None, "b"))
        for nodes in ({"a", "b"}, {"a", "b", "c"}):
            await hub.drain(nodes)
        return await hub.orders_after(0)

    assert [order.kind for order in asyncio.run(story())] == ["checkpoint"]


def test_a_start_waits_for_all_that_have_room_and_after_a_while_takes_those_that_must_be_there(monkeypatch):
    async def story():
        hub = hubs.Hub()
        first = asyncio.create_task(joins(hub, 0, None, "a", expected=3, fewest=2))
        await asyncio.sleep(0.6)
        alone = first.done()
        answers = await together(first, joins(hub, 2, None, "b", expected=3, fewest=2))
        return alone, answers

    monkeypatch.setattr(hubs, "START_PATIENCE_S", 0.3)
    alone, answers = asyncio.run(story())
    assert not alone, "fewest=2"
    assert [(type(answer), answer.size, answer.cause) for answer in answers] == [(Agreed, 2, "start")] * 2


def test_who_waits_beside_a_run_that_ends_is_told_so():
    async def story():
        hub = hubs.Hub()
        await together(joins(hub, 0, None, "a", expected=1))
        newcomer = asyncio.create_task(joins(hub, 1, None, "b"))
        await asyncio.sleep(0)
        await hub.end({"status": "complete"})
        return await newcomer

    assert asyncio.run(story()) == Over({"status": "complete"})
