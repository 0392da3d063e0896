"""The driver of a population: its part of a job, one Ray Train run for all trials, the result. Never imports torch."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict

from raylr.config import Config
from raylr.config.own_options import short_name
from raylr.config.population import FIXED, PopulationConfig
from raylr.errors import ConfigError
from raylr.events import Explored, OfTrial, PopulationNews, PopulationPlanned
from raylr.planning.facts import ALL_FEATURES, DatasetInfo, Features, Hardware
from raylr.planning.loop_plan import Workers
from raylr.planning.plan import Plan
from raylr.planning.workers import workers
from raylr.running.capacity import Demand, resources
from raylr.running.difference import AnotherRun, differences
from raylr.running.forking import give_start
from raylr.running.job import Request, carry_out, data_for_workers, identity
from raylr.running.population.space import Space, plain
from raylr.running.population.trials import are_done, follow, start_hubs
from raylr.running.ray_internals.features import features
from raylr.storage import Folder, run_folder
from raylr.training.checkpoint_index import names
from raylr.training.source import task_of

if TYPE_CHECKING:
    from raylr.running.population.population import Turn

VALIDATION = 0.1  # of the training images, unless told otherwise
Listener = Callable[[PopulationNews], None]


class PopulationResult(BaseModel):
    """`explore.json`, with the population's folder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run_dir: str
    status: str
    best: str | None = None
    best_score: float | None = None

    def _repr_html_(self) -> str:
        """Return the result with its trials, the best first, as a notebook shows it."""
        from raylr.reporting.notebook_population import population_html

        return population_html(self.model_dump())


def explore(config: Config, on_event: Listener | None = None) -> PopulationResult:
    """Search LR schedules with a population of trials to its end, or go on with it, and return what was found.

    Raises ConfigError for a request that is refused before anything starts.
    """
    run_dir, result = carry_out(request_of(config), on_event or (lambda news: None))
    return PopulationResult(run_dir=run_dir, **result)


def request_of(config: Config) -> Request:
    """Return the population as a job that is asked for."""
    wanted = config if isinstance(config, PopulationConfig) else PopulationConfig(**config.model_dump())
    if wanted.init is not None:
        raise ConfigError(f"init={wanted.init} beside explore, whose trials begin with their seed; leave it out")
    task = task_of(wanted)
    if task is None or task.takes_dataset:  # others have their own test examples
        wanted = wanted.held_out(VALIDATION)
    ranks = wanted.num_at_once * (wanted.num_workers[1] if wanted.workers else 1)
    gpus = math.ceil(ranks * wanted.gpus_per_worker) if wanted.gpu == "yes" else 0

    def resolved(info: DatasetInfo, hardware: Hardware) -> "Exploration":
        return Exploration(checked_space(wanted, info, hardware, features()))

    return Request(wanted, Hardware(True, ranks), gpus, resolved)


@dataclass(frozen=True)
class Exploration:
    """A population as a job."""

    space: Space
    result_file = "explore.json"

    @property
    def name(self) -> str:
        """The name as given, else search, model, optimizers and seed."""
        config, plan = self.space.config, self.plan
        kinds = "-".join(short_name(one.kind) for one in plan.optimizers.values())
        return config.name or f"{config.search}-{plan.what}-{kinds}-{plan.seed}"

    @property
    def plan(self) -> Plan:
        return self.space.plan

    @property
    def demand(self) -> Demand:
        """The places that all trials which train at once need."""
        return demand_of(self.space.config, self.plan)

    @property
    def num_ranks(self) -> int:
        return self.space.config.num_at_once * self.plan.workers[1]

    def agreed(self, folder: Folder) -> Self:
        """Check that a population of this name is the same one. Raises ConfigError otherwise."""
        refuse_another(self.space.config, folder)
        return self

    def planned(self, folder: Folder) -> PopulationPlanned:
        config, plan = self.space.config, self.plan
        return PopulationPlanned(
            run_dir=str(folder),
            trials=self.space.rungs.num_trials,
            lengths=self.space.rungs.planned,
            workers=plan.workers[1],
            at_once=config.num_at_once,
            interval=config.interval,
            search=config.search,
            model=plan.model or plan.what,
            total_examples=plan.total_examples,
            global_batch=plan.batch_at(plan.workers[1]),
            notes=(*self.space.features.notes(), scored_on(plan)),
        )

    def ended(self, folder: Folder, result: dict[str, Any], again: bool) -> Explored:
        return Explored(result, str(folder), again)

    def write_plan(self, folder: Folder) -> None:
        folder.remove("failure.txt")
        folder.write_json("space.json", {**plain(self.space.config), "lengths": self.space.rungs.planned})

    def run(self, folder: Folder, info: DatasetInfo, tell: Listener, nodes_may_go: bool) -> dict[str, Any]:
        """Train all trials on the Ray that is connected; explore.json is written after every round."""
        return _run(self.space, folder, info, tell)


def refuse_another(config: PopulationConfig, folder: Folder) -> None:
    """Raise ConfigError where the folder holds a run, or another population."""
    if config.fresh or not folder.exists("space.json"):
        if not config.fresh and folder.exists("plan.json"):
            raise AnotherRun(f"name={folder.name} is a run, not a population; use another --name")
        return
    old, new = folder.read_json("space.json"), plain(config)
    different = [f"{key} was {old.get(key)!r} and is {new[key]!r}" for key in new if old.get(key) != new[key]]
    if different:
        told = differences(config, folder) or different
        raise AnotherRun(f"name={folder.name} is another population: {'; '.join(told)}; use --fresh, or another --name")


def scored_on(plan: Plan) -> str:
    """What trials are compared by."""
    if plan.task is not None and not plan.task.takes_dataset:
        return f"trials are compared on the {plan.num_test:,} test examples of their task"
    if not plan.num_validation:
        return (
            f"trials are compared on the {plan.num_test:,} TEST images; data.validation=0.1 keeps the search off them"
        )
    return (
        f"trials are compared on {plan.num_validation:,} training images that are held out; no test image is read "
        "(data.validation)"
    )


def checked_space(
    config: PopulationConfig, info: DatasetInfo, hardware: Hardware, offered: Features = ALL_FEATURES
) -> Space:
    """The population's space, on GPUs if all that train at once have places there."""
    config = with_fixed_workers(config, hardware.num_gpus)
    gpus = places(config, hardware.num_gpus) // config.num_at_once
    return Space.of(config, info, Hardware(hardware.bf16, gpus if gpus >= config.num_workers[1] else 0), offered)


def demand_of(config: PopulationConfig, ranks: Plan | Workers) -> Demand:
    """The places that all trials which train at once need."""
    field = "at-once" if config.search in FIXED else "trials"
    return Demand(resources(ranks, config.gpus_per_worker), ranks.workers[1], config.num_at_once, field)


def with_fixed_workers(config: PopulationConfig, num_gpus: int) -> PopulationConfig:
    """The config with the workers of a trial. Raises ConfigError where their number is not fixed."""
    config = config.model_copy(update={"workers": config.workers or _workers_of(config, num_gpus)})
    low, high = config.num_workers
    if low != high:
        raise ConfigError(
            f"workers={config.workers} changes while trials train; a trial needs a fixed number, such as {high}"
        )
    return config


def _workers_of(config: PopulationConfig, num_gpus: int) -> str:
    """Of a trial, where they are not given: an equal share of the GPUs; one where trials share them."""
    if config.gpus_per_worker < 1:
        return "1"
    return workers(config, num_gpus // config.num_at_once).value


def places(config: PopulationConfig, num_gpus: int) -> int:
    """How many workers have a place on the GPUs. Raises ConfigError where GPUs are asked for and have too few."""
    share, each = config.gpus_per_worker, config.num_workers[1]
    if share < 1 and each > 1 and config.batch.backend != "gloo":
        raise ConfigError(
            f"gpus_per_worker={share:g} beside workers={each}: NCCL lets no two workers of a trial share a GPU; use "
            "--workers 1 or batch.backend=gloo"
        )
    places, ranks = num_gpus * int(1 / share + 1e-9), config.num_at_once * each
    if config.gpu == "yes" and places < ranks:
        advice = [f"--gpus-per-worker {1000 // -(-ranks // num_gpus) / 1000:g}"] if num_gpus and each == 1 else []
        advice += [f"--trials {places // each}"] if places >= each else []
        raise ConfigError(
            f"gpu=yes needs places on GPUs for {ranks} workers at once, but the {num_gpus} GPUs have {places}; "
            f"use {' or '.join([*advice, 'gpu=no'])}"
        )
    return places


def _run(space: Space, folder: Folder, info: DatasetInfo, tell: Listener) -> dict[str, Any]:
    import ray

    from raylr.running.population.journal import Journal
    from raylr.running.population.population import Population
    from raylr.running.population.result import Results

    hubs = start_hubs(folder, space.names)
    from raylr.running.fit import TrainRun

    def begin(turns: "list[Turn]") -> None:
        for turn in turns:
            hubs.open.remote([_trial(space, folder, name, turn) for name in turn.settings])

    journal = Journal(folder)
    population = Population(space, journal, lambda orders: ray.get(hubs.decide.remote(orders)), tell)
    population.go_on(lambda name: run_folder(f"{folder}/trials", name).read_rows("events.jsonl"))
    begin(_unfinished(folder, population.turns))
    settings = {
        "plan": space.plan.model_dump(mode="json"),
        "data": data_for_workers(space.config, info),
        "storage": f"{folder}/trials",
        "hubs": hubs,
    }
    size = space.config.num_at_once, space.config.gpus_per_worker
    fit = TrainRun(train_rank, settings, space.plan, folder, *size)
    results = Results(population, folder, identity(space.plan, space.policy, info))

    def take(told: OfTrial) -> None:
        begun = len(population.turns)
        results.take(told)
        begin(population.turns[begun:])
        tell(told)

    failed = follow(fit, hubs, folder, take, tell)
    journal.close()
    return results.end(failed)


def _unfinished(folder: Folder, turns: "list[Turn]") -> "list[Turn]":
    """The turns from the first one with a trial that has left no complete result; the last one in any case."""
    for index, turn in enumerate(turns):
        if not are_done(folder, turn.settings):
            return turns[index:]
    return turns[-1:]


def train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every rank; what it imports, the driver need not."""
    from raylr.running.population.worker import work

    return work(config)


def _trial(space: Space, folder: Folder, name: str, turn: "Turn") -> dict[str, Any]:
    """What a trial's ranks need to know of it; its run folder gets the same, and what it begins with."""
    settings, start = turn.settings[name], turn.starts.get(name)
    policy, changes = space.policy_for(settings), space.changes_for(settings)
    own = run_folder(f"{folder}/trials", name)
    own.create()
    own.remove("result.json")
    own.write_json("config.json", space.config.record())
    own.write_json("plan.json", {**space.plan.model_dump(mode="json"), **changes})
    own.write_bytes("policy.json", policy.to_json().encode())
    if start is not None and not names(own):
        give_start(own, run_folder(f"{folder}/trials", start.donor), start.position)
    begins_at = 0 if start is None else start.position
    told = {"name": name, "policy": json.loads(policy.to_json()), "changes": changes}
    return {**told, "round": turn.round, "begins_at": begins_at}
