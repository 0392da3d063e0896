"""Make policies from torch's LR schedulers: the same LR at every update, as data over the position.

A scheduler counts its own calls; a policy counts examples. The caller states whether one call is an update, an epoch
or a fraction of one. A copy of every scheduler is stepped over the whole run (`stepping`); the formula of its class
(`curves`) is taken where it gives the same LR at every step, and a table of the steps otherwise. `import_policy` takes
the scheduler from a file.
"""

import math
from dataclasses import replace
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CyclicLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from raylr.config.user_code import call_with, import_object
from raylr.errors import ConfigError
from raylr.lr import Clock, Momentum, Policy, Schedule, Warmup
from raylr.lr.shapes import Constant, Exponential, Knot, Knots, MultiStep, Paced, Sequence, Shape, Step, WithLeg
from raylr.torch_lr.curves import NoClosedForm, Stretch, curve, parts_of
from raylr.torch_lr.curves.table import table, tolerances
from raylr.torch_lr.stepping import MAX_STEPS, Steps, num_steps, steps_of

StepUnit = Literal["epoch", "update", "fraction"]


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
    start at or after e * examples_per_epoch (of a loader that drops its last batch, the examples that it gives). Under
    "fraction" it calls `scheduler.step(epoch + i / iters)` after update i of an epoch, as torch's page on
    CosineAnnealingWarmRestarts does, and update i + 1 is the first to see it. Param groups whose curves differ become
    several schedules, `group0` and on; else there is one, called as the optimizer's class. `optimizer`, where given,
    must be the scheduler's own.

    The LR is torch's at every step, to about 1e-12. A Python function, a subclass, a chain or an argument that falls
    between two steps has no formula: its steps become knots, exact at this batch, and at another one read by position.

    ConfigError where no policy can be the same: a ReduceLROnPlateau, a scheduler that has stepped already or whose
    optimizer another one has driven, one that torch cannot step to the end, or that steps otherwise each time.

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
    return "update" if any(isinstance(part, CyclicLR | OneCycleLR) for part in parts_of(scheduler)) else "epoch"


def _policy(scheduler: Any, clock: Clock, step_unit: StepUnit) -> Policy:
    _refuse_what_has_no_curve(scheduler)
    stretch, groups = _stretch(clock, step_unit), scheduler.optimizer.param_groups
    formulas = [_formula(scheduler, index, clock, stretch) for index in range(len(groups))]
    steps = steps_of(scheduler, stretch, clock.global_batch)
    schedules = [
        formula if formula and _agrees(formula, index, steps, clock) else None for index, formula in enumerate(formulas)
    ]
    _check_start(scheduler, formulas, steps, clock)
    if None in schedules:
        _require_all_steps(scheduler, clock, stretch)
        if steps != steps_of(scheduler, stretch, clock.global_batch):
            raise ConfigError(
                f"{type(scheduler).__name__} gives another LR each time that it is stepped: it reads a clock, random "
                "numbers or its own calls; let its LR depend on the step alone"
            )
    found = [one or _stepped(scheduler, index, steps, clock, stretch) for index, one in enumerate(schedules)]
    if len(set(found)) == 1:
        names, found = [type(scheduler.optimizer).__name__.lower()], found[:1]
    else:
        names = [f"group{index}" for index in range(len(groups))]
        found = [_matched(schedule, group) for schedule, group in zip(found, groups, strict=True)]
    return Policy(clock.examples_per_epoch, clock.total_examples, tuple(zip(names, found, strict=True)))


def _refuse_what_has_no_curve(scheduler: Any) -> None:
    for part in parts_of(scheduler):
        name, made = type(part).__name__, getattr(part, "last_epoch", 0)
        if isinstance(part, ReduceLROnPlateau):
            raise ConfigError(
                f"{name} follows what is measured and not the position; use a scheduler that counts steps, or "
                "lower the LR of a run with raylr ctl"
            )
        if made > 0:
            raise ConfigError(f"{name} has made {made} steps already; give one as it is when made")


def _stretch(clock: Clock, step_unit: StepUnit) -> Stretch:
    """The whole run. Updates start while they end within it, epochs while there are examples left.

    At fractions of an epoch it is one update shorter: the first two updates see the same LR.
    """
    total, batch, epoch = clock.total_examples, clock.global_batch, clock.examples_per_epoch
    num_epochs = math.ceil(total / epoch)
    if step_unit == "update":
        return Stretch(batch, False, total, total // batch, num_epochs)
    if step_unit == "epoch":
        return Stretch(epoch, True, total, num_epochs, num_epochs)
    if step_unit == "fraction":
        return Stretch(epoch, False, total - batch, num_epochs, num_epochs, fractional=True)
    raise ConfigError(f"step_unit={step_unit} is unknown; use epoch, update or fraction")


def _formula(scheduler: Any, group: int, clock: Clock, stretch: Stretch) -> Schedule | None:
    """The schedule that the scheduler's class stands for; None where no shape does."""
    try:
        found = curve(scheduler, group, stretch)
        shape = found.shape
        if stretch.fractional:
            shape = _after_one_update(shape, clock.global_batch, stretch)
        elif stretch.holds:
            shape = _held(shape, stretch.unit)
        return Schedule(found.peak, clock.global_batch, "none", Warmup(), shape, found.momentum)
    except NoClosedForm:
        return None
    except OverflowError:
        raise ConfigError(f"{type(scheduler).__name__}'s LR grows beyond all numbers; use a smaller gamma") from None
    except ConfigError as error:
        raise _named(scheduler, error) from None


def _named(scheduler: Any, error: ConfigError) -> ConfigError:
    name = type(scheduler).__name__
    return ConfigError(str(error) if str(error).startswith(name) else f"{name}: {error}")


def _after_one_update(shape: Shape, batch: int, stretch: Stretch) -> Shape:
    """The shape from the second update on, and its first value before: `step(0)` is called after the first update."""
    if stretch.length < 1:
        raise NoClosedForm("the run is one update")
    first = shape.multiplier(0, 0, stretch.length)
    return Sequence((Constant() if first == 1 else Knots((Knot(0, first),)), shape), (batch,))


def _agrees(schedule: Schedule, group: int, steps: Steps, clock: Clock) -> bool:
    """Whether a formula has the LR and the momentum of every step, but for what rounding left on them."""
    try:
        policy = Policy(clock.examples_per_epoch, clock.total_examples, (("it", schedule),))
    except ConfigError:
        return False  # the formula does not fit into this run
    wanted, momenta = steps.lrs[group], steps.momenta[group]
    for position, lr, allowed in zip(steps.positions, wanted, tolerances(wanted, steps.eps), strict=True):
        if abs(policy.lr(position, clock.global_batch) - lr) > allowed:
            return False
    for position, momentum in zip(steps.positions, momenta or (), strict=False):
        own = policy.momentum(position, clock.global_batch)
        if own is None or abs(own - momentum) > 1e-12:
            return False
    return True


def _stepped(scheduler: Any, group: int, steps: Steps, clock: Clock, stretch: Stretch) -> Schedule:
    """The schedule that goes through every step."""
    lrs, momenta = steps.lrs[group], steps.momenta[group]
    peak = _peak(lrs, scheduler.optimizer.param_groups[group])
    if peak == 0:
        raise ConfigError(f"{type(scheduler).__name__}'s LR is 0 at every step; give its optimizer an LR above 0")
    held, driven = stretch.unit if stretch.holds else None, None
    try:
        shape = table(steps.positions, [lr / peak for lr in lrs], steps.eps, held)
        if momenta:
            driven = Momentum(min(momenta), max(momenta))
            legs = [(driven.high - momentum) / (driven.high - driven.low) for momentum in momenta]
            shape = WithLeg(shape, table(steps.positions, legs, steps.eps, held))
        return Schedule(peak, clock.global_batch, "none", Warmup(), shape, driven)
    except ConfigError as error:
        raise _named(scheduler, error) from None


def _peak(lrs: tuple[float, ...], group: dict[str, Any]) -> float:
    """The highest LR, or the one that the user named, where the steps just pass it by."""
    highest = max(lrs)
    named = [float(group[key]) for key in ("max_lr", "initial_lr") if key in group]
    return next((lr for lr in named if highest <= lr <= 1.02 * highest), highest)


def _require_all_steps(scheduler: Any, clock: Clock, stretch: Stretch) -> None:
    wanted = num_steps(stretch, clock.global_batch)
    if wanted > MAX_STEPS:
        raise ConfigError(
            f"{type(scheduler).__name__} makes {wanted:,} steps that no formula stands for, and at most "
            f"{MAX_STEPS:,} are kept one by one; step it once per epoch, or use a larger batch"
        )


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


def _check_start(scheduler: Any, formulas: list[Schedule | None], steps: Steps, clock: Clock) -> None:
    """A scheduler made after another one on the same optimizer starts from what that one left there."""
    if isinstance(scheduler, SequentialLR | ChainedScheduler):
        return  # their parts are made on one optimizer
    for index, formula in enumerate(formulas[: len(getattr(scheduler, "base_lrs", ()))]):
        last = steps.lrs[index][0]
        first = last
        if formula is not None:
            first = formula.peak(clock.global_batch) * formula.shape.multiplier(0, 0, clock.total_examples)
        if abs(first - last) > max(1e-9, 4 * steps.eps) * abs(last):
            raise ConfigError(
                f"{type(scheduler).__name__} starts at an LR of {last:.9g} where its arguments say {first:.9g}: "
                "something else has changed its optimizer; make both anew"
            )
