"""What becomes of an exception in a worker: what may pass is left to Ray, which tries again; all else ends the run.

A lost process or node, the network, a full memory and the storage may pass. An error of the user's model, loss or data comes
again at the same update, so its traceback travels to the driver as data, and the other ranks leave too.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray
import torch

from raylr.errors import RaylrError, first_line
from raylr.events import Warned
from raylr.training.group import GroupBroken, is_peer_lost
from raylr.training.recheck import Unreliable

PASSING = (
    GroupBroken,
    Unreliable,
    ray.exceptions.RayError,
    MemoryError,
    torch.OutOfMemoryError,
    ConnectionError,
    TimeoutError,
)
OURS = Path(__file__).parents[1]


class Run(Protocol):
    """The run of a rank, which one of them can end for all."""

    rank: int

    def ended(self) -> dict[str, Any] | None:
        """The result with which the run has ended; None while it goes on."""

    def fail(self, failed: dict[str, Any]) -> None:
        """End the run with this result for all ranks, and leave the group, so that none waits for this one."""

    def give_up(self, failed: dict[str, Any]) -> None:
        """Leave the error that ends this process; it is the run's where no further start helps."""


def ending(run: Run, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `train`; one that failed where it raised what comes again. What may pass is raised."""
    try:
        return train()
    except (Exception, SystemExit) as error:
        if (ended := run.ended()) is not None:
            return ended
        failed = told(error, run.rank)
        if may_pass(error):
            run.give_up(failed)
            raise
    run.fail(failed)
    return failed


def may_pass(error: BaseException) -> bool:
    """True where another start may help."""
    if isinstance(error, RaylrError):
        return False
    if isinstance(error, RuntimeError) and is_peer_lost(error):  # inside DistributedDataParallel
        return True
    return isinstance(error, PASSING) or (isinstance(error, OSError) and _is_of_storage(error))


def _is_of_storage(error: OSError) -> bool:
    """True where raylr's own access to the storage raised it, and no code of the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).is_relative_to(OURS / "storage") for frame in frames)


def told(error: BaseException, rank: int) -> dict[str, Any]:
    """A result that failed: its reason in one line, with file and line, and the whole traceback. Our own errors say it all."""
    if isinstance(error, RaylrError):
        return {"status": "failed", "reason": first_line(error)}
    (name,) = traceback.format_exception_only(type(error), error)[-1:]
    where = _where(error)
    at = f" ({where.filename}, line {where.lineno}, in {where.name}; rank {rank})" if where else f" (rank {rank})"
    lines = traceback.format_exception(error)
    return {"status": "failed", "reason": f"{name.strip().splitlines()[0]}{at}", "traceback": "".join(lines).rstrip()}


def _where(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost place of the traceback that is neither ours nor in an installed package; else the innermost one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "site-packages" not in one.filename and not Path(one.filename).is_relative_to(OURS)]
    return next(reversed(own or frames), None)


def warning(failed: dict[str, Any], rank: int) -> Warned:
    """What is said while what may pass is tried again."""
    return Warned(f"rank {rank} ended and is started again: {failed['reason']}", rank)
