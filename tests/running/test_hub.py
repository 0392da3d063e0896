"""The hub of a run: groups that bring nobody further are given up, and a member that lives but does not come is dropped."""

import asyncio

import pytest
import ray

from raylr.running import hub as hubs
from raylr.running.hub import Hub
from raylr.running.joiners import MAX_TRIES
from raylr.running.session import own_cluster
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
            assert [answer["endpoints"] for answer in answers] == [HOSTS, HOSTS]
        return await joined(hub, (None, None), ("timed out", TROUBLE))

    answers = asyncio.run(story())
    reasons = {answer["failed"] for answer in answers}
    assert len(reasons) == 1
    reason = reasons.pop()
    says = "workers=2 on host one (10.0.0.1) and host two (10.0.0.2) came to no update in 3 groups over 0 s: "
    assert reason.startswith(f"{says}{TROUBLE}; open all TCP ports between the hosts")
    assert "\n" not in reason


def test_groups_that_bring_updates_are_never_given_up():
    async def story():
        hub = Hub()
        return [await joined(hub, ((number, 0), (number, 0)), stall_s=0.0) for number in range(5 * MAX_TRIES)]

    assert not [answer for answers in asyncio.run(story()) for answer in answers if "failed" in answer]


def test_a_group_that_has_trained_is_tried_for_as_long_as_a_worker_may_stall():
    async def story(stall_s):
        hub, answers = Hub(), []
        for _ in range(3 * MAX_TRIES):
            answers += await joined(hub, ((64, 0), (64, 0)), stall_s=stall_s)
        return [answer for answer in answers if "failed" in answer]

    assert not asyncio.run(story(60.0))
    assert asyncio.run(story(0.0))


def test_on_one_host_the_advice_is_about_the_deadline_of_a_collective():
    async def story():
        hub, hosts = Hub(), [HOSTS[0]] * 2
        for _ in range(MAX_TRIES):
            await joined(hub, ((0, 0), (0, 0)), hosts=hosts, stall_s=0.0)
        return await joined(hub, ((0, 0), (0, 0)), ("Timed out waiting 10ms", ""), hosts, 0.0)

    answers = asyncio.run(story())
    assert answers[0]["failed"].startswith("workers=2 on host one (10.0.0.1) came to no update in 3 groups")
    assert answers[0]["failed"].endswith(
        "Timed out waiting 10ms; failure.stall_s=0 must be longer than an update takes"
    )


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
    assert first["ended"] == second["ended"] == {"status": "failed", "reason": "first"}


class Rank:
    """A worker that answers, whatever its training does."""


@pytest.fixture(scope="module")
def actors():
    with own_cluster(2):
        yield [ray.remote(num_cpus=0)(Rank).remote() for _ in range(2)]


def test_a_member_that_gives_a_sign_of_life_and_does_not_come_is_killed_and_left_out(monkeypatch, actors):
    monkeypatch.setattr(hubs, "COMING_TIMEOUT_S", 0.5)
    ray.get([actor.__ray_ready__.remote() for actor in actors])

    def rank(hub, number, mark):
        return hub.join(number, 2, mark, HOSTS[number], 70 + number, actors[number], 0.5)

    async def story():
        hub = Hub()
        first = await asyncio.gather(rank(hub, 0, None), rank(hub, 1, None))
        word = asyncio.create_task(hub.broken(first[0]["generation"]))
        again = asyncio.create_task(rank(hub, 0, (64, 0)))
        done, _ = await asyncio.wait((again,), timeout=0.5)
        assert not done, "it may still come"
        assert not word.done()
        answer = await asyncio.wait_for(again, 20)
        await asyncio.wait_for(word, 1)
        return answer

    answer = asyncio.run(story())
    assert (answer["size"], answer["lost"], answer["cause"]) == (1, [1], "continue")
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actors[1].__ray_ready__.remote(), timeout=20)
    ray.get(actors[0].__ray_ready__.remote(), timeout=20)
