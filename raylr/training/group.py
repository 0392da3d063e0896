"""A process group as the loop sees it: a rank, a size, four collectives, and one error for a peer that is gone.

Another error says that no peer is to blame: a group that is formed again would meet the same. A result is read by `read` or
followed by `check`, before any state changes: NCCL lets a read of a group that was aborted return with garbage.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raylr.errors import RaylrError
from raylr.training import nccl
from raylr.training.network import is_own, socket_interface

RENDEZVOUS_TIMEOUT_S = 30.0  # for finding each other; a peer that died meanwhile never comes
MAX_MESSAGE = 600
# What gloo and NCCL say where a peer or the network is to blame. NCCL's "system error" is a socket's or a card's: tried again.
PEER_LOST = (
    "gloo/transport", "connectFullMesh", "remote process exited", "ncclRemoteError", "ncclSystemError", "NCCL timeout",
    "was aborted",
)  # fmt: skip


class GroupBroken(RuntimeError):
    """A collective did not end: a peer died, hangs, or left. The state before the update still stands."""


class GroupUnusable(RaylrError):
    """A collective failed and no peer is to blame, or no group comes about: forming it again is no help."""


class Group:
    """The ranks that train together. `Group()` is one rank alone, which needs no process group."""

    def __init__(
        self, process_group: Any = None, group_rank: int = 0, size: int = 1, watch: nccl.Watch | None = None
    ) -> None:
        self.process_group, self.group_rank, self.size, self.watch = process_group, group_rank, size, watch

    def all_to_all(self, output: Tensor, source: Tensor, output_splits: list[int], source_splits: list[int]) -> None:
        """Send the i-th split of `source` to group rank i; `output` holds what came, by group rank."""
        self._wait(lambda: self.process_group.alltoall_base(output, source, output_splits, source_splits))

    def all_gather(self, output: Tensor, source: Tensor) -> None:
        """Put everybody's `source` into `output`, by group rank."""
        self._wait(lambda: self.process_group._allgather_base(output, source))

    def all_reduce(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to sum in place, in no fixed order: exact only where at most one rank's value differs from zero. What comes
        back waits for the sum."""
        if self.size == 1:
            return lambda: None
        work = self._run(lambda: self.process_group.allreduce([tensor]))
        return lambda: self._run(work.wait)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Overwrite `tensor` with that of group rank `source`."""
        if self.size > 1:
            options = dist.BroadcastOptions()
            options.rootRank = source
            self._wait(lambda: self.process_group.broadcast([tensor], options))

    def broadcast_bytes(self, data: bytes, source: int, device: torch.device) -> bytes:
        """The bytes that group rank `source` gave; what the others give is not looked at."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)], dtype=torch.int64, device=device)
        self.broadcast(length, source)
        (num_bytes,) = self.read(length)
        content = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        if self.group_rank == source:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.broadcast(content, source)
        received = content.cpu().numpy().tobytes()
        self.check()
        return received

    def read(self, tensor: Tensor) -> list[Any]:
        """The values of a vector that came out of collectives. Raises GroupBroken when they are worth nothing."""
        values: list[Any] = tensor.tolist()
        self.check()
        return values

    def check(self) -> None:
        """Raise GroupBroken where the group was aborted: what was read from it since is worth nothing."""
        if self.watch is not None and self.watch.reason is not None:
            raise GroupBroken(self.watch.reason)

    def abort(self, reason: str) -> None:
        """Make collectives that wait raise GroupBroken. Any thread may call it; gloo finds out by itself."""
        if self.watch is not None:
            self.watch.abort(reason)

    def leave(self) -> None:
        """Let the group go before another one is formed."""
        if self.watch is not None:
            self.watch.close()

    def _wait(self, start: Callable[[], Any]) -> None:
        self._run(lambda: start().wait())

    def _run(self, act: Callable[[], Any]) -> Any:
        try:
            if self.watch is None:
                return act()
            with self.watch.over():
                return act()
        except RuntimeError as error:
            self.check()  # whatever follows an abort is its doing
            raise our_error(error) from error


@contextlib.contextmanager
def _as_our_errors() -> Iterator[None]:
    try:
        yield
    except GroupBroken:
        raise
    except RuntimeError as error:
        raise our_error(error) from error


def our_error(error: RuntimeError) -> Exception:
    """Turn an error of torch into GroupBroken where a peer or the network is to blame, else into GroupUnusable."""
    if is_peer_lost(error):
        return GroupBroken(one_line(error))
    return GroupUnusable(f"a collective failed, and no lost worker is to blame: {one_line(error)}")


def is_peer_lost(error: RuntimeError) -> bool:
    """True when a new group may help. CUDA errors, shared cards and wrong shapes come again."""
    if isinstance(error, (dist.DistStoreError, dist.DistNetworkError)):
        return True
    text = str(error)
    return any(words in text for words in PEER_LOST) and not text.startswith("[enforce fail")


def one_line(error: Exception) -> str:
    """All that gloo or NCCL said, without places in the sources and stacks.

    >>> one_line(RuntimeError("[/src/gloo/transport/tcp/pair.cc:561] Connection closed by peer. This is typically caused"))
    'Connection closed by peer'
    """
    text = re.split(r"Exception raised from|C\+\+ CapturedTraceback|\. This is typically caused", str(error))[0]
    lines = [re.sub(r"\[/\S+:\d+\] ", "", line).strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line)[:MAX_MESSAGE] or type(error).__name__


def listen(host: str, port: int = 0) -> Any:
    """A store on `host`, by default on a port that is free; its `port` is what the others of a group need."""
    return dist.TCPStore(host, port, None, True, timedelta(seconds=RENDEZVOUS_TIMEOUT_S), wait_for_workers=False)  # type: ignore[attr-defined]


def connect(host: str, port: int, timeout_s: float = RENDEZVOUS_TIMEOUT_S) -> Any:
    """The store that group rank 0 of a group listens with. Raises GroupBroken without an answer in time."""
    with _as_our_errors():
        return dist.TCPStore(host, port, None, False, timedelta(seconds=timeout_s), wait_for_workers=False)  # type: ignore[attr-defined]


def form_group(
    server: Any,
    generation: int,
    group_rank: int,
    size: int,
    device: torch.device,
    timeout_s: float,
    default: bool = False,
    backend: str = "gloo",
    address: str = "",
) -> Group:
    """Form a group of `size` processes over the store `server`, by gloo or NCCL.

    It listens and connects on `address`, by default on what the host's name means; an interface that the user names in
    GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME goes before. With `default` it becomes torch's default group too, which
    DistributedDataParallel needs. Raises GroupBroken when not everybody comes within RENDEZVOUS_TIMEOUT_S (or the shorter
    `timeout_s`); a collective that does not end within `timeout_s` raises it too.
    """
    if size == 1:
        return Group()
    store = dist.PrefixStore(str(generation), server)  # type: ignore[attr-defined]
    with _as_our_errors():
        if backend == "nccl":
            refuse_a_shared_card(store, nccl.card())
        if default:
            return Group(_default_group(store, group_rank, size, backend, device, address, timeout_s), group_rank, size)
        if backend == "nccl":
            return _nccl_group(store, group_rank, size, device, timeout_s, address)
        group = _gloo(store, group_rank, size, address, min(RENDEZVOUS_TIMEOUT_S, timeout_s))
        group._set_default_timeout(timedelta(seconds=timeout_s))
    return Group(group, group_rank, size)


def _gloo(store: Any, group_rank: int, size: int, address: str, timeout_s: float) -> Any:
    if not address or "GLOO_SOCKET_IFNAME" in os.environ or not is_own(address):
        return dist.ProcessGroupGloo(store, group_rank, size, timedelta(seconds=timeout_s))
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
    options._threads, options._timeout = 2, timedelta(seconds=timeout_s)
    return dist.ProcessGroupGloo(store, group_rank, size, options)


def _nccl_group(store: Any, group_rank: int, size: int, device: torch.device, timeout_s: float, address: str) -> Group:
    """Form a group and its communicator, which the first collective does."""
    with socket_interface("NCCL_SOCKET_IFNAME", address, exactly="="):
        process_group, watch = nccl.form(store, group_rank, size, min(RENDEZVOUS_TIMEOUT_S, timeout_s))
        group = Group(process_group, group_rank, size, watch)
        here = torch.ones(1, device=device)
        group.all_reduce(here)()
        group.read(here)
    watch.timeout_s = timeout_s
    return group


def _default_group(
    store: Any, group_rank: int, size: int, backend: str, device: torch.device, address: str, timeout_s: float
) -> Any:
    """Torch's own group; torch's watchdog ends a process whose collective hangs, and the run restarts."""
    with socket_interface("GLOO_SOCKET_IFNAME", address), socket_interface("NCCL_SOCKET_IFNAME", address, exactly="="):
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group(backend, store=store, rank=group_rank, world_size=size, timeout=timeout)
        if backend == "nccl":
            dist.all_reduce(torch.ones(1, device=device))  # forms the communicator while the interface is named
    return dist.group.WORLD


def refuse_a_shared_card(store: Any, card: str) -> None:
    """Raise GroupUnusable in the second rank of a group that has this card: NCCL would do so in many words."""
    if store.add(f"card {card}", 1) > 1:
        raise GroupUnusable(
            f"batch.backend=nccl needs a GPU for each worker, and two of them are on one ({card}); "
            "use batch.backend=gloo, whose workers may share one"
        )
