"""A process group: which errors a lost peer explains and which end the run, reads after an abort, and addresses."""

import doctest
import os
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from raylr.training import group as groups
from raylr.training import network
from raylr.training.group import (
    Group,
    GroupBroken,
    GroupUnusable,
    connect,
    form_group,
    is_peer_lost,
    listen,
    one_line,
    refuse_a_shared_card,
)
from raylr.training.nccl import Watch
from raylr.training.network import Endpoint, all_of, interface_of, is_own, socket_interface, unreachable
from tests.training.runs import Images, images, plan, policy

CPU = torch.device("cpu")


def formed(place: int, size: int, port: int, stall_s: float, address: str = "127.0.0.1") -> Group:
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    return form_group(store, 1, place, size, CPU, stall_s, address=address)


def caught(error: type[Exception], of: Group, *sizes: list[int]) -> str:
    try:
        of.all_to_all(torch.empty(2), torch.ones(2), *sizes)
    except error as said:
        return str(said)
    raise AssertionError("nothing was raised")


def with_a_peer_that_leaves(place: int, size: int, port: int) -> str:
    group = formed(place, size, port, 10.0)
    return "" if place == 1 else caught(GroupBroken, group, [1, 1], [1, 1])


def with_a_peer_that_hangs(place: int, size: int, port: int) -> str:
    group = formed(place, size, port, 0.5)
    if place == 1:
        time.sleep(1.5)
        return ""
    return caught(GroupBroken, group, [1, 1], [1, 1])


def with_wrong_splits(place: int, size: int, port: int) -> str:
    return caught(GroupUnusable, formed(place, size, port, 10.0), [1, 2], [1, 2])


def without_a_peer(place: int, size: int, port: int) -> str:
    try:
        formed(0, 2, port, 0.5)
    except GroupBroken as error:
        return str(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("body", "size", "says"),
    [
        (with_a_peer_that_leaves, 2, " by peer"),
        (with_a_peer_that_hangs, 2, "Timed out waiting 500ms for "),
        (without_a_peer, 1, "wait timeout after 500ms"),
        (with_wrong_splits, 2, "no lost worker is to blame: Split sizes doesn't match total dim 0 size"),
    ],
)
def test_gloos_errors_are_told_apart_and_keep_their_words(ranks, body, size, says):
    assert says in ranks.run(body, size)[0]


DUPLICATE = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, invalid usage, NCCL version 2.30.7
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000
Exception raised from create at /pytorch/NCCLUtils.cpp:94 (most recent call first):
frame #0: c10::Error::Error"""
REMOTE = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError(DUPLICATE), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("[enforce fail at /src/gloo/transport/tcp/pair.cc:464] op.preamble.length <= op.nbytes"), False),
        (dist.DistBackendError(f"NCCL error in: NCCLUtils.hpp:77, remote process exited\n{REMOTE}"), True),
        (dist.DistBackendError("NCCL communicator was aborted on rank 0."), True),
        (dist.DistStoreError("wait timeout after 4000ms, keys: /0/1"), True),
        (dist.DistNetworkError("The client socket has timed out after 30000ms"), True),
        (RuntimeError("Gloo connectFullMesh failed with [/src/gloo/transport/tcp/pair.cc:144] no error"), True),
    ],
)
def test_an_error_is_a_lost_peers_only_where_gloo_nccl_or_a_store_says_so(error, is_lost):
    assert is_peer_lost(error) == is_lost


def test_the_whole_of_nccls_message_is_kept_in_one_line_without_its_stack():
    said = one_line(RuntimeError(DUPLICATE))
    assert said.endswith("Last error: Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000")
    assert "\n" not in said


class Broken:
    """A membership whose group has no network; it keeps what it is told of the end."""

    can_continue = True

    def __init__(self, group: Group) -> None:
        self.group, self.asked, self.result = group, 0, None

    def rendezvous(self, mark, trouble=""):
        from raylr.training.membership import Quorum

        self.asked += 1
        return Quorum(self.group, None, 0, True, "start")

    def has_orders(self) -> bool:
        return False

    def orders(self, since):
        return []

    def end(self, result) -> None:
        self.result = result

    def publish(self, event) -> None:
        pass


class WrongSplits(Group):
    """A group whose exchange of gradients has an error of ours."""

    def all_to_all(self, output, source, output_splits, source_splits):
        super().all_to_all(output, source, [*output_splits[:-1], 1], [*source_splits[:-1], 1])


def broken_run(place: int, size: int, port: int, data: Images, run_dir: str) -> tuple[dict, int, bool]:
    from raylr.storage import LocalFolder
    from raylr.training.loop import Loop
    from raylr.training.trainer import Trainer

    of = plan()
    group = formed(place, size, port, 60.0)
    membership = Broken(WrongSplits(group.process_group, place, size))
    folder = LocalFolder(Path(run_dir))
    folder.create()
    result = Loop(Trainer(of, policy(of), data), membership, folder).run()
    return result, membership.asked, membership.result == result


def test_an_error_that_no_peer_explains_ends_the_run_with_its_own_words_at_the_first_time(ranks, tmp_path):
    for result, asked, was_told in ranks.run(broken_run, 2, images(90, 50), str(tmp_path)):
        assert result["status"] == "failed"
        assert result["reason"].endswith("Split sizes doesn't match total dim 0 size")
        assert (asked, was_told) == (1, True)


def test_two_nccl_ranks_on_one_card_are_refused_in_a_line_that_names_gloo():
    store = dist.PrefixStore("1", listen("127.0.0.1"))
    refuse_a_shared_card(store, "GPU-1")
    refuse_a_shared_card(store, "GPU-2")
    with pytest.raises(GroupUnusable) as refused:
        refuse_a_shared_card(store, "GPU-1")
    assert str(refused.value) == (
        "batch.backend=nccl needs a GPU for each worker, and two of them are on one (GPU-1); use batch.backend=gloo, whose "
        "workers may share one"
    )


class Read(torch.Tensor):
    """A tensor whose values come late, as a card's do: the group is aborted meanwhile, and they are garbage."""

    before: object = None

    def tolist(self):
        self.before()
        return super().tolist()


def watched(timeout_s: float, done: threading.Event, failed=lambda: None) -> tuple[Group, list[str | None]]:
    """A group of one place with a watch, and what its reason was when its abort was called."""
    seen: list[str | None] = []
    watch = Watch(lambda: seen.append(watch.reason), lambda: done.is_set, timeout_s, failed)
    return Group(None, 0, 2, watch), seen


def wait_for(holds, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Enqueued:
    def wait(self) -> None:
        """As NCCL's: neither blocks nor raises."""


def test_a_collective_that_does_not_end_in_time_is_aborted_and_its_result_never_used():
    group, seen = watched(0.3, threading.Event())
    group._wait(Enqueued)
    result = torch.ones(3).as_subclass(Read)
    result.before = lambda: wait_for(lambda: seen)
    with pytest.raises(GroupBroken, match=r"a collective did not end within 0\.3 s"):
        group.read(result)
    assert seen == ["a collective did not end within 0.3 s"], "the reason is there before the abort"


def test_a_collective_that_ends_is_not_aborted_however_long_nothing_follows():
    done = threading.Event()
    done.set()
    group, seen = watched(0.3, done)
    group._wait(Enqueued)
    time.sleep(0.8)
    assert group.read(torch.ones(2)) == [1.0, 1.0]
    assert not seen
    group.leave()
    assert seen == ["the group was left"]


def test_the_hubs_word_and_nccls_own_error_abort_at_once_and_only_once():
    group, seen = watched(60.0, threading.Event())
    group._wait(Enqueued)
    group.abort("a member of the group is lost")
    group.abort("again")
    with pytest.raises(GroupBroken, match="a member of the group is lost"):
        group.check()
    other, own = watched(60.0, threading.Event(), lambda: "NCCL reports COMM_ERROR")
    wait_for(lambda: own)
    with pytest.raises(GroupBroken, match="NCCL reports COMM_ERROR"):
        other.check()
    assert seen == ["a member of the group is lost"]


def test_an_error_of_an_aborted_group_is_the_aborts_not_the_cards():
    group, _ = watched(60.0, threading.Event())
    group.abort("a member of the group is lost")

    def start():
        raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(GroupBroken, match="a member of the group is lost"):
        group._wait(start)


def test_the_examples_in_the_docstrings_hold():
    assert [doctest.testmod(module) for module in (groups, network)] == [(0, 1), (0, 1)]


def test_the_interface_of_an_address_is_named_unless_the_user_named_one(monkeypatch):
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.99") is None
    assert (is_own("127.0.0.1"), is_own("203.0.113.9")) == (True, False)
    with socket_interface("NCCL_SOCKET_IFNAME", "127.0.0.1", exactly="="):
        assert os.environ["NCCL_SOCKET_IFNAME"] == "=lo"
    assert "NCCL_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    with socket_interface("NCCL_SOCKET_IFNAME", "127.0.0.1", exactly="="):
        assert os.environ["NCCL_SOCKET_IFNAME"] == "eth7"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "eth7"


def test_a_host_that_does_not_answer_is_named_with_both_addresses_and_the_reason():
    with socket.create_server(("127.0.0.2", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.3", 0))
        own = Endpoint("first", "127.0.0.1", 1)
        answers = Endpoint("second", "127.0.0.2", server.getsockname()[1])
        refuses = Endpoint("third", "127.0.0.3", closed.getsockname()[1])
        here = Endpoint("first", "127.0.0.1", refuses.port)
        assert unreachable(own, [own, here, answers], 5) is None
        says = (
            f"host first (127.0.0.1) does not reach host third (127.0.0.3) at port {refuses.port}: Connection refused"
        )
        assert unreachable(own, [answers, refuses], 5) == says


def test_many_hosts_are_told_in_few_words():
    many = [Endpoint("h", f"10.0.0.{number}", 1) for number in range(1, 10)]
    assert all_of(many) == "host h (10.0.0.1), host h (10.0.0.2), host h (10.0.0.3) and 6 more"
