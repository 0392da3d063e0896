"""A sentinel against machines that compute wrong: now and then a micro-batch is computed by a second rank too, and compared.

Equal bits make the comparison exact. In an update that is drawn (from the seed and the position, so that all ranks draw the
same) one micro-batch is computed by its own rank and by another one, at world size 1 by the same one again. Where the two
differ, before any state has changed, every rank computes it once more (at world size 1 the one does), and all see all
results. What more than half of the ranks have found last is right, and whoever has ever found something else is wrong. Without
such a majority, as between two ranks that stand by different results, a rank whose own two results differ is wrong. Two
that each repeat themselves cannot tell: the second one counts as wrong, and once it has been replaced, its successor is the
third computation: a rank that two others have contradicted is wrong itself. In every case the update is done again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raylr.training.group import Group
from raylr.training.reduce import micro_batches_of

BITS = 2**64
DIGEST_WORDS = 4  # of 64 bits: SHA-256


class Unreliable(RuntimeError):
    """This process has computed wrong too often: it is to be replaced as if it had died."""


class Corrupted(Exception):
    """Ranks differ in a micro-batch; the state is as it was before the update. `wrong` are group ranks.

    `disputed` are the two that contradict each other where nobody can tell who is wrong.
    """

    def __init__(self, micro_batch: int, wrong: tuple[int, ...], disputed: tuple[int, ...]) -> None:
        super().__init__(f"micro-batch {micro_batch} came out differently")
        self.micro_batch, self.wrong, self.disputed = micro_batch, wrong, disputed


@dataclass
class Check:
    """One comparison: which micro-batch, whose it is, who computes it too, and what this rank has found."""

    index: int
    owner: int
    checker: int
    length: int
    first: Tensor | None = None

    def watching(self, leaf: Callable[[tuple[int, int], range], Tensor | None]) -> Callable[..., Tensor | None]:
        """`leaf`, which keeps the digest of this micro-batch when it comes by."""

        def watched(node: tuple[int, int], own: range) -> Tensor | None:
            found = leaf(node, own)
            if found is not None and node == (0, self.index):
                self.first = digest(found[: self.length])
            return found

        return watched

    def compare(self, again: Callable[[], Tensor], group: Group) -> None:
        """Compare this rank's result, if it has one, with the others'; `again` computes the micro-batch now.

        Raises Corrupted, in all ranks alike, where two differ.
        """

        def own() -> Tensor:
            return digest(again()[: self.length])

        alone = group.size == 1
        if group.group_rank == self.checker and not alone:
            self.first = own()
        firsts = [self.first, own()] if alone else gathered(self.first, group, again)
        found = {rank: value for rank, value in enumerate(map(words, firsts)) if value is not None}
        pair = (0, 1) if alone else (self.owner, self.checker)
        if found[pair[0]] == found[pair[1]]:
            return
        if alone:
            raise Corrupted(self.index, (0,), ())
        lasts = dict(enumerate(map(words, gathered(own(), group, again))))
        wrong = who_is_wrong({rank: found[rank] for rank in pair}, lasts)
        raise Corrupted(self.index, wrong, () if wrong else (min(pair), max(pair)))
