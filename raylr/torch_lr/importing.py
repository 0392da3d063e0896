"""Make policies from torch's LR schedulers: the same LR at every update, as data over the position.

A scheduler counts its own calls; a policy counts examples. The caller states whether one
call is an update or an epoch. The curves themselves are in `curves`. `import_policy` takes the scheduler from a file.
"""

import math
from dataclasses import replace
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from raylr.config.user_code import call_with, import_object
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, Schedule, Warmup
from raylr.lr.shapes import Constant, Exponential, Knots, MultiStep, Paced, Shape, Step
from raylr.torch_lr.curves import Stretch, curve

StepUnit = Literal["epoch", "update"]


def policy_from_scheduler(
    scheduler: LRScheduler,
    optimizer: Optimizer | None = None,
    *,
    examples_per_step: int,
    total_steps: int,
    examples_per_epoch: int,
    step_unit: StepUnit,
) -> Policy:
    """The policy with the LR (and momentum) that a fresh torch scheduler gives a run of `total_steps` updates.

    An update takes `examples_per_step` examples, the global batch. `step_unit` states when the loop calls
    `scheduler.step()`: after every update, or after every epoch; then the LR of epoch e holds for the updates that
    start at or after e * examples_per_epoch (of a loader that drops its last batch, the examples that it gives). Param
    groups whose curves differ become several schedules, `group0` and on; else there is one, called as the optimizer's
    class. `optimizer`, where given, must be the scheduler's own.

    ConfigError where no policy can be the same: a LambdaLR, ReduceLROnPlateau, ChainedScheduler or subclass, a custom
    scale_fn, a scheduler that has stepped already or whose optimizer another one has driven.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> halving = torch.optim.lr_scheduler.StepLR(sgd, step_size=10, gamma=0.5)
    >>> policy = policy_from_scheduler(
    ...     halving, examples_per_step=100, total_steps=300, examples_per_epoch=1000, step_unit="epoch"
    ... )
    >>> policy.schedule().shape, policy.lr(position=25_000, global_batch=100)
    (Step(floor=0.0, every=10000, gamma=0.5), 0.025)
    """
    if optimizer is not None and optimizer is not getattr(scheduler, "optimizer", None):
        raise ConfigError(f"{type(scheduler).__name__} drives another optimizer than the one given; give its own")
    return _policy(scheduler, Clock(examples_per_epoch, total_steps * examples_per_step, examples_per_step), step_unit)


def import_policy(text: str, clock: Clock, step_unit: StepUnit | None = None) -> Policy:
    """The policy of the torch scheduler that `FILE.py:OBJECT` (or package.module:OBJECT) is, or returns when called.

    The clock holds the examples of an epoch, of the run and of an update. Where `step_unit` is not given it is "update"
    for CyclicLR and OneCycleLR, as torch documents them, also inside a SequentialLR, and "epoch" for all others.
    """
    found = import_object(text, "import")
    if not isinstance(found, LRScheduler):
        if not callable(found):
            raise ConfigError(f"import={text} is a {type(found).__name__}; name a scheduler or what returns one")
        found = call_with(found, {}, f"import={text}")
    if not isinstance(found, LRScheduler):
        raise ConfigError(f"import={text} returned a {type(found).__name__}; return one of torch's LR schedulers")
    try:
        return _policy(found, clock, step_unit or _usual_unit(found))
    except ConfigError as error:
        raise ConfigError(f"import={text}, {error}") from None


def _usual_unit(scheduler: LRScheduler) -> StepUnit:
    parts = getattr(scheduler, "_schedulers", [scheduler])
    return "update" if any(isinstance(part, CyclicLR | OneCycleLR) for part in parts) else "epoch"


def _policy(scheduler: Any, clock: Clock, step_unit: StepUnit) -> Policy:
    name = type(scheduler).__name__
    if getattr(scheduler, "last_epoch", 0) != 0:
        raise ConfigError(f"{name} has made {scheduler.last_epoch} steps already; give one as it is when made")
    groups = scheduler.optimizer.param_groups
    schedules = [_schedule(scheduler, index, clock, _stretch(clock, step_unit)) for index in range(len(groups))]
    if len(set(schedules)) == 1:
        names = [type(scheduler.optimizer).__name__.lower()]
        schedules = schedules[:1]
    else:
        names = [f"group{index}" for index in range(len(groups))]
        schedules = [_matched(schedule, group) for schedule, group in zip(schedules, groups, strict=True)]
    policy = Policy(clock.examples_per_epoch, clock.total_examples, tuple(zip(names, schedules, strict=True)))
    _check_start(scheduler, policy, clock)
    return policy


def _stretch(clock: Clock, step_unit: StepUnit) -> Stretch:
    """The whole run. Updates start while they end within it, epochs while there are examples left."""
    total = clock.total_examples
    if step_unit == "update":
        return Stretch(clock.global_batch, False, total, total // clock.global_batch)
    if step_unit == "epoch":
        return Stretch(clock.examples_per_epoch, True, total, math.ceil(total / clock.examples_per_epoch))
    raise ConfigError(f"step_unit={step_unit} is unknown; use epoch or update")


def _schedule(scheduler: Any, group: int, clock: Clock, stretch: Stretch) -> Schedule:
    try:
        found = curve(scheduler, group, stretch)
        shape = _held(found.shape, stretch.unit) if stretch.holds else found.shape
        return Schedule(found.peak, clock.global_batch, "none", Warmup(), shape, found.momentum)
    except OverflowError:
        raise ConfigError(f"{type(scheduler).__name__}'s LR grows beyond all numbers; use a smaller gamma") from None
    except ConfigError as error:
        name = type(scheduler).__name__
        raise ConfigError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None


def _held(shape: Shape, every: int) -> Shape:
    """The shape read once per epoch; one that changes at epochs only is left as it is."""
    if _changes_in_steps(shape):
        return shape
    return replace(shape, every=every) if isinstance(shape, Paced) else Paced(shape, every)


def _changes_in_steps(shape: Shape) -> bool:
    if shape.parts_inside:
        return all(map(_changes_in_steps, shape.parts_inside))
    if isinstance(shape, Knots):
        return shape.interpolation == "step" or len(shape.points) == 1
    return isinstance(shape, Constant | Step | MultiStep) or (isinstance(shape, Exponential) and shape.staircase)


def _matched(schedule: Schedule, group: dict[str, Any]) -> Schedule:
    """With the names of the group's parameters, where the optimizer was made from named ones."""
    return replace(schedule, match=",".join(group["param_names"])) if "param_names" in group else schedule


def _check_start(scheduler: Any, policy: Policy, clock: Clock) -> None:
    """A scheduler made after another one on the same optimizer starts from what that one left there."""
    for index, last in enumerate(scheduler.get_last_lr()):
        name = policy.optimizers[index if len(policy.schedules) > 1 else 0]
        first = policy.lr(0, clock.global_batch, name)
        if not math.isclose(first, float(last), rel_tol=1e-9):
            raise ConfigError(
                f"{type(scheduler).__name__} starts at an LR of {float(last):g} where its arguments say {first:g}: "
                "something else has changed its optimizer; make both anew"
            )
