"""The driver of a run: config, data, plan, cluster, Ray Train, result. It trains nothing itself and never imports torch."""

import contextlib
import json
import os
from typing import Any

from pydantic import BaseModel, ConfigDict

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware, local_hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
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
from raylr.running.nodes import (
    beside_the_driver,
    cluster_hardware,
    refuse_storage_that_some_hosts_do_not_see,
)
from raylr.running.ray_internals.state import draining_nodes
from raylr.running.session import named_cluster, own_cluster
from raylr.running.signals import stop_on_signals
from raylr.storage import Folder, run_folder
from raylr.training.checkpoint_index import refuse_other_formats
from raylr.training.data import describe, prepare

# What a plan may change between two starts of one run without changing its result.
FREE = {
    *("workers", "cpus_per_worker", "max_failures", "failure_mode", "stall_s"),
    *("checkpoint_keep", "data_source", "story", "warnings"),
}


class RunResult(BaseModel):
    """`result.json`, with the run's folder."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run_dir: str
    status: str
    test_accuracy: float | None = None
    weights_sha256: str | None = None


def train(config: Config, on_event: Listener | None = None) -> RunResult:
    """Train one run to its end, or go on with it, and return its result.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    tell = on_event or (lambda event: None)
    address = config.address or os.environ.get("RAY_ADDRESS")
    refuse_throw_away_storage(config)
    hardware = Hardware(True, config.num_workers[1]) if address else local_hardware()
    resolve(config, describe(config.data), hardware)  # refuse before anything is downloaded or decoded
    info = prepare(config.data, lambda done, total: tell({"kind": "prepare", "done": done, "total": total}))
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(named_cluster(address))
            hardware = cluster_hardware(config.num_workers[1] if config.gpu == "yes" else 0)
        plan, policy = resolve(config, info, hardware)
        folder = run_folder(config.storage, run_name(config, plan))
        look_at_own_parts(plan)
        plan = _agree_with_earlier(config, folder, plan, policy)
        tell({"kind": "plan", "plan": plan, "policy": policy, "run_dir": str(folder)})
        finished = _finished(config, folder)
        if finished is not None:
            tell({"kind": "finished", "result": finished, "run_dir": str(folder), "again": True})
            return RunResult(run_dir=str(folder), **finished)
        stack.enter_context(folder.held())
        if address:
            wait_for_capacity(Demand(resources(plan), plan.workers[0]), tell)
        else:
            stack.enter_context(own_cluster(plan.workers[1] * plan.cpus_per_worker))
        tell({"kind": "starting", "workers": plan.workers})
        _write_settings(config, folder, plan, policy)
        if address:
            refuse_storage_that_some_hosts_do_not_see(folder)
        result = _run(config, plan, policy, folder, info, tell, bool(address))
        folder.write_json("result.json", result)
    tell({"kind": "finished", "result": result, "run_dir": str(folder)})
    return RunResult(run_dir=str(folder), **result)


def run_name(config: Config, plan: Plan) -> str:
    """The name as given, else model, optimizers and seed."""
    return (
        config.name
        or f"{plan.model.rpartition(':')[2]}-{'-'.join(one.kind for one in plan.optimizers.values())}-{plan.seed}"
    )


def _run(
    config: Config, plan: Plan, policy: Policy, folder: Folder, info: DatasetInfo, tell: Listener, nodes_may_go: bool
) -> dict[str, Any]:
    import ray

    from raylr.running.hub import Hub

    hub_name = f"hub of {folder}"
    named = {"name": hub_name, "namespace": NAMESPACE, "max_concurrency": 1000}
    hub = ray.remote(**beside_the_driver(), **named)(Hub).remote(folder.name)
    write_address(folder, hub_name)
    from raylr.running.fit import TrainRun

    settings = {
        "plan": plan.model_dump(mode="json"),
        "policy": json.loads(policy.to_json()),
        "data": data_for_workers(config, info),
        "storage": folder.storage,
        "name": folder.name,
        "hub": hub,
    }
    fit = TrainRun(train_rank, settings, plan, folder)
    with stop_on_signals(lambda: hub.order.remote({"kind": "stop"})):
        ended = fit.follow(hub.news_after, tell, _Preemptions(hub) if nodes_may_go else None)
    for leftover in ("hub.json", RAY_FOLDER):
        folder.remove(leftover)
    lost = {"status": "failed", "reason": str(fit.outcome.get("error", "the hub was lost"))}
    result = ended or fit.outcome.get("result", lost)
    if "reason" in result:
        folder.write_bytes("failure.txt", f"{result['reason']}\n".encode())
        result = {**result, "reason": result["reason"].strip().splitlines()[-1]}
    return {**identity(plan, policy, info), **result, **_counts(folder)}


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
            self.hub.order.remote({"kind": "checkpoint", "cause": "preemption"})


def _agree_with_earlier(config: Config, folder: Folder, plan: Plan, policy: Policy) -> Plan:
    """Check that a run of this name is the same run; its precision and threads hold. Raises ConfigError otherwise."""
    if config.fresh or not folder.exists("plan.json"):
        return plan
    refuse_other_formats(folder)
    earlier = Plan.model_validate(folder.read_json("plan.json"))
    if config.precision == "auto":
        plan = plan.model_copy(update={"precision": earlier.precision})
    old, new = earlier.model_dump(exclude=FREE), plan.model_dump(exclude=FREE)
    different = [f"{name} was {old[name]!r} and is {new[name]!r}" for name in old if old[name] != new[name]]
    if Policy.from_json(folder.read_bytes("policy.json").decode()).sha256 != policy.sha256:
        different.append("the LR policy is another one")
    if different:
        raise ConfigError(f"name={folder.name} is another run: {'; '.join(different)}; use --fresh, or another --name")
    return plan


def _finished(config: Config, folder: Folder) -> dict[str, Any] | None:
    if config.fresh or not folder.exists("result.json"):
        return None
    result: dict[str, Any] = folder.read_json("result.json")
    return result if result["status"] == "complete" else None


def _write_settings(config: Config, folder: Folder, plan: Plan, policy: Policy) -> None:
    if config.fresh:
        folder.remove()
    folder.create()
    folder.remove("result.json")
    folder.remove(RAY_FOLDER)
    folder.write_json("config.json", config.model_dump(mode="json"))
    folder.write_json("plan.json", plan.model_dump(mode="json"))
    folder.write_bytes("policy.json", policy.to_json().encode())


def _counts(folder: Folder) -> dict[str, int]:
    kinds = [row["kind"] for row in folder.read_rows("events.jsonl")]
    return {f"{kind}s": kinds.count(kind) for kind in ("restart", "rejoin", "resize", "rollback")}
