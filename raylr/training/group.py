"""A process group as the loop sees it: a rank, a size, four collectives, and one error for a peer that is gone."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

RENDEZVOUS_TIMEOUT_S = 30.0  # for finding each other; a peer that died meanwhile never comes


class GroupBroken(RuntimeError):
    """A collective did not end: a peer died, hangs, or left. The state before the update still stands."""


class Group:
    """The ranks that train together. `Group()` is one rank alone, which needs no process group."""

    def __init__(self, process_group: Any = None, group_rank: int = 0, size: int = 1) -> None:
        self.process_group, self.group_rank, self.size = process_group, group_rank, size

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
        with _peers_may_go():
            work = self.process_group.allreduce([tensor])

        def wait() -> None:
            with _peers_may_go():
                work.wait()

        return wait

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
        content = torch.empty(int(length.item()), dtype=torch.uint8, device=device)
        if self.group_rank == source:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.broadcast(content, source)
        return content.cpu().numpy().tobytes()

    def _wait(self, start: Callable[[], Any]) -> None:
        with _peers_may_go():
            start().wait()


@contextlib.contextmanager
def _peers_may_go() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise GroupBroken(str(error).splitlines()[0]) from error


def listen(host: str, port: int = 0) -> Any:
    """A store on `host`, by default on a port that is free; its `port` is what the others of a group need."""
    return dist.TCPStore(host, port, None, True, timedelta(seconds=RENDEZVOUS_TIMEOUT_S), wait_for_workers=False)  # type: ignore[attr-defined]


def connect(host: str, port: int) -> Any:
    """The store that group rank 0 of a group listens with. Raises GroupBroken without an answer within RENDEZVOUS_TIMEOUT_S."""
    with _peers_may_go():
        return dist.TCPStore(host, port, None, False, timedelta(seconds=RENDEZVOUS_TIMEOUT_S), wait_for_workers=False)  # type: ignore[attr-defined]


def form_group(
    server: Any,
    generation: int,
    group_rank: int,
    size: int,
    device: torch.device,
    timeout_s: float,
    default: bool = False,
) -> Group:
    """Form a group of `size` processes over the store `server`; gloo on the CPU, NCCL on GPUs.

    With `default` it becomes torch's default group too, which DistributedDataParallel needs. A collective that does not
    end within `timeout_s` raises GroupBroken, and so does this when not everybody comes.
    """
    if size == 1:
        return Group()
    store = dist.PrefixStore(str(generation), server)  # type: ignore[attr-defined]
    with _peers_may_go():
        if default:
            backend, timeout = "nccl" if device.type == "cuda" else "gloo", timedelta(seconds=timeout_s)
            dist.init_process_group(backend, store=store, rank=group_rank, world_size=size, timeout=timeout)
            return Group(dist.group.WORLD, group_rank, size)
        if device.type == "cuda":
            group: Any = dist.ProcessGroupNCCL(store, group_rank, size, dist.ProcessGroupNCCL.Options())
        else:
            group = dist.ProcessGroupGloo(store, group_rank, size, timedelta(seconds=RENDEZVOUS_TIMEOUT_S))
        group._set_default_timeout(timedelta(seconds=timeout_s))
    return Group(group, group_rank, size)
