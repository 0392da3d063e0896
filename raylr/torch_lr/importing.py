"""Make policies from LR schedulers of any make: the same LR at every update, as data over the position.

A scheduler counts its own calls; a policy counts examples. The caller states whether one call is an update, an epoch
or a fraction of one. A copy of every scheduler is stepped over the whole run (`stepping`); the formula of its class
(`curves`) is taken where it gives the same LR at every step, and a table of the steps otherwise. Functions, lists and
timm's schedulers are stepped too (`sources`). `import_policy` takes what a file names.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CyclicLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from raylr.config.user_code import call_with, import_object, required
from raylr.errors import ConfigError
from raylr.lr import Clock, Momentum, Policy, Schedule, Warmup
from raylr.lr.shapes import Constant, Exponential, Knot, Knots, MultiStep, Paced, Shape, Step, WithLeg
from raylr.lr.shapes import Sequence as InSequence
from raylr.torch_lr.curves import NoClosedForm, Stretch, curve, parts_of
from raylr.torch_lr.curves.table import num_knots, table, tolerances
from raylr.torch_lr.plateau import constant_schedules, flags
from raylr.torch_lr.sources import KINDS, Source, StepUnit, is_schedule, list_of_file, source_of
from raylr.torch_lr.stepping import MAX_STEPS, Steps, num_steps, steps_of

MAX_KNOTS = 100_000  # of a curve that is kept step by step: about 10 MB of JSON
Followers = Sequence[tuple[str, str]]  # optimizers by name, and the patterns of their parameters


def policy_from_scheduler(
    scheduler: LRScheduler | Callable[[int], Any] | Sequence[float] | Any,
    optimizer: Optimizer | None = None,
    *,
    examples_per_step: int,
    total_steps: int,
    examples_per_epoch: int,
    step_unit: StepUnit,
) -> Policy:
    """The policy with the LR (and momentum) that a fresh scheduler gives a run of `total_steps` updates.

    It may be one of torch's or timm's, a function that gives the LR of a step (an optax schedule, say), or a list of them.

    An update takes `examples_per_step` examples, the global batch. `step_unit` states when the loop calls
    `scheduler.step()`: after every update, or after every epoch; then the LR of epoch e holds for the updates that
    start at or after e * examples_per_epoch (of a loader that drops its last batch, the examples that it gives). Under
    "fraction" it calls `scheduler.step(epoch + i / iters)` after update i of an epoch, as torch's page on
    CosineAnnealingWarmRestarts does, and update i + 1 is the first to see it. Param groups whose curves differ become
    several schedules, `group0` and on; else there is one, called as the optimizer's class, or `lr` where there is none.
    `optimizer`, where given, must be the scheduler's own.

    The LR is the scheduler's at every step, to about 1e-12, and to 1e-9 where that takes thousands of knots. A Python
    function, a subclass, a chain or an argument that falls between two steps has no formula: its steps become knots, exact
    at this batch, and at another one read by position.

    ConfigError where no policy can be the same: a scheduler that asks for a loss (torch's ReduceLROnPlateau alone becomes
    its LR before the first cut, with a warning that names the fields of a run for the cuts), one that has stepped already or
    whose optimizer another one has driven, one that torch cannot step to the end, or that steps otherwise each time.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> halving = torch.optim.lr_scheduler.StepLR(sgd, step_size=10, gamma=0.5)
    >>> policy = policy_from_scheduler(
    ...     halving, examples_per_step=100, total_steps=300, examples_per_epoch=1000, step_unit="epoch"
    ... )
    >>> policy.schedule().shape, policy.lr(position=25_000, global_batch=100)
    (Step(floor=0.0, every=10000, gamma=0.5), 0.025)
    """
    source = source_of(scheduler)
    if optimizer is not None and source.of_optimizer and optimizer is not source.scheduler.optimizer:
        raise ConfigError(f"{type(scheduler).__name__} drives another optimizer than the one given; give its own")
    clock = Clock(examples_per_epoch, total_steps * examples_per_step, examples_per_step)
    return _policy(source, clock, step_unit, [(_name(optimizer) if optimizer else "lr", "*")])


def import_policy(
    text: str, clock: Clock, step_unit: StepUnit | None = None, followers: Followers = (("lr", "*"),)
) -> Policy:
    """The policy of what `FILE.py:OBJECT` (or package.module:OBJECT) is, or returns when called; or of a FILE.yaml of LRs.

    The clock holds the examples of an epoch, of the run and of an update. Where `step_unit` is not given it is "update"
    for functions, and for CyclicLR and OneCycleLR, as torch documents them, also inside a SequentialLR; for a list it is
    what there are as many of; and "epoch" for all others. `followers` are the optimizers that a function or a list drives.
    """
    found = list_of_file(text) if text.endswith((".yaml", ".yml", ".json")) else _named_object(text)
    try:
        source = source_of(found, text.rpartition(":")[2])
        return _policy(source, clock, step_unit or _usual_unit(source, clock), followers)
    except ConfigError as error:
        raise ConfigError(f"import={text}, {error}") from None


def _named_object(text: str) -> Any:
    """What gives an LR: the object itself, or what it returns when called."""
    found = import_object(text, "import")
    if is_schedule(found):
        return found
    if not callable(found):
        raise ConfigError(f"import={text} is a {type(found).__name__}; name a scheduler or what returns one")
    made = call_with(found, {}, f"import={text}")
    if not (is_schedule(made) or callable(made)):
        raise ConfigError(f"import={text} returned a {type(made).__name__}; return {KINDS}")
    return made


def _usual_unit(source: Source, clock: Clock) -> StepUnit:
    if source.unit is not None:
        return source.unit
    if source.count is not None:
        units: tuple[StepUnit, ...] = ("update", "epoch")
        counts = {unit: num_steps(_stretch(clock, unit), clock.global_batch) for unit in units}
        for unit, count in counts.items():
            if count == source.count:
                return unit
        raise ConfigError(
            f"it has {source.count:,} numbers, and the run {counts['update']:,} updates in {counts['epoch']:,} epochs; "
            "give as many, or --step-unit"
        )
    cycles = any(isinstance(part, CyclicLR | OneCycleLR) for part in parts_of(source.scheduler))
    return "update" if cycles or not source.of_optimizer else "epoch"


def _policy(source: Source, clock: Clock, step_unit: StepUnit, followers: Followers) -> Policy:
    scheduler = source.scheduler
    if type(scheduler) is ReduceLROnPlateau:
        return _until_a_plateau(scheduler, clock, step_unit)
    _refuse_what_has_no_curve(scheduler)
    stretch, groups = _stretch(clock, step_unit), scheduler.optimizer.param_groups
    _refuse_other_steps(source, step_unit, num_steps(stretch, clock.global_batch))
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
    if not source.of_optimizer:
        named = tuple((name, replace(found[0], match=match)) for name, match in followers)
        return Policy(clock.examples_per_epoch, clock.total_examples, named)
    return _of_groups(found, scheduler.optimizer, clock)


def _of_groups(found: list[Schedule], optimizer: Optimizer, clock: Clock) -> Policy:
    """The policy of the schedules of an optimizer's param groups: one where all are the same."""
    if len(set(found)) == 1:
        named = [(_name(optimizer), found[0])]
    else:
        pairs = enumerate(zip(found, optimizer.param_groups, strict=True))
        named = [(f"group{index}", _matched(schedule, group)) for index, (schedule, group) in pairs]
    return Policy(clock.examples_per_epoch, clock.total_examples, tuple(named))


def _until_a_plateau(scheduler: ReduceLROnPlateau, clock: Clock, step_unit: StepUnit) -> Policy:
    """The LR as it is before the first cut, with a warning that names the fields which cut it."""
    if step_unit != "epoch":
        raise ConfigError(
            "ReduceLROnPlateau is stepped after each epoch here, with what it is tested on; use --step-unit epoch"
        )
    if scheduler.last_epoch > 0:
        raise ConfigError(
            f"ReduceLROnPlateau has made {scheduler.last_epoch} steps already; give one as it is when made"
        )
    warnings.warn(
        f"ReduceLROnPlateau is a constant LR here, and its cuts are fields of the run; train with {flags(scheduler)}",
        stacklevel=2,
    )
    return _of_groups(constant_schedules(scheduler, clock), scheduler.optimizer, clock)


def _name(optimizer: Optimizer) -> str:
    """What the policy calls an optimizer: its class."""
    return type(optimizer).__name__.lower()


def _refuse_what_has_no_curve(scheduler: Any) -> None:
    for part in parts_of(scheduler):
        name, made = type(part).__name__, getattr(part, "last_epoch", 0)
        inside = getattr(getattr(part, "inner", part), "lr_scheduler", part)  # of timm's PlateauLRScheduler
        needed = _needed_by_step(part)
        if needed or isinstance(inside, ReduceLROnPlateau):
            raise ConfigError(
                f"{name} follows what is measured and not the position{needed}; use a scheduler that counts steps, or "
                "the fields lr.plateau of a run"
            )
        if made > 0:
            raise ConfigError(f"{name} has made {made} steps already; give one as it is when made")


def _needed_by_step(scheduler: Any) -> str:
    """What a scheduler's step asks for, a loss mostly; "" where it can be called without anything."""
    names = [one.name for one in required(scheduler.step)]
    return f" (its step needs {', '.join(names)})" if names else ""


def _refuse_other_steps(source: Source, step_unit: StepUnit, wanted: int) -> None:
    """Raise ConfigError for a unit by which the source cannot be stepped, and for a list that ends before the run."""
    if source.unit not in (None, step_unit):
        raise ConfigError(
            f"{type(source.scheduler).__name__} counts each {source.unit} itself; use --step-unit {source.unit}"
        )
    if source.count is None or source.count == wanted:
        return
    told = f"has {source.count:,} numbers and the run {wanted:,} steps"
    if source.count < wanted:
        raise ConfigError(f"{type(source.scheduler).__name__} {told}; give one for each, or another --step-unit")
    warnings.warn(f"{type(source.scheduler).__name__} {told}: the last ones are not used", stacklevel=2)


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
    return InSequence((Constant() if first == 1 else Knots((Knot(0, first),)), shape), (batch,))


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
        _require_few_knots(scheduler, shape)
        return Schedule(peak, clock.global_batch, "none", Warmup(), shape, driven)
    except ConfigError as error:
        raise _named(scheduler, error) from None


def _require_few_knots(scheduler: Any, shape: Shape) -> None:
    count = num_knots(shape)
    if count > MAX_KNOTS:
        raise ConfigError(
            f"{type(scheduler).__name__} takes {count:,} knots to be followed to 1e-9, and a policy holds at most "
            f"{MAX_KNOTS:,}; step it once per epoch, or use a larger batch"
        )


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
