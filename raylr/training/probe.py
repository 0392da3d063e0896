"""The loss of an update's examples at whatever weights the model has, by forward passes alone.

Summed over all ranks as the update itself is, by the fixed tree, so it is the same number at every world size. What a forward
pass leaves behind in the model and in the random generators is put back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raylr.training.group import Group
from raylr.training.reduce import Node, cover, micro_batches_of, reduce_tree, root, tree_sum
from raylr.training.seeding import seed_generators
from raylr.training.stream import micro_batch_seed

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer


class LossProbe:
    """Gives the mean loss over the global batch at `position`, each micro-batch with the dropout that its update had."""

    def __init__(self, trainer: "Trainer", position: int, group: Group) -> None:
        self.trainer, self.position, self.group = trainer, position, group
        self.num_micro = trainer.plan.batch_at(group.size, position) // trainer.plan.micro_size
        self.own = micro_batches_of(group.group_rank, group.size, self.num_micro)
        self.examples = {index: self._examples(index) for index in self.own}
        self.passes = 0

    def _examples(self, index: int) -> tuple[Tensor, Tensor]:
        """Copies of a micro-batch's: on a GPU the next ones take their place."""
        images, labels = self.trainer.feed.micro_batch(self.position, index, self.own)
        return images.clone(), labels.clone()

    @torch.no_grad()
    def __call__(self) -> float:
        """Pass the examples forwards once. Raises GroupBroken when a peer is gone."""
        return float(self.group.read(self._summed(self._leaf, 1)[:1])[0]) / self.num_micro

    def _summed(self, leaf: Callable[[Node], Tensor | None], length: int) -> Tensor:
        """The sum of `length` values of each micro-batch over all ranks, and room for the ranks behind it."""
        self.passes += 1
        result = torch.zeros(length + self.group.size, device=self.trainer.device)
        nodes = [
            tree_sum(node, self.num_micro, leaf, lambda _: None)
            for node in cover(root(self.num_micro), self.own, self.num_micro)
        ]
        reduce_tree(nodes, result, length, self.num_micro, self.group)
        return result

    def _leaf(self, node: Node) -> Tensor | None:
        level, index = node
        if level > 0:
            return None
        trainer = self.trainer
        images, labels = self.examples[index]
        seed_generators(trainer.device, micro_batch_seed(trainer.plan.seed, self.position, index))
        with trainer.precision():
            output = trainer.model(trainer.normalise(images))
        found = torch.zeros(1 + self.group.size, device=trainer.device)
        found[0] = trainer.loss(output.float(), labels)
        return found


@contextmanager
def untouched(trainer: "Trainer") -> Iterator[None]:
    """Put weights, buffers and random generators back to what they were, whatever is done to them inside."""
    tensors: list[Tensor] = [*trainer.model.parameters(), *trainer.model.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, kept, strict=True):
                    tensor.copy_(value)
