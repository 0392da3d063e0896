"""Metrics of tests beside loss and accuracy: top-k, and one's own as `package.module:name`.

A metric is a number made of sums over examples, so it is the same at any number of workers and any size of the slices.
One's own is either a function of (logits [b, classes], labels [b]) that returns a value for each example, whose mean over the
test images is the metric, or an object (or a class, made with `num_classes` if it takes it) with

    sums(logits, labels)  a vector of sums over these examples, always of the same length
    value(sums)           the metric, from the sums over all test images

such as the counts of a confusion matrix, and the F1 of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from raylr.config.user_code import call_with, import_object
from raylr.errors import ConfigError
from raylr.planning.plan import Plan
from raylr.planning.watching import TOP, column

MAX_SUMS = 2**16  # numbers of one metric; each slice of the test images has its own
T = TypeVar("T")
NUM_TRIED, NUM_FIRST = 32, 13  # examples that one's own is tried on, at once and in two parts


@dataclass(frozen=True)
class Metric:
    """A metric as tests use it. `sums` are `width` of float64; `value` gets those of all examples, and how many there were."""

    name: str
    sums: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor, int], float]
    width: int = 1

    def of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Its sums over these examples. What it changes in place, nobody else sees."""
        found = self.sums(logits.clone(), labels.clone())
        if len(found) != self.width:
            raise ConfigError(
                f"metrics={self.name}: sums gives {len(found)} numbers for {len(labels)} examples and gave {self.width} for "
                f"{NUM_TRIED}; always give the same sums"
            )
        return found.to(logits.device)

    @property
    def column(self) -> str:
        """Its name in rows, results and events."""
        return column(self.name)


def top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """1 for each example whose label is among the k largest logits, else 0; of equal ones the first counts as larger.

    >>> top_k(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([2, 1]), k=2)
    tensor([1, 0])
    """
    own = logits.gather(1, labels[:, None])
    index = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (index < labels[:, None])) | logits.isnan()
    return ((before.sum(1) < k) & ~own[:, 0].isnan()).long()


@lru_cache
def metrics_of(names: tuple[str, ...], num_classes: int) -> tuple[Metric, ...]:
    """The metrics of these names. ConfigError for one's own that does not import, or is no metric."""
    return tuple(_metric(name, num_classes) for name in names)


def tried(plan: Plan) -> None:
    """Try one's own on noise, at once and in two parts. Raises ConfigError for what is no sum over examples."""
    for metric in metrics_of(plan.metrics, plan.num_classes):
        if ":" in metric.name:
            _try(metric, *_noise(plan.num_classes))


def _noise(num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of a few examples, of all classes in turn."""
    logits = torch.randn(NUM_TRIED, num_classes, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(NUM_TRIED) % num_classes


def _metric(name: str, num_classes: int) -> Metric:
    if top := TOP.fullmatch(name):
        k = int(top[1])
        return Metric(name, lambda logits, labels: top_k(logits, labels, k).sum().double().view(1), _mean)
    field, found = f"metrics={name}", import_object(name, "metrics")
    if isinstance(found, type):
        found = call_with(found, {"num_classes": num_classes}, field)
    if callable(getattr(found, "sums", None)) and callable(getattr(found, "value", None)):
        sums = _sums_of(found, field)
        width = len(_called(lambda: sums(*_noise(num_classes)), f"{field} on {NUM_TRIED} examples"))
        return Metric(name, sums, _value_of(found, field), width)
    if not callable(found):
        raise ConfigError(
            f"{field} is neither a function of (logits, labels) nor an object with sums and value; name one of the two"
        )
    return Metric(name, lambda logits, labels: _values(found, field, logits, labels).sum().view(1), _mean)


def _mean(sums: Tensor, count: int) -> float:
    return float(sums[0]) / count


def _values(function: Callable[[Tensor, Tensor], Any], field: str, logits: Tensor, labels: Tensor) -> Tensor:
    """What a function gives for each example, as float64."""
    found = function(logits, labels)
    if not isinstance(found, Tensor) or found.shape != labels.shape:
        raise ConfigError(
            f"{field} gives {_shape(found)} for {len(labels)} examples; return a value for each, ({len(labels)},), or name an "
            "object with sums(logits, labels) and value(sums)"
        )
    return found.double()


def _sums_of(found: Any, field: str) -> Callable[[Tensor, Tensor], Tensor]:
    def sums(logits: Tensor, labels: Tensor) -> Tensor:
        made = found.sums(logits, labels)
        if not isinstance(made, Tensor) or made.dim() != 1 or not 0 < len(made) <= MAX_SUMS:
            raise ConfigError(
                f"{field}: sums gives {_shape(made)}; return a vector of 1 to {MAX_SUMS:,} sums over the examples"
            )
        return made.double()

    return sums


def _value_of(found: Any, field: str) -> Callable[[Tensor, int], float]:
    def value(sums: Tensor, count: int) -> float:
        made = found.value(sums)
        try:
            return float(made)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(f"{field}: value gives {_shape(made)}; return one number") from None

    return value


def _try(metric: Metric, logits: Tensor, labels: Tensor) -> None:
    field = f"metrics={metric.name}"

    def on(part: slice) -> Tensor:
        return _called(lambda: metric.of(logits[part], labels[part]), f"{field} on {len(labels[part])} examples")

    whole, *parts = (on(part) for part in (slice(None), slice(NUM_FIRST), slice(NUM_FIRST, None)))
    if not torch.allclose(whole, sum(parts, torch.zeros_like(whole)), rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ConfigError(
            f"{field} is no sum over examples: {NUM_TRIED} at once give another one than {NUM_FIRST} and "
            f"{NUM_TRIED - NUM_FIRST}; return sums, and make a mean or a ratio of them in value(sums)"
        )
    _called(lambda: metric.value(whole, NUM_TRIED), f"{field}: value")


def _called(function: Callable[[], T], field: str) -> T:
    """What a function of one's own gives. ConfigError where it raises; our own refusals stay as they are."""
    try:
        found: T = call_with(function, {}, field)
    except ConfigError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise
    return found


def _shape(found: object) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
