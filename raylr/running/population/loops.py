"""The driver of a population of loops of one's own. What a loop trains under it says itself, once it is attached.

So the search begins with the first trial's word: policy, batch and length. All else is as in a population of images.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.config.population import PopulationConfig
from raylr.config.webhook import webhook
from raylr.errors import ConfigError
from raylr.events import Explored, LoopAttached, OfTrial, PopulationNews, PopulationPlanned, Starting, Waiting
from raylr.lr import Policy
from raylr.planning.device import backend
from raylr.planning.facts import Hardware, local_hardware
from raylr.planning.loop_plan import LoopPlan, Workers
from raylr.running.capacity import wait_for_capacity
from raylr.running.code import keep_code_of
from raylr.running.job import RAY_FOLDER, aborts_told, finished, refuse_throw_away_storage
from raylr.running.nodes import cluster_hardware, refuse_storage_that_some_hosts_do_not_see
from raylr.running.population.driver import (
    Listener,
    PopulationResult,
    demand_of,
    places,
    refuse_another,
    with_fixed_workers,
)
from raylr.running.population.lineage import trial_ids
from raylr.running.population.loop_check import looked_at
from raylr.running.population.loop_space import LoopSpace, refuse_other_fields
from raylr.running.population.space import Settings, check_search, plain
from raylr.running.population.trials import are_done, follow, start_hubs
from raylr.running.ray_internals.features import features
from raylr.running.session import connected_ray, named_cluster, own_cluster, taken_ray
from raylr.storage import POPULATION_RESULT, Folder, run_folder

if TYPE_CHECKING:
    from raylr.running.population.population import Population
    from raylr.running.population.result import Results


def explore(config: PopulationConfig, on_event: Listener | None = None) -> PopulationResult:
    """Search the LR of a loop of one's own with a population of them, or go on with it, and return what was found.

    Raises ConfigError for a request that is refused before anything starts.
    """
    tell = on_event or (lambda news: None)
    sources = check(config)
    running = connected_ray(config.address)
    address = running or config.address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        hardware = local_hardware()
        if address:
            if not running:
                tell(Waiting(f"connecting to the cluster at {address}"))
            stack.enter_context(taken_ray() if running else named_cluster(address))
            hardware = cluster_hardware(config.num_at_once if config.gpu == "yes" else 0)
        ranks = _workers(config, hardware)
        folder = run_folder(config.storage, name_of(config))
        refuse_another(config, folder)
        if (earlier := finished(config, folder, POPULATION_RESULT)) is not None:
            tell(Explored(earlier, str(folder), True))
            return PopulationResult(run_dir=str(folder), **earlier)
        stack.enter_context(folder.held())
        num_ranks = config.num_at_once * ranks.workers[1]
        tell(Starting(num_ranks, "Ray"))
        if address:
            wait_for_capacity(demand_of(config, ranks), lambda text: tell(Waiting(text)))
        else:
            num_cpus = num_ranks * ranks.cpus_per_worker
            stack.enter_context(own_cluster(num_cpus, hardware.num_gpus, lambda text: tell(Waiting(text))))
        stack.enter_context(aborts_told(tell, folder))
        tell(Starting(num_ranks))
        _write_settings(config, folder, sources)
        if address:
            refuse_storage_that_some_hosts_do_not_see(folder)
        result = _Exploration(config, ranks, folder, tell).run()
        tell(Explored(result, str(folder)))
    return PopulationResult(run_dir=str(folder), **result)


def check(config: PopulationConfig) -> dict[str, Path]:
    """Return the loop's source files by module, once it is known that it can be called. Raises ConfigError."""
    refuse_throw_away_storage(config)
    refuse_other_fields(config)
    check_search(config, features())
    webhook(config.alerts)
    return looked_at(str(config.loop))


def name_of(config: PopulationConfig) -> str:
    """The name as given, else search, the loop's name and seed."""
    return config.name or f"{config.search}-{str(config.loop).rpartition(':')[2]}-{config.seed}"


def _workers(config: PopulationConfig, hardware: Hardware) -> Workers:
    """What the ranks need, on GPUs if all that train at once have places there."""
    config = with_fixed_workers(config, hardware.num_gpus)
    high = config.num_workers[1]
    gpus = 0 if config.gpu == "no" else places(config, hardware.num_gpus) // config.num_at_once
    where = "cuda" if gpus >= high else "cpu"
    return Workers(
        device=where,
        workers=(high, high),
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        backend=backend(config, where, 1.0).value,
        max_failures=config.failure.max_failures,
        failure_mode=config.failure.mode or ("continue" if features().replace_one_worker else "restart"),
        stall_s=config.failure.stall_s,
    )


def _write_settings(config: PopulationConfig, folder: Folder, sources: Mapping[str, Path]) -> None:
    if config.fresh:
        folder.remove()
    folder.create()
    try:
        for earlier in (RAY_FOLDER, "failure.txt"):
            folder.remove(earlier)
        folder.write_json("config.json", config.record())
        folder.write_json("space.json", plain(config))
        keep_code_of(folder, sources, webhook(config.alerts))
    except OSError as error:
        raise ConfigError(
            f"storage={folder.storage} cannot be written ({error.strerror or error}); make room"
        ) from error


class _Exploration:
    """A population of loops that runs. `population` is None until the first of them is attached."""

    def __init__(
        self, config: PopulationConfig, workers: Workers, folder: Folder, tell: Callable[[PopulationNews], None]
    ) -> None:
        self.config, self.workers, self.folder, self.tell = config, workers, folder, tell
        self.names = trial_ids(config.seed, config.trials)
        self.first_turn = self._first_turn()
        self.population: Population | None = None
        self.results: Results | None = None
        self.problem: ConfigError | None = None  # what the loop has told does not fit the search
        self.hubs: Any = None

    def run(self) -> dict[str, Any]:
        """Train all trials on the Ray that is connected; explore.json is written after every round."""
        self.hubs = start_hubs(self.folder, self.names)
        from raylr.running.fit import TrainRun

        config, at_once = self.config, self.config.num_at_once
        settings = {
            "workers": self.workers.model_dump(mode="json"),
            "names": list(self.names[self.first_turn * at_once :][:at_once]),
            "storage": f"{self.folder}/trials",
            "hubs": self.hubs,
            "loop": config.loop,
            "loop_config": config.loop_settings,
            "interval": config.interval,
            "score": config.score,
        }
        fit = TrainRun(train_rank, settings, self.workers, self.folder, at_once, config.gpus_per_worker)
        failed = follow(fit, self.hubs, self.folder, self._take, self.tell)
        if self.problem is not None:
            raise self.problem
        return self._end(failed)

    def _take(self, told: OfTrial) -> None:
        """Take one piece of news; the first loop that is attached begins the search."""
        if isinstance(told.news, LoopAttached):
            if self.population is None and self.problem is None:
                self._begin(told.news)
            return
        if self.population is not None and self.results is not None:
            begun = len(self.population.turns)
            self.results.take(told)
            self._open(begun)
        self.tell(told)

    def _begin(self, attached: LoopAttached) -> None:
        import ray

        from raylr.running.population.journal import Journal
        from raylr.running.population.population import Population
        from raylr.running.population.result import Results

        config, plan = self.config, LoopPlan.model_validate(attached.plan)
        try:
            space = LoopSpace.told(config, Policy.from_json(attached.policy), plan, features())
        except ConfigError as error:
            self.problem = error
            self.hubs.fail.remote(None, {"status": "failed", "reason": str(error)})
            return
        self.tell(self._planned(plan, space))
        journal = Journal(self.folder)
        self.population = Population(space, journal, lambda orders: ray.get(self.hubs.decide.remote(orders)), self.tell)
        self.population.go_on(lambda name: run_folder(f"{self.folder}/trials", name).read_rows("events.jsonl"))
        identity = {"task": plan.task, "loop": config.loop, "seed": config.seed, "models": plan.models}
        self.results = Results(self.population, self.folder, identity)
        self._open(self.first_turn)

    def _planned(self, plan: LoopPlan, space: LoopSpace) -> PopulationPlanned:
        config = self.config
        return PopulationPlanned(
            run_dir=str(self.folder),
            trials=config.trials,
            workers=self.workers.workers[1],
            at_once=config.num_at_once,
            interval=config.interval,
            search=config.search,
            model=f"{config.loop} ({plan.model})",
            total_examples=plan.total_examples,
            global_batch=plan.batch_at(plan.workers[1]),
            notes=space.features.notes(),
        )

    def _open(self, begun: int) -> None:
        """Let the turns from this one on begin."""
        assert self.population is not None
        space = self.population.space
        for turn in self.population.turns[begun:]:
            self.hubs.open.remote([_trial(space, name, own, turn.round) for name, own in turn.settings.items()])

    def _first_turn(self) -> int:
        """The first turn with a trial that has left no complete result; the last one in any case."""
        size = self.config.num_at_once
        turns = [self.names[start : start + size] for start in range(0, len(self.names), size)]
        for index, names in enumerate(turns[:-1]):
            if not are_done(self.folder, names):
                return index
        return len(turns) - 1

    def _end(self, failed: dict[str, Any] | None) -> dict[str, Any]:
        if self.population is None or self.results is None:
            return ended_before_it_began(self.folder, self.config, failed)
        self.population.journal.close()
        return self.results.end(failed)


def ended_before_it_began(folder: Folder, config: PopulationConfig, failed: dict[str, Any] | None) -> dict[str, Any]:
    """Write and return the result of a population none of whose loops was attached."""
    from raylr.running.job import without_traceback, write_failure

    status = "stopped" if failed is None else "failed"
    reason = {} if failed is None else {"reason": without_traceback(failed)["reason"]}
    asked = {"search": config.search, "score": config.score, "loop": config.loop}
    empty: dict[str, Any] = {"best": None, "best_score": None, "rounds": 0, "num_exploits": 0, "trials": []}
    result = {"status": status, **reason, **asked, **empty}
    folder.write_json(POPULATION_RESULT, result)
    if failed is not None:
        write_failure(folder, failed)
    return result


def train_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every rank; what it imports, the driver need not."""
    from raylr.running.population.loop_worker import work

    return work(config)


def _trial(space: LoopSpace | Any, name: str, settings: Settings, number: int) -> dict[str, Any]:
    """What a trial's ranks need to know of it, which begins after round `number`."""
    return {"name": name, "policy": json.loads(space.policy_for(settings).to_json()), "round": number}
