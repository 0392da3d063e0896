"""What runs in a Ray Train worker of a population: its membership in the group of its trial, and the trial's loop."""

import contextlib
import json
from functools import partial
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.events import Copied, Decision, News, OfTrial, TrialReport
from raylr.lr import Policy
from raylr.planning.loop_plan import Workers
from raylr.planning.plan import Plan
from raylr.running.failures import ending, warning
from raylr.running.population.hub import HubOf
from raylr.running.priority import restore_priority
from raylr.running.worker import RayMembership, prepare_as_planned
from raylr.storage import run_folder
from raylr.training.data import Dataset
from raylr.training.source import load
from raylr.training.trial import TrialLoop


class TrialMembership(RayMembership):
    """A rank's membership of its trial: ranks are dealt to the trials in order, as many to each."""

    def __init__(self, hubs: Any, trial: str, plan: Plan | Workers) -> None:
        super().__init__(HubOf(hubs, trial), plan)
        self.hubs, self.trial = hubs, trial
        self.world_size = plan.workers[1]
        self.rank %= self.world_size

    def publish(self, news: News | TrialReport) -> None:
        self.hubs.add.remote(OfTrial(self.trial, news))

    def report(self, news: TrialReport | Copied) -> None:
        self.publish(news)

    def end(self, result: dict[str, Any]) -> None:
        """Leave the trial's result; one that failed stops all others, which would wait for it."""
        if result["status"] == "failed":
            ray.get(self.hubs.fail.remote(self.trial, result))
        else:
            super().end(result)

    def give_up(self, failed: dict[str, Any]) -> None:
        """Leave the error that ends this process, and say it."""
        self.hubs.note_error.remote(failed)
        if "traceback" in failed:
            self.publish(warning(failed, self.rank))

    def decision(self, number: int) -> Decision:
        decision: Decision = ray.get(self.hubs.decision.remote(self.trial, number))
        return decision


class BeforeTrials:
    """A rank before its first trial and between two."""

    def __init__(self, hubs: Any) -> None:
        self.hubs, self.rank = hubs, ray.train.get_context().get_world_rank()

    def ended(self) -> None:
        return None

    def fail(self, failed: dict[str, Any]) -> None:
        """End the population."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.hubs.fail.remote(None, failed))

    def give_up(self, failed: dict[str, Any]) -> None:
        self.hubs.note_error.remote(failed)


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train this rank's share of one trial after the other. `config` holds plain data and the hubs' handle."""
    restore_priority()
    return ending(BeforeTrials(config["hubs"]), lambda: _train_trials(config))


def _train_trials(config: dict[str, Any]) -> dict[str, Any]:
    plan, hubs = Plan.model_validate(config["plan"]), config["hubs"]
    slot = ray.train.get_context().get_world_rank() // plan.workers[1]
    data = DataConfig.model_validate(config["data"])
    prepare_as_planned(plan, data)
    dataset, turn, result = load(plan, data), 0, dict[str, Any]()
    while (trial := ray.get(hubs.turn.remote(slot, turn))) is not None:
        membership = TrialMembership(hubs, trial["name"], plan)
        membership.publish_warnings()
        result = ending(membership, partial(_train, config["storage"], trial, plan, dataset, membership))
        turn += 1
    return result


def _train(
    storage: str, trial: dict[str, Any], plan: Plan, dataset: Dataset, membership: TrialMembership
) -> dict[str, Any]:
    policy, folder = Policy.from_json(json.dumps(trial["policy"])), run_folder(storage, trial["name"])
    first = trial["round"], trial["begins_at"]
    return TrialLoop(plan, trial["changes"], policy, dataset, membership, folder, membership, *first).run()
