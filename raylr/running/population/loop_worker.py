"""What runs in a Ray Train worker of a population of loops of one's own: the user's function, in one trial after the other."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
import ray.train

from raylr.config.user_code import import_object
from raylr.errors import ConfigError
from raylr.events import Copied, LoopAttached, OfTrial, Order, Progress, TrialReport
from raylr.planning.loop_plan import Workers
from raylr.running.failures import ending
from raylr.running.population.worker import BeforeTrials, TrialMembership
from raylr.running.priority import restore_priority
from raylr.running.ray_internals.share import as_own_group
from raylr.training.attached.rounds import Rounds
from raylr.training.attached.surroundings import inside
from raylr.training.membership import RunEnded


class LoopMembership(TrialMembership):
    """A rank's membership of its trial, and how it speaks with the population. `trial` is its description, once it is open."""

    def __init__(self, hubs: Any, trial: str, workers: Workers, slot: int, turn: int) -> None:
        super().__init__(hubs, trial, workers)
        self.slot, self.turn = slot, turn

    def begin(self) -> Mapping[str, Any]:
        """What the trial starts with. Raises RunEnded where the population stops before."""
        found: dict[str, Any] | None = ray.get(self.hubs.turn.remote(self.slot, self.turn))
        if found is None:
            raise RunEnded({"status": "stopped"})
        return found

    def report(self, news: LoopAttached | TrialReport | Copied | Progress) -> None:
        self.hubs.add.remote(OfTrial(self.trial, news))

    def orders(self, since: int) -> list[Order]:
        found: list[Order] = ray.get(self.hub.orders_after.remote(since))
        return [order for order in found if order.number]  # not those to form the group again


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Call the user's function in this rank's share of one trial after the other. `config` holds plain data and the hubs."""
    restore_priority()
    return ending(BeforeTrials(config["hubs"]), lambda: _train_trials(config))


def _train_trials(config: dict[str, Any]) -> dict[str, Any]:
    workers, hubs, names = Workers.model_validate(config["workers"]), config["hubs"], config["names"]
    rank, size = ray.train.get_context().get_world_rank(), workers.workers[1]
    slot, turn, result = rank // size, 0, dict[str, Any]()
    as_own_group(rank % size, size)
    name = names[slot] if slot < len(names) else None
    while name is not None:
        membership = LoopMembership(hubs, name, workers, slot, turn)
        membership.publish_warnings()
        result = ending(membership, partial(_train, config, name, membership))
        turn += 1
        following = ray.get(hubs.turn.remote(slot, turn))
        name = None if following is None else following["name"]
    return result


def _train(config: dict[str, Any], name: str, membership: LoopMembership) -> dict[str, Any]:
    """One trial: form its group, call the function, and end its loop where the function has not."""
    group = membership.rendezvous(None).group
    rounds = Rounds(group, membership, config["storage"], name, config["interval"], config["score"])
    function = import_object(config["loop"], "loop")
    try:
        with inside(rounds):
            called(function, config["loop_config"])
    except RunEnded as ended:
        return ended.result
    if rounds.loop is None:
        raise ConfigError(f"loop={config['loop']} returned without raylr.loop.attach; attach its model and optimizers")
    rounds.loop.finish()
    membership.leave()
    return {"status": "stopped" if rounds.loop.stopping else "complete"}


def called(function: Any, settings: Mapping[str, Any]) -> Any:
    """Call a train function as Ray Train does: with its config where it takes one."""
    return function(dict(settings)) if inspect.signature(function).parameters else function()
