"""The hub of a run and real actors: a member that gives a sign of life and does not come is dropped."""

import asyncio

import pytest
import ray

from raylr.running import hub as hubs
from raylr.running.hub import Hub
from raylr.running.session import own_cluster
from raylr.training.network import Endpoint


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
        return hub.join(number, 2, mark, Endpoint("one", "127.0.0.1", 4000 + number), 70 + number, actors[number], 0.5)

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
