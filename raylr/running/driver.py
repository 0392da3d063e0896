"""The driver of a run: its part of a job, and following it. It trains nothing itself and never imports torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from raylr.config import Config
from raylr.config.own_options import short_name
from raylr.events import CheckpointOrder, Finished, News, Planned, StopOrder, Waiting, Warned
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.loop_plan import is_loop
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.capacity import Demand, resources
from raylr.running.control import NAMESPACE, write_address
from raylr.running.difference import AnotherRun, differences
from raylr.running.job import (
    RAY_FOLDER,
    Request,
    carry_out,
    data_for_workers,
    identity,
    without_traceback,
    write_failure,
)
from raylr.running.nodes import beside_the_driver
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.state import draining_nodes
from raylr.running.signals import stop_on_signals
from raylr.storage import Folder, folder_at
from raylr.training.checkpoint_index import refuse_other_formats
from raylr.training.hooks import Hooks

Listener = Callable[[News], None]
# What a plan may change between two starts of one run without changing its result.
FREE = {
    *("workers", "cpus_per_worker", "gpus_per_worker", "backend", "max_failures", "failure_mode", "stall_s"),
    *(
        "checkpoint_keep",
        "log_every",
        "headroom_every",
        "sharpness_every",
        "sharpness_products",
        "data_source",
        "story",
        "warnings",
        "hooks",
        "noise_every",
    ),
    *("recheck", "max_corruptions"),
}


class RunResult(BaseModel):
    """`result.json`, with the run's folder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run_dir: str
    status: str
    test_accuracy: float | None = None
    weights_sha256: str | None = None

    @property
    def has_diverged(self) -> bool:
        """Whether the run failed by what it trains; a machine that is out of memory, say, fails any run."""
        return self.status == "failed" and str(self.model_dump().get("reason", "")).startswith("diverged ")

    def _repr_html_(self) -> str:
        """Return the result with the run's tests and their curves as a notebook shows it."""
        from raylr.reporting.notebook import result_html
        from raylr.reporting.rows import tests_of

        return result_html(self.model_dump(), tests_of(folder_at(self.run_dir)))


def train(config: Config, on_event: Listener | None = None) -> RunResult:
    """Train one run to its end, or go on with it, and return its result.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    run_dir, result = carry_out(request_of(config), on_event or (lambda news: None))
    return RunResult(run_dir=run_dir, **result)


def request_of(config: Config) -> Request:
    """Return the run as a job that is asked for."""

    def resolved(info: DatasetInfo, hardware: Hardware) -> "Run":
        return Run(config, *resolve(config, info, hardware, features=features()))

    return request_for(config, resolved)


def request_for(config: Config, resolved: Callable[[DatasetInfo, Hardware], "Run"]) -> Request:
    """Return the request for a run of this config that `resolved` puts into numbers."""
    wanted = config.num_workers[1] if config.workers else 1
    return Request(config, Hardware(True, wanted), wanted if config.gpu == "yes" else 0, resolved)


@dataclass(frozen=True)
class Run:
    """A run as a job."""

    config: Config
    plan: Plan
    policy: Policy
    result_file = "result.json"

    @property
    def name(self) -> str:
        """The name as given, else model, optimizers and seed."""
        plan = self.plan
        kinds = "-".join(short_name(one.kind) for one in plan.optimizers.values())
        return self.config.name or f"{plan.what}-{kinds}-{plan.seed}"

    @property
    def demand(self) -> Demand:
        return Demand(resources(self.plan), self.plan.workers[0])

    @property
    def num_ranks(self) -> int:
        return self.plan.workers[1]

    def agreed(self, folder: Folder) -> Self:
        """Check that a run of this name is the same run; its precision and threads hold. Raises ConfigError otherwise."""
        if self.config.fresh or not folder.exists("plan.json"):
            return self
        if is_loop(folder.read_json("plan.json")):
            raise AnotherRun(f"name={folder.name} is a loop of one's own; use another --name")
        refuse_other_formats(folder)
        plan, earlier = self.plan, Plan.model_validate(folder.read_json("plan.json"))
        if self.config.precision == "auto":
            plan = plan.model_copy(update={"precision": earlier.precision})
        if plan.init is not None and earlier.init is not None and plan.init.source == earlier.init.source:
            plan = plan.model_copy(update={"init": earlier.init})  # that run may have gone on since
        old, new = earlier.model_dump(exclude=FREE), plan.model_dump(exclude=FREE)
        different = [f"{name} was {old[name]!r} and is {new[name]!r}" for name in old if old[name] != new[name]]
        if Policy.from_json(folder.read_bytes("policy.json").decode()).sha256 != self.policy.sha256:
            different.append("the LR policy is another one")
        if different:
            told = differences(self.config, folder) or different
            raise AnotherRun(f"name={folder.name} is another run: {'; '.join(told)}; use --fresh, or another --name")
        return replace(self, plan=plan)

    def planned(self, folder: Folder) -> Planned:
        return Planned(str(folder), self.plan.story, self.plan.warnings, self.plan, self.policy)

    def ended(self, folder: Folder, result: dict[str, Any], again: bool) -> Finished:
        return Finished(result, str(folder), again)

    def write_plan(self, folder: Folder) -> None:
        for earlier in (self.result_file, "failure.txt"):
            folder.remove(earlier)
        if self.plan.init is not None:
            from raylr.training.initial import keep

            keep(folder, self.config.storage, self.plan.init)
        folder.write_json("plan.json", self.plan.model_dump(mode="json"))
        folder.write_bytes("policy.json", self.policy.to_json().encode())

    def more_settings(self, folder: Folder) -> dict[str, Any]:
        """What the workers need beside plan and policy."""
        return {}

    def run(self, folder: Folder, info: DatasetInfo, tell: Listener, nodes_may_go: bool) -> dict[str, Any]:
        """Train on the Ray that is connected, and write result.json."""
        import ray

        from raylr.running.hub import Hub

        plan, hub_name = self.plan, f"hub of {folder}"
        named = {"name": hub_name, "namespace": NAMESPACE, "max_concurrency": 1000}
        hub = ray.remote(**beside_the_driver(), **named)(Hub).remote(folder.name)
        write_address(folder, hub_name)
        from raylr.running.fit import TrainRun, is_resizable  # takes a second, in which the hub starts

        settings = {
            "plan": plan.model_dump(mode="json"),
            "policy": json.loads(self.policy.to_json()),
            "data": data_for_workers(self.config, info),
            "storage": folder.storage,
            "name": folder.name,
            "hub": hub,
            **self.more_settings(folder),
        }
        fit = TrainRun(train_rank, settings, plan, folder)
        with stop_on_signals(lambda: hub.order.remote(StopOrder())):
            look = _Preemptions(hub) if nodes_may_go and not is_resizable(plan) else None
            ended = fit.follow(hub.news_after, tell, lambda text: tell(Waiting(text)), look)
        for leftover in ("hub.json", RAY_FOLDER):
            folder.remove(leftover)
        found = ended or fit.outcome.get("result") or fit.reason(hub.last_error)
        parent = {} if plan.parent is None else {"parent": plan.parent.model_dump(mode="json")}
        result = {**identity(plan, self.policy, info), **parent, **without_traceback(found), **_counts(folder)}
        try:
            folder.write_json(self.result_file, result)
            write_failure(folder, found)
        except OSError as error:
            tell(Warned(f"{self.result_file} was not written: {error}"))
        ends = Hooks("end", plan.hooks.end, str(folder), lambda text: tell(Warned(text)))
        ends(self.ended(folder, result, again=False))
        return result


def train_rank(settings: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train runs on each worker; torch is imported there, and not with this module."""
    from raylr.running.worker import work

    return work(settings)


class _Preemptions:
    """Orders a checkpoint when a node is about to leave."""

    def __init__(self, hub: Any) -> None:
        self.hub, self.leaving = hub, set[str]()

    def __call__(self) -> None:
        if new := draining_nodes() - self.leaving:
            self.leaving |= new
            self.hub.order.remote(CheckpointOrder("preemption"))


def _counts(folder: Folder) -> dict[str, int]:
    """How often what happened; a start from the beginning is a restart too, but for the first one."""
    kinds = [row["kind"] for row in folder.read_rows("events.jsonl")]
    counts = {f"{kind}s": kinds.count(kind) for kind in ("restart", "rejoin", "resize", "rollback", "corruption")}
    return {**counts, "restarts": counts["restarts"] + max(0, kinds.count("start") - 1)}
