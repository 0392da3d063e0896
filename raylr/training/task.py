"""A task of one's own, `--task package.module:Task`: what the engine asks of it, and nothing else.

    class Parabola(raylr.Task):
        num_train, num_test = 1000, 100

        def model(self): return torch.nn.Linear(1, 1)
        def batch(self, ids, epochs, seed): x = ids[:, None] / 1000; return x, x**2
        def test_batch(self, ids): return self.batch(ids, ids, 0)
        def loss(self, model, batch): x, y = batch; return ((model(x) - y) ** 2).mean()
        def test(self, model, batch): x, y = batch; return {"loss": ((model(x) - y) ** 2).sum()}

The engine keeps what is raylr's own: which examples come when, the sum over micro-batches in a tree, the LR, the guard,
checkpoints, forks and populations. In return a task is a pure function: no collectives, no state that a call changes, no
random numbers but torch's, which are seeded before each micro-batch from its place in the run.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raylr.config.own_task import made_settings, task_class
from raylr.config.user_code import call_with
from raylr.errors import ConfigError
from raylr.planning.plan import TaskPlan
from raylr.planning.watching import column
from raylr.training.splitmix import splitmix64, start_state

NUM_HASHED = 64  # examples of each split in the checksum of a task that has none of its own
NOISE = 31  # a purpose of random numbers: see raylr.training.stream
Batch = tuple[Tensor, ...]
T = TypeVar("T")


class Task:
    """A task. Subclass it and give the five methods and the two numbers; all else has a default.

    It is made with its settings alone, or also with `dataset` where its `__init__` takes one of that name: a
    `raylr.training.data.Dataset` of the images that `data.source` names, on whose examples it then trains.
    """

    @dataclass(frozen=True)
    class Settings:
        """Fields of the config below `task.`: int, float, str, bool or Path, `field(default, metadata={"help": ...})`."""

    defaults: ClassVar[Mapping[str, Any]] = {}  # fields of the config by dotted key, where the user gives nothing else
    score: ClassVar[tuple[str, str]] = ("loss", "min")  # a metric of tests, and what is better of it: min or max
    sums: ClassVar[tuple[str, ...]] = ()  # names of what `loss` gives beside the loss
    phases: ClassVar[tuple[str, ...]] = ()  # parts of the model, by name, that train one after another in each update
    dataset: Any = None  # what a task that takes one was made with
    num_train: int
    num_test: int
    data_sha256: str = ""  # of its data, if it knows; else of what it gives for a few examples

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def model(self) -> nn.Module:
        """Return a new network. torch's generator has been seeded."""
        raise NotImplementedError

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> Any:
        """Return a tuple of tensors on the CPU, one row for each of these training examples in these epochs.

        `ids` and `epochs` are int64 [b]. A row depends on its own id, its epoch and the seed alone.
        """
        raise NotImplementedError

    def test_batch(self, ids: Tensor) -> Any:
        """Return a tuple of tensors on the CPU, one row for each of these test examples."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Any) -> Any:
        """Return the mean loss over the batch, with its gradient; beside it, in a tuple, a dict of the `sums`.

        With `phases` there is a method `PHASE_loss` for each in place of this one.
        """
        raise NotImplementedError

    def test(self, model: Any, batch: Any) -> Any:
        """Return sums over these test examples by name, numbers or vectors; one of them is `loss`."""
        raise NotImplementedError

    def metrics(self, sums: Mapping[str, Tensor], num_test: int) -> Mapping[str, float]:
        """Return the metrics by name, from the sums over all test examples, float64; by default means."""
        return {name: float(value) / num_test for name, value in sums.items() if value.numel() == 1}

    def pictures(self, model: Any) -> Mapping[str, Tensor]:
        """Return pictures to keep of each test by name, uint8 [H, W, 3] or [H, W]; by default none."""
        return {}


def plan_of(name: str, settings: Mapping[str, Any]) -> TaskPlan:
    """The task in plain numbers, from its class alone. ConfigError for a class that is no task."""
    cls = task_class(name)
    if not issubclass(cls, Task):
        raise ConfigError(f"task={name} is no raylr.Task; write class {cls.__name__}(raylr.Task)")
    found = cls.score
    if not (isinstance(found, tuple) and len(found) == 2 and found[1] in ("min", "max")):
        raise ConfigError(f'task={name}: its score={found} is no metric and what is better of it; use ("loss", "min")')
    return TaskPlan(
        name=name,
        settings=dict(settings),
        score=column(found[0]),
        mode=found[1],
        phases=_words(cls.phases, name, "phases"),
        takes_dataset="dataset" in inspect.signature(cls.__init__).parameters,
    )


def _words(found: object, name: str, field: str) -> tuple[str, ...]:
    if not isinstance(found, tuple) or not all(isinstance(one, str) and one.isidentifier() for one in found):
        raise ConfigError(f"task={name}: its {field}={found!r} are no tuple of names; use ({found!r},), say")
    return found


def made(plan: TaskPlan, dataset: Any = None) -> Task:
    """A new task. ConfigError for one that cannot be made, or does not know how many examples it has."""
    cls, field = task_class(plan.name), f"task={plan.name}"
    offered: dict[str, object] = {"settings": made_settings(plan.name, plan.settings)}
    if plan.takes_dataset:
        offered["dataset"] = dataset
    task: Task = call_with(cls, offered, field)
    if plan.takes_dataset:
        task.dataset = dataset
        task.num_train, task.num_test = len(dataset.train_labels), len(dataset.test_labels)
    for name in ("num_train", "num_test"):
        count = getattr(task, name, None)
        if not isinstance(count, int) or count < 1:
            raise ConfigError(f"{field}: its {name}={count} is no number of examples; set it to 1 or more in __init__")
    _words(task.sums, plan.name, "sums")
    return task


def train_batch(task: Task, ids: "np.ndarray[Any, Any]", epochs: "np.ndarray[Any, Any]", seed: int) -> Batch:
    """What a task gives for these training examples, as a tuple."""
    return as_tuple(task.batch(torch.from_numpy(ids), torch.from_numpy(epochs), seed))


def test_batch(task: Task, first: int, end: int) -> Batch:
    """What a task gives for the test examples in [first, end)."""
    return as_tuple(task.test_batch(torch.arange(first, end)))


def as_tuple(found: Any) -> Batch:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def losses(task: Task, phase: str, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss of a phase and its sums, all that a task has in their order: zero where the phase does not give one."""
    found = (getattr(task, f"{phase}_loss") if phase else task.loss)(model, batch)
    loss, given = found if isinstance(found, tuple) else (found, {})
    if unknown := given.keys() - set(task.sums):
        raise ConfigError(f"it gives the sum {min(unknown)}, which the task's sums do not name; add it to them")
    zero = loss.detach().new_zeros(())
    return loss, {name: torch.as_tensor(given.get(name, zero)).detach() for name in task.sums}


def called(function: Callable[[], T], field: str) -> T:
    """What a method of the task gives. Collectives of its own have no group here, and are named."""
    try:
        found: T = call_with(function, {}, field)
    except ConfigError as error:
        if "process group has not been initialized" in str(error).lower():
            raise ConfigError(
                f"{field} calls a collective or asks for its rank; leave sums over ranks to raylr"
            ) from error
        raise
    return found


def sha256_of_data(task: Task, field: str) -> str:
    """The checksum of a task's data as it gives it, else over a few examples of both splits in the first epoch."""
    if task.data_sha256:
        return task.data_sha256
    digest = hashlib.sha256(f"{task.num_train} {task.num_test}".encode())
    ids = np.unique(np.linspace(0, task.num_train - 1, NUM_HASHED).astype(np.int64))
    tests = torch.from_numpy(np.unique(np.linspace(0, task.num_test - 1, NUM_HASHED).astype(np.int64)))
    batch = called(lambda: train_batch(task, ids, np.zeros_like(ids), 0), f"{field}: batch")
    for tensor in (*batch, *called(lambda: as_tuple(task.test_batch(tests)), f"{field}: test_batch")):
        digest.update(bits(tensor))
    return digest.hexdigest()


def bits(tensor: Tensor) -> bytes:
    """Dtype, shape and values of a tensor, so that equal bytes mean equal bits."""
    plain = tensor.detach().cpu().contiguous()
    values = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype}|{tuple(plain.shape)}|".encode() + values


def normal(ids: Tensor, epochs: Tensor, seed: int, width: int) -> Tensor:
    """Return standard normal numbers, float32 [b, width]: each row a function of its id, its epoch and the seed alone.

    By Box and Muller (1958) from SplitMix64, so noise may be part of a batch at any number of workers.
    """
    states = splitmix64(splitmix64(start_state(seed, NOISE), epochs), ids)
    words = splitmix64(states[:, None], torch.arange(2 * width)[None, :])
    uniform = ((words >> 11) & (2**53 - 1)).double().add(0.5) / 2**53  # in (0, 1)
    radius = torch.sqrt(-2.0 * torch.log(uniform[:, :width]))
    return (radius * torch.cos(2 * torch.pi * uniform[:, width:])).float()
