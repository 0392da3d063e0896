"""Workers whose number follows the nodes while the run goes on: plain Ray actors, one for each of the most that may train.

Ray Train cannot do this: its elastic sizing restarts all workers, and its replica groups, which leave the others alone, sit
in one placement group of a fixed size, where the controller waits for the place of a node that has gone. Of all that
Train gives (a process group, reports, checkpoints) raylr uses nothing. So the actors are Ray's own. One that no node has
room for waits in Ray's queue, where an autoscaler sees it; when a node brings room it starts, joins the hub as a newcomer,
and trains from the next update on. A worker on a node that is about to go is asked to leave between two updates. The driver
decides how many there are and who is lost; the hub and the ranks form the groups.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ray

from raylr.errors import RaylrError, first_line
from raylr.planning.plan import Plan
from raylr.running.capacity import Demand, living_nodes, resources
from raylr.running.joiners import LEFT
from raylr.running.ray_internals.state import draining_nodes

LOOK_S = 0.5
AT_ONCE_S = 2.0  # within which losses have one cause, such as a node
END_S = 10.0  # for the other workers, once the first has ended


class Worker:
    """One worker: it runs the train function in one thread and gives signs of life in another."""

    def node(self) -> str:
        """The node on which it is; an answer says that it has a place."""
        found: str = ray.get_runtime_context().get_node_id()
        return found

    def train(self, rank: Callable[[dict[str, Any]], Any], settings: Mapping[str, Any], place: tuple[int, int]) -> Any:
        """Run `rank(settings)` to its end, as world rank `place[0]` of at first `place[1]` workers."""
        return rank({**settings, "place": place})


@dataclass
class Seat:
    """The place of one world rank: its actor, its first word, and its end."""

    rank: int
    actor: Any
    up: Any
    end: Any
    node: str | None = None  # once it has one


class ResizableGroup:
    """`rank(settings)` on as many workers as there is room for, from the plan's fewest to its most.

    Has the interface of Ray Train's trainers here: `fit` in one thread, `abort` from another.
    """

    def __init__(self, rank: Callable[[dict[str, Any]], Any], settings: dict[str, Any], plan: Plan) -> None:
        self.rank, self.settings, self.hub, self.plan = rank, settings, settings["hub"], plan
        need = resources(plan)
        self.actor = ray.remote(num_cpus=need["CPU"], num_gpus=need.get("GPU", 0), max_concurrency=2)(Worker)
        self.seats: dict[int, Seat] = {}
        self.leaving: set[str] = set()  # nodes that were announced to go, and those that have gone since
        self.failures, self._failed_at = 0, -AT_ONCE_S
        self._aborted = threading.Event()

    def fit(self) -> Any:
        """Train to the end; the result is the `return_value`. Raises RaylrError when too many workers were lost."""
        try:
            for rank in range(self.plan.workers[1]):
                self._seat(rank, self._expected())
            while not self._aborted.is_set():
                self._look_for_drains()
                result = self._look_for_ends()
                if result is not None:
                    self._await_the_others()
                    return SimpleNamespace(return_value=result)
            raise RaylrError("the run was ended")
        finally:
            for seat in self.seats.values():
                ray.kill(seat.actor)

    def abort(self) -> None:
        """End now. Another thread than that of `fit` calls it."""
        self._aborted.set()

    def _expected(self) -> int:
        """How many workers there is room for, others' jobs aside."""
        low, high = self.plan.workers
        return max(low, min(high, Demand(resources(self.plan), high).capacity(living_nodes())))

    def _seat(self, rank: int, expected: int) -> None:
        """Ask for an actor; it has the seat's rank, and starts when a node has room."""
        actor = self.actor.remote()
        up = actor.node.remote()
        self.seats[rank] = Seat(rank, actor, up, actor.train.remote(self.rank, self.settings, (rank, expected)))

    def _look_for_drains(self) -> None:
        """Tell the hub which nodes are about to go."""
        found = draining_nodes()
        if found - self.leaving:
            self.leaving |= found
            self.hub.drain.remote(self.leaving)

    def _look_for_ends(self) -> Any:
        """Wait a moment for workers that end. The result of the run, if one has it; who left or is lost gets a successor."""
        by_end = {seat.end: seat for seat in self.seats.values()}
        ray.wait(list(by_end), timeout=LOOK_S)
        ended, _ = ray.wait(list(by_end), num_returns=len(by_end), timeout=0)
        for seat in self.seats.values():
            self._note_node(seat)
        lost: dict[int, Exception] = {}
        for seat in (by_end[end] for end in ended):
            try:
                result = ray.get(seat.end)
            except Exception as error:  # a lost actor's, or what its train function raised, which may pass
                lost[seat.rank] = error
                continue
            if result != LEFT:
                return result
            self._succeed(seat)
        if lost:
            self._replace(lost)
        return None

    def _note_node(self, seat: Seat) -> None:
        if seat.node is None and ray.wait([seat.up], timeout=0)[0]:
            with contextlib.suppress(ray.exceptions.RayError):
                seat.node = ray.get(seat.up)

    def _replace(self, lost: dict[int, Exception]) -> None:
        """Count the workers that were lost at once as one failure, but for those whose node was about to go."""
        unforeseen = {rank: error for rank, error in lost.items() if self.seats[rank].node not in self.leaving}
        if unforeseen and time.monotonic() - self._failed_at > AT_ONCE_S:
            self.failures, self._failed_at = self.failures + 1, time.monotonic()
        if self.failures > self.plan.max_failures:
            reasons = "; ".join(f"rank {rank}: {first_line(error)}" for rank, error in unforeseen.items())
            raise RaylrError(
                f"failure.max_failures={self.plan.max_failures}, and workers were lost once more: {reasons}"
            )
        for rank in lost:
            self._succeed(self.seats[rank])

    def _succeed(self, seat: Seat) -> None:
        """Put another actor in the place of one that has ended."""
        ray.kill(seat.actor)
        self._seat(seat.rank, self._expected())

    def _await_the_others(self) -> None:
        """Let those that train end by themselves; the run is over for those that wait for a place."""
        if ends := [seat.end for seat in self.seats.values() if seat.node is not None]:
            ray.wait(ends, num_returns=len(ends), timeout=END_S)
