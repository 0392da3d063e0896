"""What Ray knows of its nodes and does not tell in public: drains, and an autoscaler at work."""

import json
import time
from typing import Any

FIRST_REPORT_S = 15.0  # after the cluster's start


_ANONYMOUS = "node_"  # how Ray names the node types of a cluster without an autoscaler


def autoscaler() -> tuple[bool, bool]:
    """Whether the cluster has an autoscaler, and whether that is starting nodes now.

    Every cluster has a process that tells; in one that has just started, its first word is waited for.
    """
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

    return set(ray._private.state.state.get_draining_nodes() or ())
