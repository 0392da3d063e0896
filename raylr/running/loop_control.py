"""Inspect and control a loop of one's own by the files of its run, wherever it trains."""

import time
from typing import Any

from raylr.errors import RaylrError
from raylr.events import Checkpointed, Ended, Order, Overridden, Progress, RunEvent, Status, StopOrder, event_of_row
from raylr.planning.loop_plan import plan_in
from raylr.reporting.rows import last_row
from raylr.storage import Folder
from raylr.training.attached.orders import give

LOOK_S, LOOK_AT_STORE_S = 0.2, 3.0  # between two looks for an answer


def status(folder: Folder) -> dict[str, Any]:
    """How far the loop is, from the last row of its ledger."""
    plan, row = plan_in(folder), last_row(folder, "ledger.jsonl")
    if row is None:
        return Status(None, tuple(range(plan.workers[1])), 1).row()
    return Status(Progress.after(row, plan.total_examples, plan.num_train), tuple(range(row["world_size"])), 1).row()


def carried_out(folder: Folder, wish: Order, timeout_s: float) -> RunEvent:
    """Give the order and return the event with which the loop answers. Raises RaylrError when none comes in time."""
    after, queued, deadline = time.time(), give(folder, wish), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for found in map(event_of_row, folder.read_rows("events.jsonl")):
            match found:
                case Overridden(number=queued.number) | Checkpointed(number=queued.number):
                    return found
                case Ended(kind="stop", time=at) if isinstance(queued, StopOrder) and at >= after:
                    return found
        time.sleep(LOOK_S if folder.is_local else LOOK_AT_STORE_S)
    raise RaylrError(
        f"run={folder.name} did not carry out {wish.kind!r} within {timeout_s:g} s; it still will at its next update or report"
    )
