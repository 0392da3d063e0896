"""Whatever gives an LR for each step, as something that `stepping` can step.

A torch scheduler is taken as it is. A plain function `step -> lr` (an optax schedule is one), a list of numbers and a
scheduler of timm, which is told its count from outside, are wrapped. Independent of policies.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from raylr.config.user_code import required
from raylr.config.yaml_text import load_text
from raylr.errors import ConfigError

StepUnit = Literal["epoch", "update", "fraction"]
KINDS = "one of torch's LR schedulers or timm's, a function of the step, or a list of numbers"


@dataclass(frozen=True)
class Source:
    """What is stepped, and what is known of it beside.

    `unit` is the only one that it can be stepped by, where there is only one. `count` is the number of steps that it has
    an LR for, None for any. One that is not `of_optimizer` gives the LR of whatever optimizers follow it.
    """

    scheduler: Any
    unit: StepUnit | None = None
    count: int | None = None
    of_optimizer: bool = True


def source_of(given: Any, name: str | None = None) -> Source:
    """Return what steps `given`. ConfigError for what gives no LR; `name` is for messages on a function or a list."""
    if _is_of_timm(given):
        return Source(_alike(given, _Counted)(given), "epoch" if given.t_in_epochs else "update")
    if _steps_an_optimizer(given):
        return Source(given)
    if is_list(given):
        numbers = [_number(value, f"entry {index}") for index, value in enumerate(given, 1)]
        if not numbers:
            raise ConfigError(f"{name or 'the list'} is empty; give an LR for each step")
        return Source(_by_function(numbers.__getitem__, name or "the list"), count=len(numbers), of_optimizer=False)
    if callable(given) and not isinstance(given, type):
        called = name or str(getattr(given, "__name__", type(given).__name__))
        return Source(_by_function(given, called), of_optimizer=False)
    raise ConfigError(f"a {type(given).__name__} gives no LR; give {KINDS}")


def is_schedule(given: Any) -> bool:
    """Return True for what gives an LR as it stands, and False for what has to be called first, or is nothing of the kind."""
    return _steps_an_optimizer(given) or is_list(given) or _takes_a_step(given)


def is_list(given: Any) -> bool:
    """Return True for a list of numbers, also one that NumPy or torch holds."""
    if isinstance(given, Sequence):
        return not isinstance(given, str | bytes)
    return hasattr(given, "__array__") and getattr(given, "ndim", 0) == 1


def list_of_file(text: str) -> list[Any]:
    """Return the list in a YAML or JSON file, its entries as text. ConfigError for anything else."""
    path = Path(text).expanduser()
    try:
        content = load_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"import={text} cannot be read ({reason}); give a list of LRs, one for each step") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"import={text}: {' '.join(str(error).split())}") from None
    if not isinstance(content, list) or not content:
        raise ConfigError(f"import={text} holds no list; write an LR for each step, such as [0.1, 0.1, 0.05]")
    return content


def _takes_a_step(given: Any) -> bool:
    """Return True for a function that needs exactly one argument: the step, and not the optimizer."""
    if not callable(given) or isinstance(given, type):
        return False
    try:
        needed = required(given)
    except (TypeError, ValueError):
        return False
    return len(needed) == 1 and needed[0].kind is not inspect.Parameter.KEYWORD_ONLY and needed[0].name != "optimizer"


def _steps_an_optimizer(given: Any) -> bool:
    """Return True for a scheduler of any library: torch's, or what looks like them."""
    return isinstance(getattr(given, "optimizer", None), torch.optim.Optimizer) and callable(
        getattr(given, "step", None)
    )


def _is_of_timm(given: Any) -> bool:
    return _steps_an_optimizer(given) and hasattr(given, "step_update") and hasattr(given, "t_in_epochs")


class _Counted:
    """A scheduler of timm that counts for itself, as its training script does.

    The first update sees the LR that making it has left.
    """

    def __init__(self, inner: Any) -> None:
        self.inner, self.optimizer, self.last_epoch = inner, inner.optimizer, 0

    def step(self) -> None:
        self.last_epoch += 1
        (self.inner.step if self.inner.t_in_epochs else self.inner.step_update)(self.last_epoch)


class _Numbers:
    """A function whose results are read as plain numbers, whatever holds them: JAX, NumPy, torch."""

    def __init__(self, function: Callable[[Any], Any], name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, step: Any) -> float:
        return _number(self.function(step), f"{self.name} at step {step}")


def _by_function(function: Callable[[Any], Any], name: str) -> LRScheduler:
    """Return the LambdaLR, called `name` in messages, whose LR is what the function gives."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    try:
        made: LRScheduler = type(name, (LambdaLR,), {})(optimizer, _Numbers(function, name))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{name} failed at step 0: {type(error).__name__}: {error}") from None
    return made


def _alike(given: Any, adapter: type) -> type:
    """Return the adapter under the name of what it adapts, which messages show."""
    return type(type(given).__name__, (adapter,), {})


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{what} is {str(value)[:40]}; an LR is a number from 0 on") from None
