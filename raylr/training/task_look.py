"""The look at a task of one's own before anything starts: what would bend its bits, its LR or its metrics is refused.

Fresh tasks are asked for the same small batch, under other global generators, as another rank, in two parts; the loss is
computed of a batch and of the same twice, the sums of a test at once and in two parts. All on the CPU, in float32.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raylr.errors import ConfigError
from raylr.planning.plan import Plan, TaskPlan
from raylr.planning.watching import as_tested
from raylr.training.check import NO_KERNEL
from raylr.training.data import Dataset
from raylr.training.data.dataset import noise_like
from raylr.training.global_generators import kept, seed_all
from raylr.training.optimizers import tried_optimizers
from raylr.training.task import Batch, Task, bits, called, losses, made, test_batch, train_batch
from raylr.training.task_trainer import phases_of, scores_of

NUM_TRIED, NUM_FIRST = 8, 3  # examples at once, and in the first of two parts
Ask = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]
RANK_NAMES = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


def look(plan: Plan) -> bool:
    """Try the plan's task; returns whether its model has BatchNorm. Raises ConfigError, one line, for what it must not do."""
    try:
        return _look(plan)
    except ConfigError as error:
        if plan.device == "cpu" or NO_KERNEL not in str(error):
            raise
    return False  # a kernel that the CPU lacks says nothing about a GPU


def _look(plan: Plan) -> bool:
    assert plan.task is not None
    with kept():
        task = made(plan.task, _dataset(plan))
        field = f"task={plan.task.name}"
        batch = _batch(plan, plan.task, task, field)
        torch.manual_seed(plan.seed)
        model = called(task.model, f"{field}: model")
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{field}: model gives a {type(model).__name__}; return a torch.nn.Module")
        phases = phases_of(task, model, tried_optimizers(model, plan.optimizers), plan)
        for phase in phases:
            _loss(task, phase.name, model, batch, field)
        _test(plan, task, model, field)
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _dataset(plan: Plan) -> Dataset | None:
    """Noise in the shape of the run's images, for a task that takes a data set."""
    if plan.task is None or not plan.task.takes_dataset:
        return None
    return noise_like(plan.image_shape, plan.class_names or ("0",))


def _batch(plan: Plan, named: TaskPlan, task: Task, field: str) -> Batch:
    """A batch, once it is known to be a function of ids, epochs and seed."""
    ids = np.unique(np.linspace(0, task.num_train - 1, NUM_TRIED).astype(np.int64))
    epochs = np.arange(len(ids)) % 2

    def ask(of: Task, part: slice = slice(None), seed: int = 0) -> Batch:
        seed_all(seed)
        return called(lambda: train_batch(of, ids[part].copy(), epochs[part].copy(), plan.seed), f"{field}: batch")

    def require(same: Batch, why: str, instead: str) -> None:
        if list(map(bits, first)) != list(map(bits, same)):
            raise ConfigError(f"{field}: batch {why}; {instead}")

    first = ask(task)
    _check_rows(first, len(ids), f"{field}: batch")
    require(ask(task), "gives other values when it is called again", "let no call change the task")
    fresh = made(named, _dataset(plan))
    alone = "let it depend on ids, epochs and seed alone"
    require(ask(fresh, seed=1), "draws from a global generator", f"{alone} (raylr.training.task.normal gives noise)")
    with _another_rank():
        require(ask(made(named, _dataset(plan))), "follows the rank", alone)
    if len(ids) > NUM_FIRST:
        parts = ask(task, slice(NUM_FIRST)), ask(task, slice(NUM_FIRST, None))
        whole = tuple(torch.cat(pair) for pair in zip(*parts, strict=True))
        if not _close(first, whole):
            raise ConfigError(
                f"{field}: a row of batch depends on the other rows; let it depend on its own id, epoch and seed"
            )
    return first


def _loss(task: Task, phase: str, model: nn.Module, batch: Batch, field: str) -> None:
    """The loss must be one number with a gradient, a function of model and batch and torch's generator."""
    name, ask = _asking(task, phase, model, field)
    model.train()
    loss, sums = ask(batch)
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ConfigError(f"{name} returns {found}, not one number with a gradient; return the mean over the examples")
    if not loss.isfinite():
        raise ConfigError(f"{name} is {loss.item()} with fresh weights; return a finite loss")
    for key, value in sums.items():
        if value.numel() != 1:
            raise ConfigError(f"{name}: its sum {key} has shape {tuple(value.shape)}; give one number")
    if bits(ask(batch, others=1)[0]) != bits(loss):
        raise ConfigError(
            f"{name} differs in a second call under the same seed; draw from torch's generator alone, and keep nothing "
            "between calls"
        )
    _mean(model, batch, name, ask)


def _mean(model: nn.Module, batch: Batch, name: str, ask: Ask) -> None:
    """Of the same batch twice a mean is the same, and a sum is the double; a loss that draws is compared roughly."""
    model.eval()
    (once, small), (other, _), (twice, large) = ask(batch), ask(batch, seed=1), ask(_twice(batch))
    draws = bits(once) != bits(other)
    change = (twice - (2 * once if draws else once)).abs()
    if change < 0.1 * once.abs() if draws else change > 1e-6 + 1e-3 * once.abs():
        raise ConfigError(f"{name} grows with the number of examples; return the mean over them")
    for key, value in small.items():
        if not draws and not torch.isclose(2 * value.double(), large[key].double(), rtol=1e-3, atol=1e-6):
            raise ConfigError(f"{name}: its sum {key} is none over examples: twice the batch does not double it")


def _asking(task: Task, phase: str, model: nn.Module, field: str) -> tuple[str, Ask]:
    """The name of a phase's loss in messages, and what asks for it under seeds of torch's and the other generators."""
    name = f"{field}: {phase}_loss" if phase else f"{field}: loss"

    def ask(batch: Batch, seed: int = 0, others: int = 0) -> tuple[Tensor, Mapping[str, Tensor]]:
        seed_all(others)
        torch.manual_seed(seed)
        return called(lambda: losses(task, phase, model, batch), f"{name} on {len(batch[0])} examples")

    return name, ask


def _test(plan: Plan, task: Task, model: nn.Module, field: str) -> None:
    """What a test gives must be sums over examples, from which the metrics and the score come."""
    count = min(NUM_TRIED, task.num_test)
    model.eval()

    def ask(first: int, end: int) -> Mapping[str, Tensor]:
        batch = called(lambda: test_batch(task, first, end), f"{field}: test_batch")
        _check_rows(batch, end - first, f"{field}: test_batch")
        with torch.no_grad():
            seed_all(0)
            found = called(lambda: task.test(model, batch), f"{field}: test on {end - first} examples")
        if not isinstance(found, Mapping) or "loss" not in found:
            raise ConfigError(f"{field}: test gives no loss among its sums; return a dict of sums with the key loss")
        return {name: torch.as_tensor(value).detach().double() for name, value in found.items()}

    whole = ask(0, count)
    if count > NUM_FIRST:
        first, second = ask(0, NUM_FIRST), ask(NUM_FIRST, count)
        for name, value in whole.items():
            parts = first.get(name), second.get(name)
            if parts[0] is None or parts[1] is None or parts[0].shape != value.shape or parts[1].shape != value.shape:
                raise ConfigError(
                    f"{field}: the sum {name} of test has another shape for {NUM_FIRST} examples; give the same"
                )
            if not torch.allclose(parts[0] + parts[1], value, rtol=1e-3, atol=1e-5, equal_nan=True):
                raise ConfigError(
                    f"{field}: {name} of test is no sum over examples: {count} at once give another one than {NUM_FIRST} and "
                    f"{count - NUM_FIRST}; return sums, and make a mean or a ratio of them in metrics"
                )
    scores = called(lambda: scores_of(task, whole, count), f"{field}: metrics")
    known = ["test_loss", *(["test_accuracy"] if scores.accuracy is not None else []), *scores.own]
    for section, watched in (("stop", plan.stop), ("lr.plateau", plan.plateau)):
        if watched is not None and as_tested(watched.metric) not in known:
            raise ConfigError(
                f"{section}.metric={watched.metric} is not measured by {field}; use one of {', '.join(known)}"
            )


def _check_rows(batch: Batch, count: int, told: str) -> None:
    if not batch or not all(isinstance(one, Tensor) for one in batch):
        raise ConfigError(f"{told} gives no tensors; return a tuple of tensors")
    if other := [one for one in batch if one.dim() == 0 or len(one) != count]:
        shape = tuple(other[0].shape)
        raise ConfigError(f"{told} gives a tensor of shape {shape} for {count} examples; give one row for each")


def _close(first: Batch, other: Batch) -> bool:
    """Equal, or within rounding where they are not whole numbers."""
    return len(first) == len(other) and all(
        one.shape == two.shape
        and (torch.allclose(one, two, rtol=1e-4, atol=1e-6) if one.is_floating_point() else torch.equal(one, two))
        for one, two in zip(first, other, strict=True)
    )


def _twice(batch: Batch) -> Batch:
    return tuple(torch.cat([one, one]) for one in batch)


@contextmanager
def _another_rank() -> Iterator[None]:
    """Let the process look as if it were another rank."""
    before = {name: os.environ.get(name) for name in RANK_NAMES}
    os.environ.update({name: str(int(value or 0) + 1) for name, value in before.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})
