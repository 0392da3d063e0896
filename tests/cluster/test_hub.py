"""The hub of a run and real actors: a member that gives a sign of life and does not come is dropped."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from raylr.running.session import own_cluster
from raylr.training.network import Endpoint


class Rank:
    """A worker that answers, whatever its training does."""


def story() -> tuple[dict, bool, bool, list[bool]]:
    """What a rank is answered whose peer stays away, whether it was too early, whether the hub gave word, and who lives."""
    with own_cluster(2):
        import ray  # it reads its environment when it is imported

        from raylr.running import hub as hubs

        hubs.COMING_TIMEOUT_S = 0.5
        actors = [ray.remote(num_cpus=0)(Rank).remote() for _ in range(2)]
        ray.get([actor.__ray_ready__.remote() for actor in actors])

        def join(hub, rank, mark):
            return hub.join(rank, 2, mark, Endpoint("one", "127.0.0.1", 4000 + rank), 70 + rank, actors[rank], 0.5)

        async def told():
            hub = hubs.Hub()
            first = await asyncio.gather(join(hub, 0, None), join(hub, 1, None))
            word = asyncio.create_task(hub.broken(first[0].generation))
            again = asyncio.create_task(join(hub, 0, (64, 0)))
            too_early = bool((await asyncio.wait((again, word), timeout=0.7))[0])
            answer = await asyncio.wait_for(again, 20)
            await asyncio.wait_for(word, 1)
            return (answer.size, answer.lost, answer.cause), too_early, word.done()

        def lives(actor):
            try:
                ray.get(actor.__ray_ready__.remote(), timeout=20)
            except ray.exceptions.RayActorError:
                return False
            return True

        return *asyncio.run(told()), [lives(actor) for actor in actors]


def test_a_member_that_gives_a_sign_of_life_and_does_not_come_is_killed_and_left_out():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        answer, too_early, was_told, alive = pool.submit(story).result(120)
    assert answer == (1, (1,), "continue")
    assert (too_early, was_told) == (False, True)
    assert alive == [True, False]
