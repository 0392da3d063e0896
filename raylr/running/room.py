"""Whether a named cluster has room for a run, and waiting until it has.

Reads private state of Ray 2.60 to tell whether an autoscaler is at work.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from raylr.errors import ConfigError
from raylr.run_plan import Plan

SAY_EVERY_S = 10.0
PATIENCE_S = 45.0  # for an autoscaler to start a node; it looks every 5 s
_ANONYMOUS = "node_"  # how Ray names the node types of a cluster without an autoscaler


def wait_for_room(plan: Plan, tell: Callable[[dict[str, Any]], None]) -> None:
    """Return once there is a place for each worker at the same time.

    Places that other jobs hold are waited for, and so are nodes that an autoscaler starts; `tell` hears for what. Raises
    ConfigError with the numbers where neither can help.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    need = {"CPU": float(plan.cpus_per_worker), **({"GPU": 1.0} if plan.device == "cuda" else {})}
    count = plan.workers[0]
    if num_places(need) < count and not autoscaler()[0]:
        raise ConfigError(f"{_shortage(need, count)}; lower --workers or add a node")
    group = placement_group([need] * count)  # what an autoscaler looks at
    since, coming = time.monotonic(), False
    try:
        while not group.wait(SAY_EVERY_S):
            if num_places(need) >= count:
                tell({"kind": "waiting", "text": f"waiting for {_demand(need, count)}, which other jobs hold"})
                continue
            coming = coming or autoscaler()[1]
            if not coming and time.monotonic() - since > PATIENCE_S:
                raise ConfigError(f"{_shortage(need, count)}, and its autoscaler starts no more; lower --workers")
            tell({"kind": "waiting", "text": f"waiting for nodes: {_shortage(need, count)}"})
    finally:
        remove_placement_group(group)


def num_places(need: dict[str, float]) -> int:
    """How many workers that need this the nodes can hold, other jobs aside; one worker is on one node."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(has.get(name, 0) // amount for name, amount in need.items())) for has in nodes)


def autoscaler() -> tuple[bool, bool]:
    """Whether the cluster has an autoscaler, and whether that is starting nodes now."""
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        types = [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
        coming = [*status.pending_launches, *status.pending_nodes]
    else:
        report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report", {})
        types = [*report.get("active_nodes", ()), *(report.get("idle_nodes") or ())]
        coming = [*report.get("pending_launches", ()), *report.get("pending_nodes", ())]
    return any(not name.startswith(_ANONYMOUS) for name in types), bool(coming)


def _shortage(need: dict[str, float], count: int) -> str:
    import ray

    has = ray.cluster_resources()
    for name, amount in need.items():
        if has.get(name, 0) < count * amount:
            return f"workers={count} need {count * amount:g} {name}s, but the cluster has {has.get(name, 0):g}"
    return f"workers={count} need {_demand(need, count)}, but the nodes have room for {num_places(need)}"


def _demand(need: dict[str, float], count: int) -> str:
    return f"{count} places of {' and '.join(f'{amount:g} {name}' for name, amount in need.items())}"
