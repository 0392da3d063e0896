"""The driver of a population: config, data, cluster, one Ray Train run for all trials, result. Never imports torch."""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.population_config import PopulationConfig
from raylr.resolve import Hardware, local_hardware
from raylr.run_plan import Plan
from raylr.running.driver import (
    RAY_FOLDER,
    Listener,
    data_for_workers,
    identity,
    look_at_own_parts,
    refuse_throw_away_storage,
    stop_on_signals,
)
from raylr.running.local import named_cluster, own_cluster
from raylr.running.nodes import beside_the_driver, cluster_hardware, refuse_storage_that_some_hosts_do_not_see
from raylr.running.population.space import Space, plain
from raylr.running.room import wait_for_room
from raylr.storage import Folder, run_folder
from raylr.training.data import DatasetInfo, describe, prepare


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
    enough = Hardware(True, wanted.trials * wanted.num_workers[1])
    checked_space(wanted, describe(wanted.data), enough if address else local_hardware())
    info = prepare(wanted.data, lambda done, total: tell({"kind": "prepare", "done": done, "total": total}))
    with contextlib.ExitStack() as stack:
        hardware = local_hardware()
        if address:
            stack.enter_context(named_cluster(address))
            hardware = cluster_hardware()
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
            wait_for_room(space.plan, tell, wanted.trials)
        else:
            stack.enter_context(own_cluster(num_ranks(space) * space.plan.cpus_per_worker))
        _write_settings(wanted, folder, space)
        if address:
            refuse_storage_that_some_hosts_do_not_see(folder)
        result = _run(space, folder, info, tell)
    tell({"kind": "explored", "result": result, "run_dir": str(folder)})
    return PopulationResult(run_dir=str(folder), **result)


def checked_space(config: PopulationConfig, info: DatasetInfo, hardware: Hardware) -> Space:
    """The population's space: as many GPUs for each trial as there are for all."""
    low, high = config.num_workers
    if low != high:
        raise ConfigError(
            f"workers={config.workers} changes while trials train; a trial needs a fixed number, such as {high}"
        )
    return Space.of(config, info, Hardware(hardware.bf16, hardware.num_gpus // config.trials))


def num_ranks(space: Space) -> int:
    return space.config.trials * space.plan.workers[1]


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

    journal = Journal(folder)
    hubs: Any = None
    population = Population(space, journal, lambda orders: ray.get(hubs.decide.remote(orders)), tell)
    hubs = ray.remote(**beside_the_driver(), max_concurrency=10_000)(Hubs).remote(list(population.names))
    population.go_on(lambda name: run_folder(f"{folder}/trials", name).read_rows("events.jsonl"))
    trials = [_trial(space, folder, name, population.initial[name]) for name in population.names]
    settings = {
        "plan": space.plan.model_dump(mode="json"),
        "data": data_for_workers(space.config, info),
        "storage": f"{folder}/trials",
        "hubs": hubs,
        "trials": trials,
    }
    outcome: dict[str, Any] = {}
    thread = threading.Thread(target=_fit, args=(space, folder, settings, outcome), daemon=True, name="fit")
    results = Results(population, folder, identity(space.plan, space.policy, info))
    with stop_on_signals(lambda: hubs.stop.remote()):
        thread.start()
        _pump(hubs, thread, results, tell)
    folder.remove(RAY_FOLDER)
    journal.close()
    return results.end(str(outcome["error"]) if "error" in outcome else None)


def _fit(space: Space, folder: Folder, settings: dict[str, Any], outcome: dict[str, Any]) -> None:
    """Run Ray Train, with all ranks of all trials, to its end; puts an `error` into `outcome`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from raylr.running.backend import LeanTrainer, OwnGroupConfig

    plan = space.plan
    has_gpu = plan.device == "cuda"
    scaling = ScalingConfig(
        num_workers=num_ranks(space),
        use_gpu=has_gpu,
        resources_per_worker={"CPU": plan.cpus_per_worker, **({"GPU": 1} if has_gpu else {})},
    )
    failures = FailureConfig(max_failures=plan.max_failures, controller_failure_limit=plan.max_failures)
    trainer = LeanTrainer(
        train_rank,
        train_loop_config=settings,
        backend_config=OwnGroupConfig(plan.failure_mode == "continue"),
        scaling_config=scaling,
        run_config=RunConfig(name=RAY_FOLDER, storage_path=str(folder), failure_config=failures),
    )
    try:
        trainer.fit()
    except Exception as error:
        outcome["error"] = error


def train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every rank; what it imports, the driver need not."""
    from raylr.running.population.worker import work

    return work(config)


def _pump(hubs: Any, thread: threading.Thread, results: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    """Take what ranks say until the run has ended."""
    import ray

    count, alive = 0, True
    while alive:
        alive = thread.is_alive()
        try:
            news = ray.get(hubs.news_after.remote(count, 0.5 if alive else 0.0))
        except ray.exceptions.RayError:
            thread.join()
            return
        count += len(news)
        for event in news:
            results.take(event)
            tell(event)


def _trial(space: Space, folder: Folder, name: str, settings: dict[str, float]) -> dict[str, Any]:
    """What a trial's ranks need to know of it; its run folder gets the same."""
    policy, changes = space.policy_for(settings), space.changes_for(settings)
    own = run_folder(f"{folder}/trials", name)
    own.create()
    own.remove("result.json")
    own.write_json("config.json", space.config.model_dump(mode="json"))
    own.write_json("plan.json", {**space.plan.model_dump(mode="json"), **changes})
    own.write_bytes("policy.json", policy.to_json().encode())
    return {"name": name, "policy": json.loads(policy.to_json()), "changes": changes}


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
