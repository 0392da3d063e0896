"""Loss, accuracy and other metrics on the test examples, the same at any world size.

The examples are cut into fixed slices that are dealt to the ranks. A slice's sums are put into its own cell of a table that
is zero everywhere else, so adding up the ranks' tables is exact, and every rank adds the cells in the same order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.planning.plan import Plan
from raylr.training.augment import Normalise
from raylr.training.averaging import beside
from raylr.training.feed import Split
from raylr.training.group import Group
from raylr.training.metrics import metrics_of
from raylr.training.reduce import micro_batches_of
from raylr.training.scores import Scores
from raylr.training.task_trainer import TaskTrainer, test_task
from raylr.training.trainer import Trainer, precision


def evaluate(trainer: Trainer, group: Group, at_end: bool = False) -> Scores:
    """The trainer's weights on the images that the run is tested on. Raises GroupBroken when a peer is gone.

    `at_end`: on the test set, of a run that was tested on a validation split until here. With `eval.average` the scores have
    those of the average of the weights beside them; with Schedule-Free they are those of the weights that it shows.
    """
    trainer.statistics.restore()
    if trainer.shown is not None:
        with trainer.shown.in_place(trainer, group, trainer.optimizer_state()):
            return _tested(trainer, group, at_end)
    trainer.model.eval()
    tested = _tested(trainer, group, at_end)
    if trainer.average is None:
        return tested
    with trainer.average.in_place(trainer, group):
        return beside(tested, _tested(trainer, group, at_end))


def _tested(trainer: Trainer, group: Group, at_end: bool) -> Scores:
    """The scores of what is in the trainer's model."""
    if isinstance(trainer, TaskTrainer):
        return test_task(trainer.model, trainer.tested(at_end), trainer.plan, group)
    whole = trainer.dataset.whole if at_end else None
    tests = trainer.tests if whole is None else Split(whole.test_images, whole.test_labels, trainer.device)
    return test(trainer.model, tests, trainer.normalise, trainer.plan, group)


def mean_output(model: nn.Module, images: Tensor, views: str) -> Tensor:
    """Mean logits, float32 [b, num_classes], for views of images [b, channels, H, W].

    `none`: the image itself. `mirror`: it and its mirror image. `mirror_translate`: both (half of the weight), and both as
    a window moved by a pixel up and left or down and right in the image with a reflected border (a quarter each), the six
    views of airbench (Jordan 2024, arXiv 2404.00498).
    """
    if views != "mirror_translate":
        return _mean_of_sides(model, images, views)
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    corners = padded[..., :height, :width], padded[..., 2:, 2:]
    moved = [_mean_of_sides(model, corner, "mirror") for corner in corners]
    return 0.5 * _mean_of_sides(model, images, "mirror") + 0.25 * moved[0] + 0.25 * moved[1]


def _mean_of_sides(model: nn.Module, images: Tensor, views: str) -> Tensor:
    sides = (images, images.flip(3)) if views == "mirror" else (images,)
    return torch.stack([model(side).float() for side in sides]).mean(0)


@torch.no_grad()
def test(model: nn.Module, tests: Split, normalise: Normalise, plan: Plan, group: Group) -> Scores:
    """The same of any model in evaluation mode and any test images, in the plan's slices and precision.

    With `eval_views` the mean output for several views of an image counts, as others report for short training, too.
    """
    size, total = plan.eval_micro_size, len(tests.labels)
    num_slices = -(-total // size)
    metrics = metrics_of(plan.metrics, plan.num_classes)
    width = sum(metric.width for metric in metrics)
    table = torch.zeros(num_slices, 2 + width, dtype=torch.float64, device=tests.device)
    for index in micro_batches_of(group.group_rank, group.size, num_slices):
        images, labels = tests.at(slice(index * size, min((index + 1) * size, total)))
        images = normalise(images)
        with precision(plan, tests.device.type):
            output = mean_output(model, images, plan.eval_views)
        table[index, 0] = F.cross_entropy(output, labels, reduction="sum")
        table[index, 1] = (output.argmax(1) == labels).sum()
        if metrics:
            table[index, 2:] = torch.cat([metric.of(output, labels) for metric in metrics])
    group.all_reduce(table)()
    table = table.cpu()
    loss, correct = table[:, :2].clone().sum(0).tolist()  # as if there were no others, so that they change no bit
    group.check()
    sums = table[:, 2:].sum(0).split([metric.width for metric in metrics])
    own = {metric.column: metric.value(mine, total) for metric, mine in zip(metrics, sums, strict=True)}
    return Scores(loss / total, correct / total, own)
