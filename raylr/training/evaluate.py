"""Loss and accuracy on the test examples, the same at any world size.

The examples are cut into fixed slices that are dealt to the ranks. A slice's sums are put into its own cell of a table that
is zero everywhere else, so adding up the ranks' tables is exact, and every rank adds the cells in the same order.
"""

import torch
import torch.nn.functional as F
from torch import nn

from raylr.planning.plan import Plan
from raylr.training.augment import Normalise
from raylr.training.feed import Split
from raylr.training.group import Group
from raylr.training.reduce import micro_batches_of
from raylr.training.trainer import Trainer, precision


def evaluate(trainer: Trainer, group: Group) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers (0..1) on the test set. Raises GroupBroken when a peer is gone."""
    trainer.statistics.restore()
    trainer.model.eval()
    return test(trainer.model, trainer.tests, trainer.normalise, trainer.plan, group)


@torch.no_grad()
def test(model: nn.Module, tests: Split, normalise: Normalise, plan: Plan, group: Group) -> tuple[float, float]:
    """The same of any model in evaluation mode and any test images, in the plan's slices and precision.

    With `eval_mirror` the mean output for an image and its mirror image counts, as others report for short training, too.
    """
    size, total = plan.eval_micro_size, len(tests.labels)
    num_slices = -(-total // size)
    table = torch.zeros(num_slices, 2, dtype=torch.float64, device=tests.device)
    for index in micro_batches_of(group.group_rank, group.size, num_slices):
        images, labels = tests.at(slice(index * size, min((index + 1) * size, total)))
        images = normalise(images)
        views = (images, images.flip(3)) if plan.eval_mirror else (images,)
        with precision(plan, tests.device.type):
            output = torch.stack([model(view).float() for view in views]).mean(0)
        table[index, 0] = F.cross_entropy(output, labels, reduction="sum")
        table[index, 1] = (output.argmax(1) == labels).sum()
    group.all_reduce(table)()
    loss, correct = table.cpu().sum(0).tolist()
    group.check()
    return loss / total, correct / total
