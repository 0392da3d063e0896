"""`raylr.fork`: a run that goes on from another one's state under a changed policy or field."""

from collections.abc import Mapping
from typing import Any

from raylr.api.train import heard
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import local_hardware
from raylr.planning.fork import END
from raylr.planning.legs import Leg
from raylr.planning.plan import Plan
from raylr.running import forking
from raylr.running.driver import Listener, RunResult
from raylr.running.forking import ForkOrder
from raylr.running.ray_internals.features import features
from raylr.training.own_parts import look_at_own_parts
from raylr.training.source import describe


def fork(
    run: str,
    at: str,
    changes: Mapping[str, Any] | None = None,
    cooldown: str | None = None,
    on_event: Listener | None = None,
    progress: bool | None = None,
) -> RunResult:
    """Train a fork of `run` that leaves it at the position `at`, such as 3ep, or at its `end`; or go on with it.

    `changes` are dotted fields, such as {"lr.base": 0.1}. With `cooldown` the LR at the joint holds, and
    falls to the floor within that length at the end. The rest is as in `raylr.train`.
    """
    return follow(ForkOrder(run, at, cooldown, changes), on_event, progress)


def extend(
    run: str, changes: Mapping[str, Any], on_event: Listener | None = None, progress: bool | None = None
) -> RunResult:
    """Go on with a finished run up to more `epochs`, which `changes` give, as a fork at its end."""
    return follow(extension(run, changes), on_event, progress)


def extension(run: str, changes: Mapping[str, Any]) -> ForkOrder:
    """The fork that an extension is. Raises ConfigError without a new length."""
    if "epochs" not in changes:
        raise ConfigError(f"extend of run={run} needs --epochs, the new length of the whole run, such as --epochs 20")
    order = ForkOrder(run, END, None, changes)
    parent, config = forking.origin(order)
    if not parent.is_over:
        raise ConfigError(
            f"run={run} is at {parent.epochs(parent.end)} of {parent.epochs(parent.plan.total_examples)} and has not ended; "
            "the command that started it goes on with it, or `raylr fork` at a position"
        )
    if (config.epochs or 0) * parent.plan.num_train <= parent.plan.total_examples:
        raise ConfigError(
            f"epochs={config.epochs:g} is no more than {parent.name} has trained, "
            f"{parent.epochs(parent.plan.total_examples)}; use more, or `raylr fork` at an earlier position"
        )
    return ForkOrder(run, END, None, changes, f"{parent.name}-to-{config.epochs:g}ep")


def follow(order: ForkOrder, on_event: Listener | None = None, progress: bool | None = None) -> RunResult:
    """Train the fork; its news go where those of any run go."""
    _, config = forking.origin(order)
    return heard(config, on_event, progress, lambda tell: forking.fork(order, tell))


def plan_fork(order: ForkOrder) -> tuple[Plan, Policy, tuple[Leg, ...]]:
    """What a fork would do, and the legs before it; nothing is started."""
    parent, config = forking.origin(order)
    made = forking.resolved_fork(parent, order, config, describe(config), local_hardware(), features())
    look_at_own_parts(made.plan)
    return made.plan, made.policy, made.legs
