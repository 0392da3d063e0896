"""One sum at any world size: a fixed binary tree over the index of the micro-batch.

Floating-point addition is not associative, so a sum has one value only if its order is fixed. Ours is the tree in which
node (level, index) is the sum of its two children, and a leaf (0, i) is micro-batch i; with M leaves that are no power of
two, a child that covers no leaf is left out. A rank computes the largest whole nodes inside its own range of micro-batches;
chunks of them are exchanged all to all, every rank finishes the tree for its chunk, and the chunks are gathered. Two ranks
send each other all their nodes instead: one exchange, and no more bytes where each has one node.
Known from research as fixed virtual workers (VirtualFlow, MLSys 2022; EasyScale, SC 2024).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raylr.training.group import Group

Node = tuple[int, int]  # (level, index)


def micro_batches_of(group_rank: int, size: int, num_micro: int) -> range:
    """The contiguous micro-batches of one rank.

    >>> [list(micro_batches_of(group_rank, 3, 4)) for group_rank in range(3)]
    [[0], [1], [2, 3]]
    """
    return range(group_rank * num_micro // size, (group_rank + 1) * num_micro // size)


def root(num_micro: int) -> Node:
    return (num_micro - 1).bit_length(), 0


def cover(node: Node, own: range, num_micro: int) -> list[Node]:
    """The largest nodes under `node` whose leaves all lie in `own`, in order.

    >>> cover(root(8), range(1, 6), 8)
    [(0, 1), (1, 1), (1, 2)]
    """
    level, index = node
    low, high = index << level, min((index + 1) << level, num_micro)
    if low >= high or high <= own.start or low >= own.stop:
        return []
    if own.start <= low and high <= own.stop:
        return [node]
    return cover((level - 1, 2 * index), own, num_micro) + cover((level - 1, 2 * index + 1), own, num_micro)


def tree_sum(
    node: Node, num_micro: int, known: Callable[[Node], Tensor | None], release: Callable[[Tensor], None]
) -> Tensor:
    """The sum under `node`, depth first: `known` gives a node's value or None; the right operand is released once added."""
    value = known(node)
    if value is not None:
        return value
    level, index = node
    left = tree_sum((level - 1, 2 * index), num_micro, known, release)
    if (2 * index + 1) << (level - 1) < num_micro:
        right = tree_sum((level - 1, 2 * index + 1), num_micro, known, release)
        left.add_(right)
        release(right)
    return left


def reduce_tree(nodes: list[Tensor], result: Tensor, length: int, num_micro: int, group: Group) -> None:
    """Write the sum over all ranks into `result[:length]`.

    `nodes` holds this rank's values of `cover(root, own range)`, each with room for at least
    `length + group.size` elements, as has `result`; none of a rank without a micro-batch, which takes part in the sum all
    the same. Raises GroupBroken when a peer is gone.
    """
    if group.size == 1:
        result[:length].copy_(nodes[0][:length])
        return
    nodes_of = [
        cover(root(num_micro), micro_batches_of(group_rank, group.size, num_micro), num_micro)
        for group_rank in range(group.size)
    ]
    if group.size == 2:
        result[:length].copy_(
            _sum_of_two([node[:length] for node in nodes], result[:length], nodes_of, num_micro, group)
        )
        return
    chunk = -(-length // group.size)
    parts = [node[: chunk * group.size].view(group.size, chunk) for node in nodes]
    source = result[:0]
    if parts:
        source = parts[0].flatten() if len(parts) == 1 else torch.stack(parts, dim=1).flatten()
    sizes = [len(theirs) * chunk for theirs in nodes_of]
    received = source.new_empty(sum(sizes))
    group.all_to_all(received, source, sizes, [len(nodes) * chunk] * group.size)
    names = [node for theirs in nodes_of for node in theirs]
    total = _finished(names, received.view(-1, chunk).unbind(0), num_micro)
    group.all_gather(result[: chunk * group.size], total.contiguous())


def _sum_of_two(nodes: list[Tensor], like: Tensor, nodes_of: list[list[Node]], num_micro: int, group: Group) -> Tensor:
    own, peer = group.group_rank, 1 - group.group_rank
    source = nodes[0] if len(nodes) == 1 else torch.cat([like[:0], *nodes])
    received = like.new_empty(len(nodes_of[peer]) * len(like))
    sent, got = [0, 0], [0, 0]
    sent[peer], got[peer] = len(source), len(received)
    group.all_to_all(received, source, got, sent)
    values = *nodes, *received.view(-1, len(like)).unbind(0)
    return _finished([*nodes_of[own], *nodes_of[peer]], values, num_micro)


def _finished(names: list[Node], values: Sequence[Tensor], num_micro: int) -> Tensor:
    """The tree's sum from its largest known nodes."""
    return tree_sum(root(num_micro), num_micro, dict(zip(names, values, strict=True)).get, lambda _: None)
