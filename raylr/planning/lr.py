"""How the LR of a run comes about: from a policy file as it stands, or from the config, with a reason for every number.

Knows of workers only the global batch that they lead to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from raylr.config import BESIDE_A_POLICY, OF_THE_RUN, Config, LRConfig, OptimizerConfig
from raylr.config.own_options import is_own, short_name
from raylr.errors import ConfigError
from raylr.lr import (
    Clock,
    Momentum,
    Policy,
    Schedule,
    Shape,
    Warmup,
    duration_text,
    examples,
    parse_shape,
    scaled_betas_eps,
)
from raylr.lr.durations import rounded_half_up
from raylr.lr.shapes import Seesaw
from raylr.planning.defaults import tuned_for, warmup_epochs
from raylr.planning.plan import Reason

WHY_SHAPE = {  # of the defaults
    "linear": "ends at its floor, 0",
    "cosine": "as its authors ask for; ends at its floor, 0",
    "constant": "none is needed: what is tested is an average of the weights",
}


@dataclass(frozen=True)
class Part:
    """The share of the model that one optimizer has. `prefix` stands before its fields: "" or "optimizers.NAME."."""

    name: str
    prefix: str
    match: str
    optimizer: OptimizerConfig
    lr: LRConfig
    until: str | None = None


def parts_of(config: Config) -> list[Part]:
    """The optimizers of a run by name; a single one is called by its algorithm."""
    if not config.optimizers:
        return [Part(short_name(config.optimizer.name), "", "*", config.optimizer, config.lr)]
    beside = [f"optimizer.{name}" for name in given_fields(config.optimizer)] + [
        f"lr.{name}" for name in given_fields(config.lr)
    ]
    if beside:
        first = next(iter(config.optimizers))
        raise ConfigError(f"{beside[0]} beside optimizers.{first}; set it for each, as optimizers.{first}.{beside[0]}")
    for name, group in config.optimizers.items():
        for field in OF_THE_RUN:
            if getattr(group.lr, field) != getattr(LRConfig(), field):
                value = f"={group.lr.rewarm}" if field == "rewarm" else ""
                raise ConfigError(f"optimizers.{name}.lr.{field}{value} is one for all optimizers; use lr.{field}")
    return [
        Part(name, f"optimizers.{name}.", group.match, group.optimizer, group.lr, group.until)
        for name, group in config.optimizers.items()
    ]


def given_fields(section: OptimizerConfig | LRConfig) -> list[str]:
    """Names of the fields that differ from their defaults, but for those of lr that are the run's."""
    defaults = type(section)()
    names = [name for name in type(section).model_fields if name not in OF_THE_RUN]
    return [name for name in names if getattr(section, name) != getattr(defaults, name)]


def run_length(epochs: float | Fraction, num_train: int) -> int:
    """Examples in so many epochs, rounded half up.

    >>> run_length(0.1, num_train=55)
    6
    """
    exact = Fraction(str(epochs)) * num_train
    return rounded_half_up(exact.numerator, exact.denominator)


@dataclass(frozen=True)
class GivenPolicy:
    """A policy from outside, and what gave it: `policy=FILE` or `import=FILE:OBJECT`."""

    origin: str
    policy: Policy


def policy_of_file(path: str) -> GivenPolicy:
    """The policy that `policy=FILE` holds."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"policy={path} cannot be read ({reason}); give the policy.json of a run") from None
    try:
        return GivenPolicy(f"policy={path}", Policy.from_json(text))
    except ConfigError as error:
        raise ConfigError(f"policy={path}: {error}") from None


def policy_as_given(
    config: Config, parts: list[Part], given: GivenPolicy, num_train: int
) -> tuple[Policy, list[Reason]]:
    """The given policy, stretched where asked, and its story. Raises ConfigError where the config disagrees."""
    policy, origin = given.policy, given.origin
    _refuse_contradictions(parts, given)
    if config.stretch:
        epochs = config.epochs or Fraction(policy.total_examples, policy.examples_per_epoch)
        policy = replace(policy.stretched(run_length(epochs, num_train)), examples_per_epoch=num_train)
    elif policy.examples_per_epoch != num_train:
        raise ConfigError(
            f"{origin} was made for {policy.examples_per_epoch} training examples and "
            f"the data has {num_train}; use the same data and data.validation, or --stretch"
        )
    elif config.epochs is not None and run_length(config.epochs, num_train) != policy.total_examples:
        raise ConfigError(
            f"epochs={config.epochs:g} beside {origin}, which lasts {policy.total_examples / num_train:g} epochs; "
            "drop --epochs, or scale the whole policy with --stretch"
        )
    shapes = [(part, policy.schedule(part.name).shape.brief(num_train)) for part in parts]
    lines = [_line(part, "lr.shape", shape, origin) for part, shape in shapes]
    return policy, [Reason(what="LR", value=f"policy {policy.sha256[:12]}", why=origin), *lines]


def read_by_position(parts: list[Part], given: GivenPolicy, policy: Policy, batch: int) -> Iterator[Reason]:
    """The lines on optimizers whose given LR does not follow the batch, where the run's batch is another."""
    for part in parts:
        schedule = policy.schedule(part.name)
        if schedule.scaling == "none" and schedule.reference_batch != batch:
            at = (
                f"by position, not by step: made for a batch of {schedule.reference_batch}, read at {batch}, not scaled"
            )
            yield _line(part, "lr steps", at, given.origin)


def _refuse_contradictions(parts: list[Part], given: GivenPolicy) -> None:
    """The policy sets the LR of the very optimizers that the run has, and nothing else does."""
    policy, origin = given.policy, given.origin
    names = [part.name for part in parts]
    if sorted(policy.optimizers) != sorted(names):
        raise ConfigError(
            f"{origin} sets the LR of {', '.join(policy.optimizers)} but the run has {', '.join(names)}; "
            "give the optimizers that it was made for"
        )
    refuse_lr_beside(parts, origin)
    for part in parts:
        if part.match != (match := policy.schedule(part.name).match):
            raise ConfigError(f"{part.prefix}match={part.match} but {origin} has {match}; use the same")


def refuse_lr_beside(parts: list[Part], origin: str) -> None:
    """Raise ConfigError for a field of the LR that is given beside a policy, which sets it."""
    for part in parts:
        if fields := [field for field in given_fields(part.lr) if field not in BESIDE_A_POLICY]:
            raise ConfigError(f"{part.prefix}lr.{fields[0]} beside {origin}, which sets the LR; drop one of the two")


def policy_of_config(parts: list[Part], clock: Clock, first: int) -> tuple[Policy, list[Reason]]:
    """The policy that the config asks for at the global batch of the first update, and the story of its numbers."""
    chosen = {part.name: _schedule(part, clock, first) for part in parts}
    schedules = tuple((name, _as_it_trades(schedule, first)) for name, (schedule, _) in chosen.items())
    policy = Policy(clock.examples_per_epoch, clock.total_examples, schedules)
    return policy, [reason for part in parts for reason in _story(part, *chosen[part.name], clock, first)]


def _schedule(part: Part, clock: Clock, first: int) -> tuple[Schedule, str]:
    """The schedule of one optimizer, and why its warmup is so long."""
    lr, tuned = part.lr, tuned_for(part.optimizer.name, part.lr, first)
    scaling = lr.scaling or tuned.scaling
    if scaling == "sde" and part.optimizer.name not in ("adam", "adamw", "rmsprop"):
        instead = "sqrt" if is_own(part.optimizer.name) else tuned.scaling
        raise ConfigError(
            f"{part.prefix}lr.scaling=sde is the rule of adam, adamw and rmsprop; use {instead} with {part.optimizer.name}"
        )
    if lr.warmup_from == "zero" and lr.warmup_rise in ("exponential", "constant"):
        raise ConfigError(
            f"{part.prefix}lr.warmup_rise={lr.warmup_rise} cannot start at zero; use {part.prefix}lr.warmup_from=base"
        )
    shape = parse_shape(lr.shape or tuned.shape, clock, f"{part.prefix}lr.shape")
    reference = lr.reference_batch or tuned.reference_batch
    num_warmup, why = _warmup(part, shape, clock, first / reference, scaling == "legw")
    warmup = Warmup(num_warmup, lr.warmup_from, lr.warmup_rise)
    if isinstance(shape, Seesaw) and scaling in ("legw", "sde"):
        raise ConfigError(f"{part.prefix}lr.scaling={scaling} beside a seesaw, which trades the LR itself; use sqrt")
    return Schedule(lr.base or tuned.base_lr, reference, scaling, warmup, shape, _momentum(part), part.match), why


def _as_it_trades(schedule: Schedule, first: int) -> Schedule:
    """The schedule, for a seesaw with its peak at the first batch for good: what grows then is the batch alone."""
    if not isinstance(schedule.shape, Seesaw):
        return schedule
    return replace(schedule, base_lr=schedule.peak(first), reference_batch=first, scaling="none")


def _warmup(part: Part, shape: Shape, clock: Clock, k: float, legw: bool) -> tuple[int, str]:
    """Examples of warmup, under LEGW at the reference batch, and why so many."""
    field, text, factor = f"{part.prefix}lr.warmup", part.lr.warmup, k if legw else 1.0
    if text is not None:
        count = examples(text, clock, field)
        if count * factor > clock.total_examples:
            most = duration_text(int(clock.total_examples / factor), clock.examples_per_epoch)
            length = duration_text(clock.total_examples, clock.examples_per_epoch)
            times = f" x {k:g} (LEGW)" if legw else ""
            raise ConfigError(f"{field}={text}{times} is longer than the run of {length}; use at most {most}")
        return count, "given"
    if _rises_by_itself(shape):
        return 0, "the shape has a rise of its own"
    if not tuned_for(part.optimizer.name, part.lr, clock.global_batch).warms_up:
        return 0, f"{part.optimizer.name} begins with a tiny step size, and finds its own"
    epochs = warmup_epochs(k, clock.total_examples / clock.examples_per_epoch, legw)
    count = round(epochs * clock.examples_per_epoch)
    if legw:
        return count, f"at the reference batch; LEGW makes it x {k:g}"
    return count, f"1 epoch, and 1 more per doubling of the reference batch (k = {k:g}); a fifth of the run at most"


def _rises_by_itself(shape: Shape) -> bool:
    try:
        shape.refuse_warmup("lr.shape")
    except ConfigError:
        return True
    return False


def _momentum(part: Part) -> Momentum | None:
    low, high = part.lr.momentum_low, part.lr.momentum_high
    if low is None and high is None:
        return None
    if low is None or high is None or low > high:
        raise ConfigError(
            f"{part.prefix}lr.momentum_low={low} and lr.momentum_high={high} go together, the low one not above "
            "the high one; use 0.85 and 0.95"
        )
    return Momentum(low, high)


def _story(part: Part, schedule: Schedule, why_warmup: str, clock: Clock, batch: int) -> Iterator[Reason]:
    lr = part.lr
    k = batch / schedule.reference_batch
    base = f"{schedule.base_lr:g} at a batch of {schedule.reference_batch}"
    tuned = f"tuned for {part.optimizer.name}"
    yield _line(part, "lr.base", base, "given" if lr.base or lr.reference_batch else tuned)
    rule = f"the rule of {'SGD' if schedule.scaling == 'linear' else 'Adam-like optimizers'}"
    if part.optimizer.name == "prodigy":
        rule = "it estimates its own step size at any batch"
    if is_own(part.optimizer.name):
        rule = "the batch is the one at which it was tuned"
    yield _line(part, "lr.scaling", schedule.scaling, "given" if lr.scaling else rule)
    product = f"{schedule.base_lr:g} x {schedule.scaling}(k) at k = {batch} / {schedule.reference_batch} = {k:g}"
    if schedule.scaling == "adascale":
        product = f"as at the reference batch; the gain, 1 to {k:g}, is measured on the way"
    yield _line(part, "lr peak", f"{schedule.peak(batch):.6g}", product)
    if schedule.scaling == "sde":
        betas = (part.optimizer.beta1, part.optimizer.beta2)
        (beta1, beta2), eps = scaled_betas_eps(k, betas, part.optimizer.eps, f"{part.prefix}lr.scaling=sde")
        yield _line(part, "betas, eps", f"{beta1:g}, {beta2:g}, {eps:g}", f"changed by the SDE rule at k = {k:g}")
    count = schedule.warmup.examples
    warmup = f"{count / clock.examples_per_epoch:.4g}ep = {count:,} examples" if count else "none"
    yield _line(part, "lr.warmup", warmup, why_warmup)
    shape = schedule.shape.brief(clock.examples_per_epoch)
    yield _line(
        part, "lr.shape", shape, "given" if lr.shape else WHY_SHAPE[tuned_for(part.optimizer.name, lr, batch).shape]
    )


def _line(part: Part, what: str, value: str, why: str) -> Reason:
    return Reason(what=part.prefix + what, value=value, why=why)
