"""Whether a named cluster has room for a run or a population, and waiting until it has."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raylr.errors import ConfigError
from raylr.planning.loop_plan import Workers
from raylr.planning.plan import Plan
from raylr.running.ray_internals.state import autoscaler

FIRST_WORD_S, SAY_EVERY_S = 1.0, 10.0
TIMEOUT_S = 45.0  # for an autoscaler to start a node; it looks every 5 s
Nodes = Sequence[Mapping[str, float]]  # the resources of each


@dataclass(frozen=True)
class Demand:
    """Places for workers, all at once: what one needs, and how many of how many trials (None: of a run).

    `field` is the flag that says how many trials.
    """

    need: Mapping[str, float]
    workers: int
    trials: int | None = None
    field: str = "trials"

    @property
    def count(self) -> int:
        return self.workers * (self.trials or 1)

    @property
    def places(self) -> str:
        return f"{self.count} places of {' and '.join(f'{amount:g} {name}' for name, amount in self.need.items())}"

    def capacity(self, nodes: Nodes) -> int:
        """How many such workers the nodes can hold, other jobs aside; one worker is on one node.

        >>> Demand({"CPU": 2.0}, workers=4).capacity([{"CPU": 5.0}, {"CPU": 1.0}])
        2
        """
        return sum(int(min(has.get(name, 0) // amount for name, amount in self.need.items())) for has in nodes)

    def shortage(self, nodes: Nodes) -> str:
        """What there is too little of, in numbers."""
        who = f"workers={self.workers}"
        if self.trials is not None:
            who = f"{self.field}={self.trials} of {self.workers} workers"
        for name, amount in self.need.items():
            has = sum(node.get(name, 0) for node in nodes)
            if has < self.count * amount:
                return f"{who} need {self.count * amount:g} {name}s{self._at_once}, but the cluster has {has:g}"
        return f"{who} need {self.places}{self._at_once}, but the nodes have room for {self.capacity(nodes)}"

    @property
    def _at_once(self) -> str:
        return "" if self.trials is None else " at once"

    def advice(self, nodes: Nodes) -> str:
        """The nearest thing that fits: for a population as many trials as there is room for."""
        most = self.capacity(nodes) // self.workers
        return f"use --{self.field} {most}" if self.trials is not None and most else "lower --workers or add a node"


def resources(plan: Plan | Workers, gpus: float | None = None) -> dict[str, float]:
    """What Ray is to reserve for a worker; `gpus` is the share of one that it has, by default the plan's."""
    share = plan.gpus_per_worker if gpus is None else gpus
    return {"CPU": float(plan.cpus_per_worker), **({"GPU": share} if plan.device == "cuda" else {})}


def wait_for_capacity(demand: Demand, say: Callable[[str], None]) -> None:
    """Return once there is a place for each worker at the same time.

    Places that other jobs hold are waited for, and so are nodes that an autoscaler starts; `say` gets a line about it. Raises
    ConfigError with the numbers where neither can help.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    def lacks() -> bool:
        return demand.capacity(living_nodes()) < demand.count

    if lacks() and not autoscaler()[0]:
        nodes = living_nodes()
        raise ConfigError(f"{demand.shortage(nodes)}; {demand.advice(nodes)}")
    group = placement_group([dict(demand.need)] * demand.count)  # what an autoscaler looks at
    since, coming, pause = time.monotonic(), False, FIRST_WORD_S
    try:
        while not group.wait(pause):
            pause = SAY_EVERY_S
            if not lacks():
                say(f"waiting for {demand.places}, which other jobs hold")
                continue
            nodes, coming = living_nodes(), coming or autoscaler()[1]
            if not coming and time.monotonic() - since > TIMEOUT_S:
                raise ConfigError(
                    f"{demand.shortage(nodes)}, and its autoscaler starts no more; {demand.advice(nodes)}"
                )
            say(f"waiting for nodes: {demand.shortage(nodes)}")
    finally:
        remove_placement_group(group)


def living_nodes() -> Nodes:
    """The resources of the connected cluster's nodes that are alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
