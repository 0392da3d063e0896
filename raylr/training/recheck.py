"""A sentinel against machines that compute wrong: now and then a second rank computes a micro-batch too, and they compare.

Equal bits make the comparison exact. In an update that is drawn (from the seed and the position, so that all ranks draw the
same) one micro-batch is computed by its own rank and by another one; at world size 1 by the same one twice. Where they
differ, no state has changed yet: every rank computes it once more, all see all results, and the update is done again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raylr.planning.plan import Plan
from raylr.training.group import Group
from raylr.training.reduce import Node, micro_batches_of

Digest = tuple[int, ...]
Leaf = Callable[[Node, range], Tensor | None]
_WORDS = 4  # of 64 bits: SHA-256
_UNIT = 2**64


class Corrupted(Exception):
    """Two ranks differ in a micro-batch; the state is as it was before the update. `wrong` are group ranks.

    `disputed` are the two that contradict each other where nobody can tell who of them is wrong.
    """

    def __init__(self, micro_batch: int, wrong: tuple[int, ...], disputed: tuple[int, ...] = ()) -> None:
        super().__init__(f"micro-batch {micro_batch} came out differently")
        self.micro_batch, self.wrong, self.disputed = micro_batch, wrong, disputed


class Unreliable(RuntimeError):
    """This process has computed wrong too often: it is to be replaced as if it had died."""


@dataclass
class Check:
    """One comparison: a micro-batch, the group rank whose it is, the one that computes it too, and what this rank found."""

    index: int
    owner: int
    checker: int
    length: int  # of what is compared: gradient, statistics, loss and right answers
    device: torch.device
    found: list[Digest] = field(default_factory=list)

    def seen(self, node: Node, value: Tensor | None) -> Tensor | None:
        """A leaf of the tree as it is, whose digest is noted where it is this micro-batch."""
        if value is not None and node == (0, self.index):
            self._note(value)
        return value

    def compare(self, leaf: Leaf, release: Callable[[Tensor], None], group: Group) -> None:
        """Compute the micro-batch where it is this rank's turn, and compare. Raises Corrupted in all ranks alike."""
        if group.group_rank == self.checker:
            self._compute(leaf, release)
        if group.size == 1:
            if len(set(self.found)) > 1:
                raise Corrupted(self.index, (0,))
            return
        firsts = self._gathered(group)
        pair = {rank: firsts[rank] for rank in (self.owner, self.checker)}
        if len(set(pair.values())) == 1:
            return
        self._compute(leaf, release)
        wrong = who_is_wrong(pair, self._gathered(group))
        raise Corrupted(self.index, wrong, () if wrong else tuple(sorted(pair)))

    def _compute(self, leaf: Leaf, release: Callable[[Tensor], None]) -> None:
        value = leaf((0, self.index), range(self.index, self.index + 1))
        assert value is not None
        self._note(value)
        release(value)

    def _gathered(self, group: Group) -> list[Digest]:
        """What each rank found last; zeros of one that has computed nothing."""
        own = self.found[-1] if self.found else (0,) * _WORDS
        source = torch.tensor(own, dtype=torch.int64, device=self.device)
        output = source.new_empty(group.size * _WORDS)
        group.all_gather(output, source)
        values = group.read(output)
        return [tuple(values[rank * _WORDS : (rank + 1) * _WORDS]) for rank in range(group.size)]

    def _note(self, value: Tensor) -> None:
        self.found.append(digest(value[: self.length]))


def due(plan: Plan, position: int, num_micro: int, length: int, group: Group) -> Check | None:
    """The comparison of the update at `position`, if it is drawn; the same on all ranks."""
    if not plan.recheck:
        return None
    drawn = hashlib.sha256(f"recheck {plan.seed} {position}".encode()).digest()
    chance, which, who = (int.from_bytes(drawn[start : start + 8], "little") for start in (0, 8, 16))
    if chance >= plan.recheck * _UNIT:
        return None
    index = which % num_micro
    owner = next(rank for rank in range(group.size) if index in micro_batches_of(rank, group.size, num_micro))
    checker = owner if group.size == 1 else (owner + 1 + who % (group.size - 1)) % group.size
    return Check(index, owner, checker, length, torch.device(plan.device))


def who_is_wrong(firsts: Mapping[int, Digest], lasts: list[Digest]) -> tuple[int, ...]:
    """The ranks that are wrong, from the first results of two of them and the last ones of all; none where nobody can tell.

    What more than half of the ranks found last is right, and whoever has ever found something else is wrong. Without such
    a majority, as between two ranks, one that does not repeat its own result is wrong.
    """
    (best, votes), *_ = Counter(lasts).most_common(1)
    if 2 * votes > len(lasts):
        found = {rank: {last, firsts.get(rank, last)} for rank, last in enumerate(lasts)}
        return tuple(rank for rank, values in found.items() if values != {best})
    return tuple(rank for rank, first in sorted(firsts.items()) if first != lasts[rank])


@dataclass(frozen=True)
class Blame:
    """Who is taken for wrong after a difference, by group rank, whether that is certain, who of them is to be replaced, and
    the counts by process and the disputes from then on."""

    ranks: tuple[int, ...]
    certain: bool
    replaced: tuple[int, ...]
    counts: dict[str, int]
    disputes: dict[str, list[str]]


def blamed(
    found: Corrupted,
    names: Sequence[str],
    counts: Mapping[str, int],
    disputes: Mapping[str, Sequence[str]],
    max_corruptions: int,
) -> Blame:
    """Add a difference to the counts; `names` are those of the processes by group rank, as RANK/PID@HOST.

    Of two that contradict each other for good, nobody can tell who is wrong: the second one is taken for it. Once that has
    been replaced, its successor is the third computation: who is contradicted by two others, on another host where they
    are on other hosts, is wrong itself.
    """
    kept, ranks = {name: list(others) for name, others in disputes.items()}, found.wrong
    if found.disputed:
        for own, other in (found.disputed, found.disputed[::-1]):
            against = kept.setdefault(names[own], [])
            if (who := _seen_from(names[own], names[other])) not in against:
                against.append(who)
        ranks = tuple(rank for rank in found.disputed if len(kept[names[rank]]) > 1)
    certain, ranks = bool(ranks), ranks or found.disputed[1:]
    new = {**counts, **{names[rank]: counts.get(names[rank], 0) + 1 for rank in ranks}}
    return Blame(ranks, certain, tuple(rank for rank in ranks if new[names[rank]] > max_corruptions), new, kept)


def _seen_from(own: str, other: str) -> str:
    """Another process; all of a host are one, where that is not one's own."""
    host = other.partition("@")[2]
    return other if host == own.partition("@")[2] else host


def digest(values: Tensor) -> Digest:
    """SHA-256 of the bits of a vector, as four integers."""
    data = hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).digest()
    return tuple(int.from_bytes(data[8 * word : 8 * word + 8], "little", signed=True) for word in range(_WORDS))
