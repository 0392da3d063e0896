"""Metrics and hooks as a user writes them, for the tests."""

from pathlib import Path

import torch
from torch import Tensor


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """A value for each example: how far the label's logit is above the mean of all."""
    return logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)


class Recalls:
    """The mean over the classes of the share of right answers in each: sums by class, and a ratio of them."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        right = (logits.argmax(1) == labels).double()
        kinds = torch.nn.functional.one_hot(labels.long(), self.num_classes).double()
        return torch.cat([kinds.T @ right, kinds.sum(0)])

    def value(self, sums: Tensor) -> float:
        right, count = sums.split(self.num_classes)
        return (right / count.clamp(min=1)).mean().item()


def destroys(logits: Tensor, labels: Tensor) -> Tensor:
    """Zeros what it is given; nobody else may see that."""
    labels.zero_()
    return logits.zero_().sum(1)


def mean_of_all(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean()


def beside_others(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(0).gather(1, labels[:, None])[:, 0]


class Mean:
    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(1) == labels).double().mean().view(1)

    def value(self, sums: Tensor) -> float:
        return float(sums[0])


class Growing:
    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(1) == labels).double()

    def value(self, sums: Tensor) -> float:
        return float(sums.sum())


class NoNumber:
    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.zeros(2)

    def value(self, sums: Tensor) -> Tensor:
        return sums


def raises(logits: Tensor, labels: Tensor) -> Tensor:
    raise KeyError("no such thing")


NUMBER = 3


def worse(logits: Tensor, labels: Tensor) -> Tensor:
    """A metric that tells nothing apart: it never becomes better."""
    return torch.ones(len(labels))


def see(event: object, run_dir: str) -> None:
    """Leave a line for each event in a file beside the run's folder, and meddle with what is in reach."""
    torch.manual_seed(1)
    torch.rand(3)
    with Path(f"{run_dir}.seen").open("a") as file:
        print(event, file=file)


def breaks(event: object) -> None:
    raise ValueError("broken on purpose")


def of_two(event: object, other: object) -> None:
    """Needs what no hook gets."""
