"""The hub of a run gives up to form groups that bring nobody further, with the reason."""

import asyncio

from raylr.running.hub import Hub
from raylr.running.joiners import MAX_TRIES, GivenUp
from raylr.training.network import Endpoint

HOSTS = [Endpoint("one", "10.0.0.1", 4001), Endpoint("two", "10.0.0.2", 4002)]
TROUBLE = "host two (10.0.0.2) does not reach host one (10.0.0.1) at port 4001: no answer within 10 s"


async def joined(hub: Hub, marks, troubles=("", ""), hosts=HOSTS, stall_s=120.0):
    """What both ranks are answered."""
    waiting = [
        hub.join(rank, 2, marks[rank], hosts[rank], 70 + rank, None, stall_s, troubles[rank]) for rank in range(2)
    ]
    return await asyncio.wait_for(asyncio.gather(*waiting), 10)


def test_groups_that_were_never_formed_are_given_up_with_both_hosts_both_addresses_and_what_was_tried():
    async def story():
        hub = Hub()
        for _ in range(MAX_TRIES):
            answers = await joined(hub, (None, None), ("", TROUBLE))
            assert [list(answer.endpoints) for answer in answers] == [HOSTS, HOSTS]
        return await joined(hub, (None, None), ("timed out", TROUBLE))

    answers = asyncio.run(story())
    reasons = {answer.reason for answer in answers}
    assert len(reasons) == 1
    reason = reasons.pop()
    says = "workers=2 on host one (10.0.0.1) and host two (10.0.0.2) came to no update in 3 groups over 0 s: "
    assert reason.startswith(f"{says}{TROUBLE}; open all TCP ports between the hosts")
    assert "\n" not in reason


def test_groups_that_bring_updates_are_never_given_up():
    async def story():
        hub = Hub()
        return [await joined(hub, ((number, 0), (number, 0)), stall_s=0.0) for number in range(5 * MAX_TRIES)]

    assert not [answer for answers in asyncio.run(story()) for answer in answers if isinstance(answer, GivenUp)]


def test_a_group_that_has_trained_is_tried_for_as_long_as_a_worker_may_stall():
    async def story(stall_s):
        hub, answers = Hub(), []
        for _ in range(3 * MAX_TRIES):
            answers += await joined(hub, ((64, 0), (64, 0)), stall_s=stall_s)
        return [answer for answer in answers if isinstance(answer, GivenUp)]

    assert not asyncio.run(story(60.0))
    assert asyncio.run(story(0.0))


def test_on_one_host_the_advice_is_about_the_deadline_of_a_collective():
    async def story():
        hub, hosts = Hub(), [HOSTS[0]] * 2
        for _ in range(MAX_TRIES):
            await joined(hub, ((0, 0), (0, 0)), hosts=hosts, stall_s=0.0)
        return await joined(hub, ((0, 0), (0, 0)), ("Timed out waiting 10ms", ""), hosts, 0.0)

    answers = asyncio.run(story())
    assert answers[0].reason.startswith("workers=2 on host one (10.0.0.1) came to no update in 3 groups")
    assert answers[0].reason.endswith("Timed out waiting 10ms; failure.stall_s=0 must be longer than an update takes")


def test_the_first_end_of_a_run_stands_and_who_waits_is_told_it():
    async def story():
        hub = Hub()
        waiting = asyncio.create_task(hub.join(0, 2, None, HOSTS[0], 70, None, 120.0))
        await asyncio.sleep(0)
        assert await hub.missing() == [1]
        await hub.end({"status": "failed", "reason": "first"})
        await hub.end({"status": "failed", "reason": "second"})
        return await waiting, await hub.join(1, 2, None, HOSTS[1], 71, None, 120.0)

    first, second = asyncio.run(story())
    assert first.result == second.result == {"status": "failed", "reason": "first"}
