"""Which processes run first on cores that Ray's helpers and the training share."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def low_priority() -> Iterator[None]:
    """Let what is started here wait until a core is free, where training holds it; `restore_priority` is for the training.

    Some of Ray's threads wake a hundred times a second, and the ranks of an update wait for the one that was interrupted.
    """
    _schedule(os.SCHED_BATCH)
    try:
        yield
    finally:
        restore_priority()


def restore_priority() -> None:
    """Let this thread, and those that it starts, run before Ray's helpers."""
    _schedule(os.SCHED_OTHER)


def _schedule(policy: int) -> None:
    with contextlib.suppress(OSError):  # some sandboxes have one policy only
        os.sched_setscheduler(0, policy, os.sched_param(0))
