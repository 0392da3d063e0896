"""Metrics and a hook of one's own. From the folder that holds `jobs`:

    raylr train --metrics top3,jobs.examples.own_metrics:confidence,jobs.examples.own_metrics:MacroF1
    raylr train --metrics jobs.examples.own_metrics:MacroF1 --stop.metric test_MacroF1 --stop.mode max --stop.patience 3ep
    raylr train --hooks.test jobs.examples.own_metrics:append_to_csv

With `ray job submit --working-dir .` every worker finds the file in the working directory.
"""

from pathlib import Path

import torch
from torch import Tensor

from raylr.events import Metrics


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability that the model gives its answer: one value for each example, whose mean is the metric."""
    return logits.softmax(1).amax(1)


class MacroF1:
    """The mean over the classes of the harmonic mean of precision and recall.

    A ratio is no sum, so the sums are the counts that it is made of: right answers, answers and labels of each class.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """3 x num_classes counts over these examples."""
        answers = logits.argmax(1)
        counted = (answers[answers == labels], answers, labels)
        return torch.cat([torch.bincount(one.long(), minlength=self.num_classes) for one in counted])

    def value(self, sums: Tensor) -> float:
        """F1 = 2 x right / (answers + labels), and 0 of a class that neither has."""
        right, answers, labels = sums.split(self.num_classes)
        return float((2 * right / (answers + labels).clamp(min=1)).mean())


def append_to_csv(event: Metrics, run_dir: str) -> None:
    """A hook of tests: a line of a table beside the run's own files."""
    with (Path(run_dir) / "tests.csv").open("a") as table:
        print(f"{event.epoch:.3f},{event.test_loss:.4f},{event.test_accuracy:.4f}", file=table)
