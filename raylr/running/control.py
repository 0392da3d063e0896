"""Inspect and control a running job: its status, and orders that all ranks carry out at the same update.

A run leaves in its folder how its hub is reached (`hub.json`: address, name, path of the token). Orders go through Ray, so
a client without access to the cluster cannot give any. A population is a job too; it takes status and stop. A loop of one's
own has no hub: it takes its orders from files in its folder.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from raylr.errors import ConfigError, RaylrError, first_line
from raylr.events import (
    CheckpointOrder,
    LROrder,
    Order,
    PopulationStatus,
    PopulationStopped,
    RunEvent,
    Status,
    StopOrder,
    row,
)
from raylr.lr import Clock, examples
from raylr.planning.loop_plan import is_loop, plan_in
from raylr.running import loop_control
from raylr.running.session import check_reachable, set_up
from raylr.storage import POPULATION, RUN, Folder, open_run, population_of

OrderKind = Literal["lr", "checkpoint", "stop"]
NAMESPACE = "raylr"
TIMEOUT_S = 120.0
HUB_TIMEOUT_S = 30.0  # for a word of the hub, which is always ready for one


def write_address(folder: Folder, name: str) -> None:
    """Leave in the run's folder how to reach its hub."""
    import ray

    address = ray.get_runtime_context().gcs_address
    folder.write_json(
        "hub.json", {"address": address, "hub": name, "token_path": os.environ.get("RAY_AUTH_TOKEN_PATH")}
    )


def status(run: str, storage: str) -> dict[str, Any]:
    """The newest progress of a running job. Raises ConfigError when it has ended or cannot be reached."""
    folder = _folder(run, storage)
    if _is_own_loop(folder):
        return loop_control.status(folder)
    with _hub(folder) as hub:
        found: Status | PopulationStatus = _answer(run, hub.status.remote(), HUB_TIMEOUT_S)
        return found.row()


def order(
    run: str, storage: str, kind: OrderKind, factor: float | None = None, duration: str | None = None
) -> dict[str, Any]:
    """Give an order (`lr`, `checkpoint`, `stop`) and return the event with which the run answered it."""
    folder = _folder(run, storage)
    if kind != "stop" and folder.exists("space.json"):
        raise ConfigError(f"run={run} is a population, which knows status and stop; {kind} is an order to one run")
    wish = _order(kind, factor, _examples(folder, duration))
    if _is_own_loop(folder):
        return row(loop_control.carried_out(folder, wish, TIMEOUT_S))
    with _hub(folder) as hub:
        queued = replace(wish, number=_answer(run, hub.order.remote(wish), HUB_TIMEOUT_S))
        answer: RunEvent | PopulationStopped | None = _answer(
            run, hub.answer.remote(queued, TIMEOUT_S), TIMEOUT_S + HUB_TIMEOUT_S
        )
    if answer is None:
        raise RaylrError(f"run={run} did not carry out {kind!r} within {TIMEOUT_S:g} s; it still will when it can")
    return answer.row() if isinstance(answer, PopulationStopped) else row(answer)


def _order(kind: OrderKind, factor: float | None, for_examples: int | None) -> Order:
    match kind:
        case "lr":
            assert factor is not None
            return LROrder(factor, for_examples)
        case "checkpoint":
            return CheckpointOrder()
        case "stop":
            return StopOrder()


def _answer(run: str, asked: Any, timeout_s: float) -> Any:
    import ray

    try:
        return ray.get(asked, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise RaylrError(
            f"run={run} gives no answer within {timeout_s:g} s; its node may be cut off or busy"
        ) from error


def _folder(run: str, storage: str) -> Folder:
    folder = open_run(run, storage, RUN, POPULATION)
    is_running = folder.exists("hub.json") or (_is_own_loop(folder) and folder.is_held())
    for result in ("result.json", "explore.json"):
        if folder.exists(result) and not (is_running and result == "explore.json"):
            ended = folder.read_json(result)["status"]
            raise ConfigError(f"run={run} has ended ({ended}); there is nothing to control")
    if not is_running:
        raise ConfigError(f"run={run} is not running")
    return folder


def _is_own_loop(folder: Folder) -> bool:
    """Whether a run takes its orders as files, and not through Ray; a trial takes those of its population."""
    if folder.exists("hub.json") or not folder.exists("plan.json") or population_of(folder) is not None:
        return False
    return is_loop(folder.read_json("plan.json"))


def _examples(folder: Folder, duration: str | None) -> int | None:
    if duration is None:
        return None
    plan = plan_in(folder)
    return examples(duration, Clock(plan.num_train, plan.total_examples, plan.batch_at(plan.workers[1])), "for")


@contextlib.contextmanager
def _hub(folder: Folder) -> Iterator[Any]:
    """A connection to the run's hub. Ray reads its environment when it is imported, so nothing imports it before this."""
    where = folder.read_json("hub.json")
    set_up()
    if where["token_path"]:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", where["token_path"])
    import ray

    try:
        check_reachable(where["address"])
        ray.init(address=where["address"], namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        hub = ray.get_actor(where["hub"])
    except (ConfigError, ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        raise ConfigError(
            f"the run in {folder} cannot be reached at {where['address']}: {first_line(error)}"
        ) from error
    try:
        yield hub
    finally:
        ray.shutdown()
