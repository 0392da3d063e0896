"""Loss and accuracy on the test examples, the same at any world size.

The examples are cut into fixed slices that are dealt to the ranks. A slice's sums are put into its own cell of a table that
is zero everywhere else, so adding up the ranks' tables is exact, and every rank adds the cells in the same order.
"""

import torch
import torch.nn.functional as F

from raylr.training.augment import to_input
from raylr.training.group import Group
from raylr.training.reduce import micro_batches_of
from raylr.training.trainer import Trainer


@torch.no_grad()
def evaluate(trainer: Trainer, group: Group) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers (0..1) on the test set. Raises GroupBroken when a peer is gone."""
    data, size, total = trainer.dataset, trainer.plan.eval_micro_size, trainer.plan.num_test
    num_slices = -(-total // size)
    table = torch.zeros(num_slices, 2, dtype=torch.float64)
    trainer.statistics.restore()
    trainer.model.eval()
    for index in micro_batches_of(group.place, group.size, num_slices):
        part = slice(index * size, min((index + 1) * size, total))
        images = to_input(torch.from_numpy(data.test_images[part]).to(trainer.device), data.mean, data.std)
        labels = torch.from_numpy(data.test_labels[part]).to(trainer.device)
        with trainer.precision():
            output = trainer.model(images)
        table[index, 0] = F.cross_entropy(output.float(), labels, reduction="sum").cpu()
        table[index, 1] = (output.argmax(1) == labels).sum().cpu()
    table = table.to(trainer.device)
    group.all_reduce(table)
    loss, correct = table.cpu().sum(0).tolist()
    return loss / total, correct / total
