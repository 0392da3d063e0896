"""What a scheduler does, step by step: a fresh copy of it is stepped over the whole run, and nothing else is touched."""

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr

from raylr.errors import ConfigError
from raylr.torch_lr.curves import Stretch, parts_of

MAX_STEPS = 1_000_000  # takes about 20 s
_DOUBLE = 2.0**-52


@dataclass(frozen=True)
class Steps:
    """The LR and the momentum of each param group at each step, and the position from which the step is seen."""

    positions: tuple[int, ...]
    lrs: tuple[tuple[float, ...], ...]
    momenta: tuple[tuple[float, ...] | None, ...]  # None for a group without one, or whose one stays as it is
    eps: float  # the rounding of what the LR is held in


def steps_of(scheduler: Any, stretch: Stretch, batch: int) -> Steps:
    """The steps of a run from a copy of a scheduler as it is when made, MAX_STEPS at most.

    ConfigError where torch cannot step it, or steps it to what is no LR.
    """
    name, copied = type(scheduler).__name__, _copy(scheduler)
    places = list(_places(stretch, batch))
    groups = copied.optimizer.param_groups
    seen = [[(float(group["lr"]), _momentum(group)) for group in groups]]
    rounding = _rounding(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the order of calls, and on fractions
        for index, (_, argument) in enumerate(places[1:], 1):
            try:
                copied.step() if argument is None else copied.step(argument)
            except ConfigError:
                raise
            except Exception as error:
                raise _failed(scheduler, stretch, index, error) from None
            seen.append([(float(group["lr"]), _momentum(group)) for group in groups])
            rounding = max(rounding, _rounding(groups))
    lrs, momenta = [], []
    for own in zip(*seen, strict=True):
        lrs.append(tuple(lr for lr, _ in own))
        momenta.append(None if len({momentum for _, momentum in own}) == 1 else tuple(m for _, m in own))
        _check(name, lrs[-1])
    return Steps(tuple(position for position, _ in places), tuple(lrs), tuple(momenta), rounding)


def num_steps(stretch: Stretch, batch: int) -> int:
    """The steps that the whole run sees."""
    return stretch.length // batch + 1 if stretch.fractional else stretch.num_steps


def _places(stretch: Stretch, batch: int) -> Iterator[tuple[int, float | None]]:
    """The position of each step, and what `scheduler.step` is called with before it.

    At fractions of an epoch: `scheduler.step(epoch + i / iters)` after update i, so that update i + 1 is the first to see it.
    """
    for index in range(min(num_steps(stretch, batch), MAX_STEPS)):
        if stretch.fractional:
            yield index * batch, (index - 1) * batch / stretch.unit
        else:
            yield index * stretch.unit, None


def _copy(scheduler: Any) -> Any:
    """A copy that shares nothing with it but functions, with empty tensors in the place of parameters and state."""
    optimizer = scheduler.optimizer
    memo: dict[int, Any] = {id(p): torch.empty(0) for group in optimizer.param_groups for p in group["params"]}
    memo[id(optimizer.state)] = defaultdict(dict)
    try:
        return copy.deepcopy(scheduler, memo)
    except Exception as error:
        raise ConfigError(
            f"{type(scheduler).__name__} cannot be copied ({type(error).__name__}: {error}), and only a copy is "
            "stepped to see its curve; keep open files, locks and the like out of it"
        ) from None


def _momentum(group: dict[str, Any]) -> float:
    """The momentum or beta1, which torch's cyclic schedulers drive; 0 where there is none."""
    found = group["betas"][0] if "betas" in group else group.get("momentum")
    return 0.0 if found is None else float(found)


def _check(name: str, lrs: tuple[float, ...]) -> None:
    for index, lr in enumerate(lrs):
        if math.isinf(lr):
            raise ConfigError(f"{name}'s LR grows beyond all numbers at step {index}; use a smaller factor")
        if not lr >= 0:
            raise ConfigError(f"{name}'s LR is {lr:g} at step {index}; an LR is a number from 0 on")


def _rounding(groups: list[dict[str, Any]]) -> float:
    """That of the number type in which the LRs are held: a tensor's, or that of a NumPy scalar, mostly of 32 bits."""
    held = [group["lr"].dtype for group in groups if hasattr(group["lr"], "dtype")]
    return max(map(_eps, held), default=_DOUBLE)


def _eps(dtype: Any) -> float:
    if isinstance(dtype, torch.dtype):
        return torch.finfo(dtype).eps if dtype.is_floating_point else _DOUBLE
    return {2: 2.0**-10, 4: 2.0**-23}.get(dtype.itemsize, _DOUBLE)


def _failed(scheduler: Any, stretch: Stretch, index: int, error: Exception) -> ConfigError:
    name, num_groups = type(scheduler).__name__, len(scheduler.optimizer.param_groups)
    said = f"{type(error).__name__}: {error}"
    known = min((len(part.base_lrs) for part in parts_of(scheduler) if hasattr(part, "base_lrs")), default=num_groups)
    if known < num_groups:
        return ConfigError(
            f"{name} was made for {known} of the {num_groups} param groups of its optimizer, and torch fails at its "
            f"step {index} ({said}); call add_param_group before the scheduler is made"
        )
    if any(isinstance(part, torch_lr.SequentialLR) for part in list(parts_of(scheduler))[1:]):
        return ConfigError(f"SequentialLR inside a {name} does not work in torch ({said}); use one with all milestones")
    if stretch.fractional and isinstance(error, TypeError):
        return ConfigError(f"{name} takes no fractions of an epoch ({said}); use --step-unit epoch or update")
    too_short = any(isinstance(part, torch_lr.OneCycleLR) for part in parts_of(scheduler))
    way_out = stretch.or_per_epoch(index) if too_short else ""
    return ConfigError(
        f"{name} cannot be stepped to its step {index} of {stretch.num_steps} ({said}); it must last the whole run{way_out}"
    )
