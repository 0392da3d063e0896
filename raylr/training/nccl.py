"""NCCL groups whose collectives end: a watch aborts a group when one takes too long, when NCCL reports an error, or on demand.

`work.wait()` of NCCL neither blocks nor raises: a rank whose peer is gone waits in its next read of a result, for ever or
until torch's own watchdog ends the process. After an abort such a read returns, with garbage; so the watch keeps its reason
before it aborts, and `Group` looks at it after every read, before any state changes. Known from torchft.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

Done = Callable[[], bool]
LOOK_S = 0.2
NEVER = timedelta(days=365)  # torch's watchdog must not end the process: our watch aborts the group
SETTINGS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",  # an error of a peer is no reason to end the process either
    "TORCH_NCCL_NONBLOCKING_TIMEOUT": "30",  # s; of forming the communicator, by default 1800
}


@dataclass
class _Collective:
    deadline: float
    done: Done | None = None  # None until it is enqueued: forming the communicator, in the first one, counts too


class Watch:
    """A thread beside a group. `mark` is called after a collective was enqueued and gives what tells that it is done;
    `failed` gives the reason when the group has failed by itself."""

    def __init__(
        self, abort: Callable[[], None], mark: Callable[[], Done], timeout_s: float, failed: Callable[[], str | None]
    ) -> None:
        self.reason: str | None = None  # why the group was aborted
        self.timeout_s = timeout_s
        self._abort, self._mark, self._failed = abort, mark, failed
        self._pending: deque[_Collective] = deque()
        self._closed, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=self._look, daemon=True, name="watch").start()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """Watch a collective, from its start to its end on the device."""
        collective = _Collective(time.monotonic() + self.timeout_s)
        self._pending.append(collective)
        try:
            yield
            collective.done = self._mark()
        except BaseException:
            collective.done = _at_once
            raise

    def abort(self, reason: str) -> None:
        """Abort the group, once: the reason is there before a read that waits for it returns."""
        with self._lock:
            if self.reason is not None or self._closed.is_set():
                return
            self.reason = reason
        with contextlib.suppress(RuntimeError):
            self._abort()
        self._closed.set()

    def close(self) -> None:
        """Leave the group: what still waits in it is aborted, and the watch ends."""
        self.abort("the group was left")

    def _look(self) -> None:
        while not self._closed.wait(LOOK_S):
            while self._pending and (done := self._pending[0].done) is not None and done():
                self._pending.popleft()
            if (reason := self._failed()) is not None:
                self.abort(reason)
            elif self._pending and time.monotonic() > self._pending[0].deadline:
                self.abort(f"a collective did not end within {self.timeout_s:g} s")


def _at_once() -> bool:
    return True


def form(store: Any, group_rank: int, size: int, timeout_s: float) -> tuple[Any, Watch]:
    """An NCCL group with its watch. Its communicator is formed, without blocking, by the first collective."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    options = dist.ProcessGroupNCCL.Options()
    if "TORCH_NCCL_USE_COMM_NONBLOCKING" not in os.environ:
        options.config.blocking = 0  # an abort reaches a communicator that is still being formed
    options._timeout = NEVER
    group = dist.ProcessGroupNCCL(store, group_rank, size, options)

    def failed() -> str | None:
        with contextlib.suppress(RuntimeError, AttributeError):  # not every version of torch tells
            error = group.get_error().name
            return None if error == "SUCCESS" else f"NCCL reports {error}"
        return None

    return group, Watch(group.abort, _mark, timeout_s, failed)


def card() -> str:
    """The name of this rank's card, which no other card has."""
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


def _mark() -> Done:
    event = torch.cuda.Event()
    event.record()

    def done() -> bool:
        with contextlib.suppress(RuntimeError):  # an error of CUDA, which the rank meets too
            return bool(event.query())
        return True

    return done
