"""The plain path beside the tree: DistributedDataParallel, one forward pass per rank, gradients summed while they come.

Faster where communication matters, but the bits depend on the number of ranks. There is no re-forming: a lost worker
restarts all from the checkpoint.
"""

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from raylr.planning.plan import Plan
from raylr.training.group import Group
from raylr.training.seeding import seed_generators
from raylr.training.stream import examples_at, micro_batch_seed
from raylr.training.task_trainer import TaskTrainer
from raylr.training.trainer import EXTRAS, Trainer, Update


class DDPTrainer(Trainer):
    """A trainer whose update is DistributedDataParallel's."""

    own_statistics = False
    wrapped: Any = None

    def update(self, group: Group, has_orders: bool = False) -> Update:
        self.keep_first_snapshot()
        batch = self.plan.batch_at(group.size, self.position)
        start, stop = group.group_rank * batch // group.size, (group.group_rank + 1) * batch // group.size
        ids, epochs = examples_at(self.plan.seed, self.position + start, stop - start, self.plan.num_train)
        inputs, labels = self.batch(ids, epochs)
        seed_generators(self.device, micro_batch_seed(self.plan.seed, self.position, group.group_rank))
        model = self._wrap(group)
        self.to_training(model)
        with self.precision():
            output = model(inputs)
        loss = self.loss(output.float(), labels) * len(labels)
        extras = self.result[-EXTRAS:]
        num_correct = (output.detach().argmax(1) == labels).sum()
        extras[0], extras[1], extras[2] = loss.detach() / batch, num_correct, float(has_orders)
        summed = group.all_reduce(extras)  # while gradients are made
        for parameter in self.parameters:
            parameter.grad = None
        (loss * (group.size / batch)).backward()  # DDP averages over ranks; slices may differ by one example
        largest = float("inf") if self.plan.clip_norm is None else self.plan.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        summed()
        mean_loss, num_right, wanted, length = group.read(torch.cat((extras, norm.view(1))))
        return self._step(batch, group.size, mean_loss, num_right, wanted, length)

    def _wrap(self, group: Group) -> Any:
        if group.size == 1:
            return self.model
        if self.wrapped is None:
            self.wrapped = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        return self.wrapped


def trainer_for(plan: Plan) -> type[Trainer]:
    """The trainer of the plan's task, or the one that its `reduce` names."""
    if plan.task is not None:
        return TaskTrainer
    return DDPTrainer if plan.reduce == "ddp" else Trainer
