"""What the nodes of a named cluster are asked before a run starts there."""

from collections.abc import Callable
from typing import Any

from raylr.errors import ConfigError
from raylr.resolve import Hardware, local_hardware
from raylr.run_plan import Plan
from raylr.storage import Folder


def on_other_hosts(question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The answer of one node on each other host of the cluster, by the host's address."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, remote = ray.util.get_node_ip_address(), ray.remote(num_cpus=0)(_answer)
    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    asked = {
        host: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            question, *arguments
        )
        for host, node in nodes.items()
        if host != here
    }
    return {host: ray.get(answer) for host, answer in asked.items()}


def _answer(question: Callable[..., Any], *arguments: Any) -> Any:
    """Ray takes functions only, and a question may be a method."""
    return question(*arguments)


def cluster_hardware() -> Hardware:
    """What the cluster has: its GPUs, and bf16 where each host's processor has it."""
    import ray

    everywhere = [local_hardware(), *on_other_hosts(local_hardware).values()]
    return Hardware(all(one.bf16 for one in everywhere), int(ray.cluster_resources().get("GPU", 0)))


def refuse_what_does_not_fit(plan: Plan) -> None:
    import ray

    have, need = ray.cluster_resources().get("CPU", 0), plan.workers[0] * plan.cpus_per_worker
    if need > have:
        raise ConfigError(
            f"workers={plan.workers[0]} need {need} CPUs, but the cluster has {have:g}; lower --workers or add a node"
        )


def refuse_storage_that_some_hosts_do_not_see(folder: Folder) -> None:
    for host, is_there in on_other_hosts(folder.exists).items():
        if not is_there:
            raise ConfigError(f"storage={folder.storage} is not there on host {host}; use a path that all hosts share")
