"""The driver of a population: config, data, cluster, one Ray Train run for all trials, result. Never imports torch."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from raylr.config import Config
from raylr.config.population import FIXED, PopulationConfig
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware, local_hardware
from raylr.planning.plan import Plan
from raylr.running.capacity import Demand, resources, wait_for_capacity
from raylr.running.control import NAMESPACE, write_address
from raylr.running.job import (
    RAY_FOLDER,
    Listener,
    data_for_workers,
    identity,
    look_at_own_parts,
    refuse_throw_away_storage,
)
from raylr.running.nodes import beside_the_driver, cluster_hardware, refuse_storage_that_some_hosts_do_not_see
from raylr.running.population.lineage import trial_ids
from raylr.running.population.space import Settings, Space, plain
from raylr.running.session import named_cluster, own_cluster
from raylr.running.signals import stop_on_signals
from raylr.storage import Folder, run_folder
from raylr.training.data import describe, prepare

Turn = tuple[Mapping[str, Settings], int]  # what trials start with, and after which round


class PopulationResult(BaseModel):
    """`explore.json`, with the population's folder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run_dir: str
    status: str
    best: str | None = None
    best_score: float | None = None


def explore(config: Config, on_event: Listener | None = None) -> PopulationResult:
    """Search LR schedules with a population of trials to its end, or go on with it, and return what was found.

    Raises ConfigError for a request that is refused before anything starts.
    """
    tell = on_event or (lambda event: None)
    wanted = config if isinstance(config, PopulationConfig) else PopulationConfig(**config.model_dump())
    address = wanted.address or os.environ.get("RAY_ADDRESS")
    refuse_throw_away_storage(wanted)
    enough = Hardware(True, wanted.num_at_once * wanted.num_workers[1])
    checked_space(wanted, describe(wanted.data), enough if address else local_hardware())
    info = prepare(wanted.data, lambda done, total: tell({"kind": "prepare", "done": done, "total": total}))
    with contextlib.ExitStack() as stack:
        hardware = local_hardware()
        if address:
            stack.enter_context(named_cluster(address))
            gpus = wanted.num_at_once * wanted.num_workers[1] * wanted.gpus_per_worker
            hardware = cluster_hardware(math.ceil(gpus) if wanted.gpu == "yes" else 0)
        space = checked_space(wanted, info, hardware)
        folder = run_folder(wanted.storage, population_name(wanted, space.plan))
        look_at_own_parts(space.plan)
        _agree_with_earlier(wanted, folder, space)
        tell({"kind": "population", "space": space, "run_dir": str(folder)})
        if (earlier := _finished(wanted, folder)) is not None:
            tell({"kind": "explored", "result": earlier, "run_dir": str(folder), "again": True})
            return PopulationResult(run_dir=str(folder), **earlier)
        stack.enter_context(folder.held())
        if address:
            wait_for_capacity(demand(space), tell)
        else:
            stack.enter_context(own_cluster(num_ranks(space) * space.plan.cpus_per_worker))
        _write_settings(wanted, folder, space)
        if address:
            refuse_storage_that_some_hosts_do_not_see(folder)
        result = _run(space, folder, info, tell)
    tell({"kind": "explored", "result": result, "run_dir": str(folder)})
    return PopulationResult(run_dir=str(folder), **result)


def checked_space(config: PopulationConfig, info: DatasetInfo, hardware: Hardware) -> Space:
    """The population's space, on GPUs if all that train at once have places there."""
    low, high = config.num_workers
    if low != high:
        raise ConfigError(
            f"workers={config.workers} changes while trials train; a trial needs a fixed number, such as {high}"
        )
    return Space.of(config, info, Hardware(hardware.bf16, _places(config, hardware.num_gpus) // config.num_at_once))


def _places(config: PopulationConfig, num_gpus: int) -> int:
    """How many workers have a place on the GPUs. Raises ConfigError where GPUs are asked for and have too few."""
    share, workers = config.gpus_per_worker, config.num_workers[1]
    if share < 1 and workers > 1:
        raise ConfigError(
            f"gpus_per_worker={share:g} beside workers={workers}: NCCL lets no two workers of a trial share a GPU; use "
            "--workers 1"
        )
    places, ranks = num_gpus * int(1 / share + 1e-9), config.num_at_once * workers
    if config.gpu == "yes" and places < ranks:
        advice = [f"--gpus-per-worker {1000 // -(-ranks // num_gpus) / 1000:g}"] if num_gpus and workers == 1 else []
        advice += [f"--trials {places // workers}"] if places >= workers else []
        raise ConfigError(
            f"gpu=yes needs places on GPUs for {ranks} workers at once, but the {num_gpus} GPUs have {places}; "
            f"use {' or '.join([*advice, 'gpu=no'])}"
        )
    return places


def num_ranks(space: Space) -> int:
    return space.config.num_at_once * space.plan.workers[1]


def demand(space: Space) -> Demand:
    """The places that all trials which train at once need."""
    config, plan = space.config, space.plan
    need = resources(plan, config.gpus_per_worker)
    return Demand(need, plan.workers[1], config.num_at_once, "at-once" if config.search in FIXED else "trials")


def population_name(config: PopulationConfig, plan: Plan) -> str:
    """The name as given, else search, model, optimizers and seed."""
    kinds = "-".join(one.kind for one in plan.optimizers.values())
    return config.name or f"{config.search}-{plan.model.rpartition(':')[2]}-{kinds}-{plan.seed}"


def _run(space: Space, folder: Folder, info: DatasetInfo, tell: Listener) -> dict[str, Any]:
    import ray

    from raylr.running.population.hub import Hubs
    from raylr.running.population.journal import Journal
    from raylr.running.population.population import Population
    from raylr.running.population.result import Results

    names = trial_ids(space.config.seed, space.config.trials)
    hub_name = f"hubs of {folder}"
    options: dict[str, Any] = {"name": hub_name, "namespace": NAMESPACE, "max_concurrency": 10_000}
    hubs = ray.remote(**beside_the_driver(), **options)(Hubs).remote(list(names))
    from raylr.running.fit import TrainRun

    def begin(settings: Mapping[str, Settings], number: int) -> None:
        hubs.open.remote([_trial(space, folder, name, own, number) for name, own in settings.items()])

    journal, turns = Journal(folder), list[Turn]()
    population = Population(
        space, journal, lambda orders: ray.get(hubs.decide.remote(orders)), tell, lambda *turn: turns.append(turn)
    )
    population.go_on(lambda name: run_folder(f"{folder}/trials", name).read_rows("events.jsonl"))
    population.begin = begin
    for turn in _unfinished(folder, turns):
        begin(*turn)
    settings = {
        "plan": space.plan.model_dump(mode="json"),
        "data": data_for_workers(space.config, info),
        "storage": f"{folder}/trials",
        "hubs": hubs,
    }
    size = space.config.num_at_once, space.config.gpus_per_worker
    fit = TrainRun(train_rank, settings, space.plan, folder, *size)
    results = Results(population, folder, identity(space.plan, space.policy, info))
    write_address(folder, hub_name)

    def take(event: dict[str, Any]) -> None:
        results.take(event)
        tell(event)

    with stop_on_signals(lambda: hubs.stop.remote()):
        fit.follow(hubs.news_after, take)
    for leftover in ("hub.json", RAY_FOLDER):
        folder.remove(leftover)
    journal.close()
    return results.end(str(fit.outcome["error"]) if "error" in fit.outcome else None)


def _unfinished(folder: Folder, turns: list[Turn]) -> list[Turn]:
    """The turns from the first one with a trial that has left no complete result; the last one in any case."""
    for index, (settings, _) in enumerate(turns):
        own = [run_folder(f"{folder}/trials", name) for name in settings]
        if any(not one.exists("result.json") or one.read_json("result.json")["status"] != "complete" for one in own):
            return turns[index:]
    return turns[-1:]


def train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every rank; what it imports, the driver need not."""
    from raylr.running.population.worker import work

    return work(config)


def _trial(space: Space, folder: Folder, name: str, settings: Settings, number: int) -> dict[str, Any]:
    """What a trial's ranks need to know of it, which begins after round `number`; its run folder gets the same."""
    policy, changes = space.policy_for(settings), space.changes_for(settings)
    own = run_folder(f"{folder}/trials", name)
    own.create()
    own.remove("result.json")
    own.write_json("config.json", space.config.model_dump(mode="json"))
    own.write_json("plan.json", {**space.plan.model_dump(mode="json"), **changes})
    own.write_bytes("policy.json", policy.to_json().encode())
    return {"name": name, "policy": json.loads(policy.to_json()), "changes": changes, "round": number}


def _agree_with_earlier(config: PopulationConfig, folder: Folder, space: Space) -> None:
    """Check that a population of this name is the same one. Raises ConfigError otherwise."""
    if config.fresh or not folder.exists("space.json"):
        if not config.fresh and folder.exists("plan.json"):
            raise ConfigError(f"name={folder.name} is a run, not a population; use another --name")
        return
    old, new = folder.read_json("space.json"), plain(space)
    different = [f"{key} was {old.get(key)!r} and is {new[key]!r}" for key in new if old.get(key) != new[key]]
    if different:
        raise ConfigError(
            f"name={folder.name} is another population: {'; '.join(different)}; use --fresh, or another --name"
        )


def _finished(config: PopulationConfig, folder: Folder) -> dict[str, Any] | None:
    if config.fresh or not folder.exists("explore.json"):
        return None
    result: dict[str, Any] = folder.read_json("explore.json")
    return result if result["status"] == "complete" else None


def _write_settings(config: PopulationConfig, folder: Folder, space: Space) -> None:
    if config.fresh:
        folder.remove()
    folder.create()
    folder.remove(RAY_FOLDER)
    folder.write_json("config.json", config.model_dump(mode="json"))
    folder.write_json("space.json", plain(space))
