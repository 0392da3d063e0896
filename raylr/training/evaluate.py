"""Loss and accuracy on the test examples, the same at any world size.

The examples are cut into fixed slices that are dealt to the ranks. A slice's sums are put into its own cell of a table that
is zero everywhere else, so adding up the ranks' tables is exact, and every rank adds the cells in the same order.
"""

import torch
import torch.nn.functional as F
from torch import nn

from raylr.planning.plan import Plan
from raylr.training.augment import to_input
from raylr.training.data import Dataset
from raylr.training.group import Group
from raylr.training.reduce import micro_batches_of
from raylr.training.trainer import Trainer, precision


def evaluate(trainer: Trainer, group: Group) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers (0..1) on the test set. Raises GroupBroken when a peer is gone."""
    trainer.statistics.restore()
    trainer.model.eval()
    return test(trainer.model, trainer.dataset, trainer.plan, group, trainer.device)


@torch.no_grad()
def test(model: nn.Module, data: Dataset, plan: Plan, group: Group, device: torch.device) -> tuple[float, float]:
    """The same of any model in evaluation mode and the test images of `data`, in the plan's slices and precision.

    With `eval_mirror` the mean output for an image and its mirror image counts, as others report for short training, too.
    """
    size, total = plan.eval_micro_size, len(data.test_labels)
    num_slices = -(-total // size)
    table = torch.zeros(num_slices, 2, dtype=torch.float64)
    for index in micro_batches_of(group.group_rank, group.size, num_slices):
        part = slice(index * size, min((index + 1) * size, total))
        images = to_input(torch.from_numpy(data.test_images[part]).to(device), data.mean, data.std)
        labels = torch.from_numpy(data.test_labels[part]).to(device)
        views = (images, images.flip(3)) if plan.eval_mirror else (images,)
        with precision(plan, device.type):
            output = torch.stack([model(view).float() for view in views]).mean(0)
        table[index, 0] = F.cross_entropy(output, labels, reduction="sum").cpu()
        table[index, 1] = (output.argmax(1) == labels).sum().cpu()
    table = table.to(device)
    group.all_reduce(table)()
    loss, correct = table.cpu().sum(0).tolist()
    group.check()
    return loss / total, correct / total
