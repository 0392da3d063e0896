"""What the nodes of a named cluster are asked before a run starts there."""

import time
from collections.abc import Callable
from typing import Any

from raylr.errors import ConfigError
from raylr.planning.facts import Hardware, local_hardware
from raylr.running.ray_internals.state import autoscaler
from raylr.storage import Folder

ANSWER_TIMEOUT_S = 60.0  # for a small question to every host; the first one starts a process there


def beside_the_driver() -> dict[str, Any]:
    """Options of an actor that the loss of another node must not take away."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


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
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    return {host: _in_time(host, answer, deadline) for host, answer in asked.items()}


def _in_time(host: str, answer: Any, deadline: float) -> Any:
    import ray

    try:
        return ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError, ray.exceptions.NodeDiedError) as error:
        raise ConfigError(
            f"host {host} of the cluster runs nothing within {ANSWER_TIMEOUT_S:g} s; mend it or take it from the cluster"
        ) from error


def _answer(question: Callable[..., Any], *arguments: Any) -> Any:
    """Ray takes functions only, and a question may be a method."""
    return question(*arguments)


def cluster_hardware(gpus_wanted: int = 0) -> Hardware:
    """What the cluster has: its GPUs, and bf16 where each host's processor has it.

    `gpus_wanted` are taken for there where an autoscaler may bring them: a cluster's GPU nodes start when a job asks.
    """
    import ray

    everywhere = [local_hardware(), *on_other_hosts(local_hardware).values()]
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus_wanted > num_gpus and autoscaler()[0]:
        num_gpus = gpus_wanted
    return Hardware(all(one.bf16 for one in everywhere), num_gpus)


def refuse_storage_that_some_hosts_do_not_see(folder: Folder) -> None:
    for host, is_there in on_other_hosts(folder.exists).items():
        if not is_there:
            raise ConfigError(f"storage={folder.storage} is not there on host {host}; use a path that all hosts share")
