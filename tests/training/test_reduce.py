"""The tree sum: one value at any number of ranks, checked against sums written out by hand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.training.reduce import cover, micro_batches_of, reduce_tree, root, tree_sum


class ChunkExchange:
    """Ranks in one process: what `all_to_all` and `all_gather` do, played from everybody's buffers one rank at a time."""

    def __init__(self, size: int) -> None:
        self.size, self.sent, self.gathered = size, {}, {}

    def at(self, group_rank: int, playing: bool) -> "Membership":
        return Membership(self, group_rank, playing)


class Membership:
    def __init__(self, exchange: ChunkExchange, group_rank: int, playing: bool) -> None:
        self.exchange, self.group_rank, self.size, self.playing = exchange, group_rank, exchange.size, playing

    def all_to_all(self, output, source, output_splits, source_splits):
        self.exchange.sent[self.group_rank] = source.clone().split(source_splits)
        if self.playing:
            output.copy_(
                torch.cat([self.exchange.sent[group_rank][self.group_rank] for group_rank in range(self.size)])
            )

    def all_gather(self, output, source):
        self.exchange.gathered[self.group_rank] = source.clone()
        if len(self.exchange.gathered) == self.size and self.playing:
            output.copy_(torch.cat([self.exchange.gathered[group_rank] for group_rank in range(self.size)]))


def reduce_over(leaves: list[torch.Tensor], size: int) -> torch.Tensor:
    """The result of `reduce_tree` at `size` ranks."""
    num_micro, length, exchange = len(leaves), len(leaves[0]), ChunkExchange(size)
    padded = [torch.cat([leaf, torch.zeros(num_micro)]) for leaf in leaves]
    result = torch.zeros(length + num_micro)
    for playing in (False, True, True):  # what is sent first, then the chunks' sums, then the gathered whole
        for group_rank in range(size):
            own = micro_batches_of(group_rank, size, num_micro)
            known = lambda node: padded[node[1]].clone() if node[0] == 0 else None  # noqa: E731
            nodes = [
                tree_sum(node, num_micro, known, lambda _: None) for node in cover(root(num_micro), own, num_micro)
            ]
            reduce_tree(nodes, result, length, num_micro, exchange.at(group_rank, playing))
    return result[:length]


def by_hand(v: list[torch.Tensor]) -> torch.Tensor:
    return {
        1: lambda: v[0],
        2: lambda: v[0] + v[1],
        3: lambda: (v[0] + v[1]) + v[2],
        4: lambda: (v[0] + v[1]) + (v[2] + v[3]),
        5: lambda: ((v[0] + v[1]) + (v[2] + v[3])) + v[4],
        6: lambda: ((v[0] + v[1]) + (v[2] + v[3])) + (v[4] + v[5]),
        7: lambda: ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + v[6]),
    }[len(v)]()


def leaves_of(num_micro: int, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(11, generator=random) * 10.0 ** (index % 5) for index in range(num_micro)]


def test_sum_is_the_tree_written_out_by_hand_at_every_number_of_ranks():
    for num_micro in range(1, 8):
        leaves = leaves_of(num_micro)
        for size in range(1, num_micro + 1):
            assert torch.equal(reduce_over(leaves, size), by_hand(leaves)), (num_micro, size)


def test_a_sum_in_another_order_has_other_bits():
    leaves = leaves_of(4)
    assert not torch.equal(by_hand(leaves), ((leaves[0] + leaves[1]) + leaves[2]) + leaves[3])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.data())
def test_ranks_cover_every_micro_batch_once(num_micro, data):
    size = data.draw(st.integers(1, num_micro))
    ranges = [micro_batches_of(group_rank, size, num_micro) for group_rank in range(size)]
    assert [index for one in ranges for index in one] == list(range(num_micro))
    leaves = [
        index
        for own in ranges
        for level, node in cover(root(num_micro), own, num_micro)
        for index in range(node << level, min((node + 1) << level, num_micro))
    ]
    assert leaves == list(range(num_micro))


def test_powers_of_two_send_one_node_per_rank():
    assert all(len(cover(root(8), micro_batches_of(group_rank, 4, 8), 8)) == 1 for group_rank in range(4))
