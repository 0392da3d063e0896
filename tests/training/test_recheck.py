"""The sentinel: a bit that flips in one rank's gradient is found, by whom, and what becomes of the update and of the rank."""

import contextlib
import gc
import json
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import pytest

from raylr.training.group import Group
from raylr.training.recheck import Corrupted, blamed, due, who_is_wrong
from tests.training.runs import images, plan, policy, train

DATA = images(90, 50)
P, Q, R = (1, 0, 0, 0), (2, 0, 0, 0), (3, 0, 0, 0)  # digests


def events(run_dir):
    return [json.loads(line) for line in (Path(run_dir) / "events.jsonl").read_text().splitlines()]


def corruptions(run_dir):
    return [row for row in events(run_dir) if row["kind"] == "corruption"]


def flipping(when):
    """A trainer in whose gradient one bit flips where `when(position, micro-batch, how often it has computed that)`."""
    from raylr.training.trainer import Trainer

    class Flipping(Trainer):
        computed: ClassVar = Counter()

        def _leaf(self, node, position, own):
            import torch

            buffer = super()._leaf(node, position, own)
            if buffer is not None:
                self.computed[position, node[1]] += 1
                if when(position, node[1], self.computed[position, node[1]]):
                    buffer[5:6].view(torch.int32).bitwise_xor_(1 << 20)
            return buffer

    return Flipping


def flipped(place, size, port, of, run_dir, wrong, when):
    """One rank of a run by the real loop, whose rank `wrong` flips bits; those that stay go on without one that gives up."""
    import torch

    from raylr.events import Member
    from raylr.storage import LocalFolder
    from raylr.training.group import connect, form_group, listen
    from raylr.training.loop import Loop
    from raylr.training.membership import Plain, Quorum
    from raylr.training.recheck import Unreliable
    from raylr.training.trainer import Trainer

    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)

    class GoesOn(Plain):
        can_continue = True
        generation = 0

        def rendezvous(self, mark, trouble=""):
            self.generation += 1
            ranks = [rank for rank in range(size) if self.generation == 1 or rank != wrong]
            group = form_group(store, self.generation, ranks.index(place), len(ranks), torch.device("cpu"), 60.0)
            members = tuple(Member(rank, 700 + rank, f"host-{rank}") for rank in ranks)
            cause, source = ("start", None) if self.generation == 1 else ("continue", 0)
            return Quorum(group, source, 0, self.generation > 1, cause, members)

    folder = LocalFolder(Path(run_dir))
    folder.create()
    made = flipping(when) if place == wrong else Trainer
    loop = Loop(made(of, policy(of), DATA), GoesOn(), folder)
    try:
        return loop.run()
    except Unreliable as error:
        reason = str(error)
    loop = None  # its group is closed with it, as by the end of a process
    gc.collect()
    return {"reason": reason}


def once(position, micro_batch, number, at=0):
    return (position, micro_batch, number) == (0, at, 1)


def always(position, micro_batch, number):
    return True


@pytest.fixture(scope="module")
def clean(ranks, tmp_path_factory):
    """The weights without a check and without an error."""
    of = plan()
    found = ranks.run(train, 1, of, policy(of), DATA, str(tmp_path_factory.mktemp("clean")))[0]
    return found["weights_sha256"], found["optimizer_sha256"]


def hashes(result):
    return result["weights_sha256"], result["optimizer_sha256"]


def test_updates_are_drawn_at_the_given_share_and_pairs_of_ranks_evenly():
    of = plan(recheck=0.01)
    group = Group(None, 0, 3)
    drawn = [found for number in range(100_000) if (found := due(of, 32 * number, 6, 10, group))]
    assert len(drawn) == pytest.approx(1000, abs=4 * (100_000 * 0.01 * 0.99) ** 0.5)
    pairs = Counter((one.owner, one.checker) for one in drawn)
    assert set(pairs) == {(one, other) for one in range(3) for other in range(3) if one != other}
    assert min(pairs.values()) > 1000 / 6 - 4 * (1000 / 6) ** 0.5
    assert {one.owner for one in drawn if one.index in (2, 3)} == {1}
    assert due(plan(), 0, 4, 10, group) is None
    of_another_rank = [due(of, 32 * number, 6, 10, Group(None, 2, 3)) for number in range(100_000)]
    assert [one for one in of_another_rank if one is not None] == drawn


@pytest.mark.parametrize(
    ("firsts", "lasts", "wrong"),
    [
        ({0: P, 1: Q}, [P, P], (1,)),  # the second one failed once
        ({0: Q, 1: P}, [P, P], (0,)),
        ({0: P, 1: Q}, [P, R], (1,)),  # it fails now and then
        ({0: P, 1: Q}, [P, Q], ()),  # both stand by it
        ({0: P, 1: Q}, [R, R], (0, 1)),
        ({0: P, 2: Q}, [P, P, Q], (2,)),  # the third computation tells who is always wrong
        ({0: Q, 2: P}, [Q, P, P], (0,)),
        ({0: Q, 1: P}, [P, P, R], (0, 2)),  # one that was not asked is wrong too
        ({1: P, 2: Q}, [R, P, Q], ()),
    ],
)
def test_who_is_wrong(firsts, lasts, wrong):
    assert who_is_wrong(firsts, lasts) == wrong


def test_of_two_that_contradict_each_other_the_second_is_replaced_and_its_successor_decides():
    names, found = ["0/70@a", "1/71@b"], Corrupted(0, (), (0, 1))
    first = blamed(found, names, {}, {}, 1)
    assert (first.ranks, first.certain, first.replaced, first.counts) == ((1,), False, (), {"1/71@b": 1})
    second = blamed(found, names, first.counts, first.disputes, 1)
    assert (second.ranks, second.certain, second.replaced) == ((1,), False, (1,))
    successor = blamed(found, ["0/70@a", "1/99@c"], second.counts, second.disputes, 1)
    assert (successor.ranks, successor.certain, successor.counts["0/70@a"]) == ((0,), True, 1)
    same_host = blamed(found, ["0/70@a", "1/99@b"], second.counts, second.disputes, 1)
    assert (same_host.ranks, same_host.certain) == ((1,), False), "the machine may be the one that is wrong"


def test_one_that_is_wrong_is_counted_until_it_is_replaced():
    names, counts, replaced = ["0/70@a", "1/71@b", "2/72@c"], {}, []
    for _ in range(4):
        blame = blamed(Corrupted(2, (2,)), names, counts, {}, 3)
        counts = blame.counts
        replaced.append(blame.replaced)
    assert (replaced, counts) == ([(), (), (), (2,)], {"2/72@c": 4})


@pytest.mark.parametrize(("size", "who"), [(1, "owner"), (2, "owner"), (2, "checker"), (3, "checker")])
def test_a_bit_that_flips_once_is_found_and_the_update_done_again_to_the_clean_bits(ranks, tmp_path, clean, size, who):
    of = plan(recheck=1.0)
    first = due(of, 0, 4, 1, Group(None, 0, size))
    wrong = getattr(first, who)
    results = ranks.run(flipped, size, of, str(tmp_path), wrong, partial(once, at=first.index))
    assert {hashes(one) for one in results} == {clean}
    (found,) = corruptions(tmp_path)
    expected = {
        "ranks": [wrong],
        "hosts": [f"host-{wrong}"],
        "counts": [1],
        "certain": True,
        "micro_batch": first.index,
    }
    assert {name: found[name] for name in expected} == expected
    assert "replaced" not in found


def test_without_the_check_a_bit_that_flips_changes_the_run_and_nobody_hears_of_it(ranks, tmp_path, clean):
    of = plan()
    (result,) = ranks.run(flipped, 1, of, str(tmp_path), 0, once)
    assert hashes(result) != clean
    assert not corruptions(tmp_path)


@pytest.mark.parametrize("size", [3, 4])
def test_a_rank_that_is_always_wrong_is_found_by_the_third_computation_and_replaced(ranks, tmp_path, clean, size):
    of = plan(recheck=1.0, max_corruptions=2)
    first = due(of, 0, 4, 1, Group(None, 0, size))
    wrong = max(first.owner, first.checker)
    results = ranks.run(flipped, size, of, str(tmp_path), wrong, always)
    assert results.pop(wrong)["reason"] == "computed wrong 3 times, more than guard.max_corruptions=2"
    assert {hashes(result) for result in results} == {clean}
    found = corruptions(tmp_path)
    assert all((row["ranks"], row["hosts"], row["certain"]) == ([wrong], [f"host-{wrong}"], True) for row in found)
    assert [(row["counts"], row.get("replaced")) for row in found] == [([1], None), ([2], None), ([3], [wrong])]
    assert sum(row["kind"] == "continue" for row in events(tmp_path)) == 1


def test_of_two_of_which_one_is_always_wrong_the_second_is_replaced(ranks, tmp_path, clean):
    of = plan(recheck=1.0, max_corruptions=0)
    results = ranks.run(flipped, 2, of, str(tmp_path), 1, always)
    assert results[1]["reason"].startswith("computed wrong 1 times")
    assert hashes(results[0]) == clean
    (found,) = corruptions(tmp_path)
    assert (found["ranks"], found["certain"], found["replaced"]) == ([1], False, [1])


def until_found(place, size, port, seeds, share):
    """Updates up to the one in which a rank that is always wrong is found, by seed."""
    import torch

    from raylr.training.group import connect, form_group, listen
    from raylr.training.trainer import Trainer

    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0)
    found = []
    for seed in seeds:
        of = plan(recheck=share, seed=seed, total_examples=64_000, global_batch=16)
        trainer = (flipping(always) if place == 1 else Trainer)(of, policy(of), DATA)
        with contextlib.suppress(Corrupted):
            while True:
                trainer.update(group)
        found.append(trainer.step + 1)
    return found


def test_a_rank_that_is_always_wrong_is_found_after_one_over_p_updates(ranks):
    """Geometric with p = 1/4: mean 4, standard deviation sqrt(12); four of those of a mean of 30."""
    counts, others = ranks.run(until_found, 2, range(30), 0.25)
    assert counts == others, "all ranks agree on the update"
    assert fmean(counts) == pytest.approx(4.0, abs=4 * (12 / 30) ** 0.5)


def test_healthy_ranks_never_differ(ranks, tmp_path):
    """300 updates, each of them checked; `benchmarks.recheck` does 10,000."""
    changes = {
        "total_examples": 300 * 8,
        "global_batch": 8,
        "micro_size": 4,
        "eval_every": 2400,
        "checkpoint_every": 2400,
    }
    of = plan(recheck=1.0, **changes)
    checked = ranks.run(train, 2, of, policy(of), DATA, str(tmp_path / "checked"))
    plain = ranks.run(train, 1, plan(**changes), policy(of), DATA, str(tmp_path / "plain"))
    assert {hashes(one) for one in checked} == {hashes(plain[0])}
    assert not corruptions(tmp_path / "checked")
