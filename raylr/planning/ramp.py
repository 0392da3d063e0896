"""A batch that follows the position: where it comes from, what refuses it, and what is doubtful about it."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Policy, Ramp, parse_ramp, ramp_of_policy, scaled_betas_eps
from raylr.lr.shapes import Seesaw
from raylr.planning.lr import Part
from raylr.planning.plan import Plan, Reason

MAX_GROWTH = 4  # of the LR in one step, beyond which a smaller one is advised


def given_ramp(config: Config, num_train: int, total: int) -> Ramp | None:
    """The ramp in a run of so many examples; None without one. Raises ConfigError for one that ends after the run."""
    if config.batch.ramp is None:
        return None
    return parse_ramp(config.batch.ramp).laid_out(num_train, total)


def traded_ramp(config: Config, policy: Policy, first: int, ramp: Ramp | None) -> Ramp | None:
    """The ramp as given, or that of a seesaw. Raises ConfigError where both, or the workers, would set the batch."""
    traded = ramp_of_policy(policy, first)
    if traded is None:
        return ramp
    field = "ramp" if ramp is not None else "per_worker_size"
    if (value := getattr(config.batch, field)) is not None:
        raise ConfigError(
            f"batch.{field}={value} beside lr.shape=seesaw, which sets the batch too; use batch.global_size for its first one"
        )
    return traded


def batches_of(ramp: Ramp | None, batches: Iterable[int]) -> list[Ramp]:
    """What the global batch of a run may be over its course: the ramp, else each of `batches` from start to end."""
    return [ramp] if ramp is not None else [Ramp.of(batch) for batch in batches]


def check_policy(policy: Policy, parts: list[Part], ramps: Iterable[Ramp]) -> None:
    """Refuse a policy that has no LR for one of these batches, or whose rule does not go with one that changes."""
    for ramp in ramps:
        for part in parts:
            schedule = policy.schedule(part.name)
            for start, size in ramp.phases:
                policy.factors(start, size, part.name)
                if schedule.scaling == "sde" and len(ramp.phases) > 1:
                    betas = (part.optimizer.beta1, part.optimizer.beta2)
                    k = size / schedule.reference_batch
                    scaled_betas_eps(k, betas, part.optimizer.eps, f"{part.prefix}lr.scaling=sde")
            if schedule.scaling == "legw" and len(ramp.phases) > 1:
                raise ConfigError(
                    f"{part.prefix}lr.scaling=legw makes the warmup follow the batch, which a ramp changes on the way; use "
                    "linear, sqrt or none"
                )


def ramp_story(plan: Plan, policy: Policy, parts: list[Part]) -> Iterator[Reason]:
    """How the peak LR follows the ramp; nothing without one."""
    if not plan.ramp:
        return
    for part in parts:
        schedule = policy.schedule(part.name)
        steps = [f"{schedule.peak(size):.4g} from {start / plan.num_train:g}ep" for start, size in plan.ramp]
        told = steps if len(steps) <= 6 else [*steps[:3], f"... {len(steps) - 4} more ...", steps[-1]]
        why = f"{schedule.scaling}(k) of the batch at each position"
        if isinstance(schedule.shape, Seesaw):
            steps = [f"{size} from {start / plan.num_train:.4g}ep" for start, size in plan.ramp]
            yield Reason(
                what=f"{part.prefix}batch later", value=", ".join(steps),
                why="seesaw: where the shape would halve the LR, LR / sqrt(2) and batch x 2",
            )  # fmt: skip
            return
        if schedule.scaling == "none":
            why = "lr.scaling=none: the batch grows and the LR does not follow"
        if schedule.scaling == "adascale":
            why = "lr.scaling=adascale: the gain follows the batch where it is set next"
        yield Reason(what=f"{part.prefix}lr peak later", value=", ".join(told), why=why)


def doubts(plan: Plan, policy: Policy) -> Iterator[str]:
    """Warnings about a ramp: workers that wait, a jump of the LR, a test or a checkpoint less often than an update."""
    high = plan.workers[1]
    waiting = [(start, size // plan.micro_size) for start, size in plan.ramp if size // plan.micro_size < high]
    if waiting:
        num_micro = min(num for _, num in waiting)
        until = next((start for start, _ in plan.ramp if start > waiting[-1][0]), plan.total_examples)
        yield (
            f"workers-wait: the first updates have {num_micro} micro-batches of {plan.micro_size} for {high} workers; the "
            f"others wait, in the group and with the same weights, until all have work at epoch {until / plan.num_train:g}"
        )
    for name, schedule in policy.schedules:
        for (_, before), (start, after) in pairwise(plan.ramp):
            growth = schedule.peak(after) / schedule.peak(before)
            if growth > MAX_GROWTH:
                yield (
                    f"ramp-jump: the LR of {name} grows {growth:g} times at once at epoch {start / plan.num_train:g}, with "
                    f"the batch from {before} to {after}; take smaller steps, as {before} to {after} by 2x, or "
                    "lr.scaling=none"
                )
