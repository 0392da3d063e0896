"""What Ray knows of its nodes, actors and jobs and does not tell in public: drains, an autoscaler, signs of life."""

import json
import os
import time
from typing import Any

from raylr.running.ray_internals.features import features

FIRST_REPORT_S = 15.0  # after the cluster's start


_ANONYMOUS = "node_"  # how Ray names the node types of a cluster without an autoscaler


def autoscaler() -> tuple[bool, bool]:
    """Whether the cluster has an autoscaler, and whether that is starting nodes now.

    Every cluster has a process that tells; in one that has just started, its first word is waited for. Where its reports
    cannot be read, one is taken for there, and for idle: what waits for it has a limit.
    """
    if not features().autoscaler_report:
        return True, False
    deadline = time.monotonic() + FIRST_REPORT_S
    while not (report := _report())[0] and time.monotonic() < deadline:
        time.sleep(0.2)
    types, coming = report
    return any(not name.startswith(_ANONYMOUS) for name in types), bool(coming)


def _report() -> tuple[list[str], list[Any]]:
    """The types of the cluster's nodes, none before the first report, and the nodes that are coming."""
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        types = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
        return types, [*status.pending_launches, *status.pending_nodes]
    report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report", {})
    types = [*report.get("active_nodes", ()), *(report.get("idle_nodes") or ())]
    return types, [*report.get("pending_launches", ()), *report.get("pending_nodes", ())]


def draining_nodes() -> set[str]:
    """The nodes that Ray has announced to take away: a preemption, or an autoscaler that scales down."""
    import ray

    return set(ray._private.state.state.get_draining_nodes() or ()) if features().drains else set()


def sign_of_life(actor: Any) -> Any:
    """A reference that is ready once the actor has answered, and fails where it is dead."""
    return actor.__ray_ready__.remote()


def kill_actors(*states: str) -> None:
    """Kill this job's actors that are in one of these states, such as PENDING_CREATION."""
    import ray

    driver = ray._private.worker.global_worker
    for state in states:
        for actor in ray._private.state.actors(None, driver.current_job_id, state):
            driver.core_worker.kill_actor(ray.ActorID.from_hex(actor), True)


def is_submitted_job() -> bool:
    """True in a process that Ray's job server has started."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
