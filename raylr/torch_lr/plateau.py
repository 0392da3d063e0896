"""torch's ReduceLROnPlateau as a constant LR and the fields `lr.plateau.*`, which cut it when tests get no better."""

from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from raylr.errors import ConfigError
from raylr.lr import Clock, Schedule, Warmup
from raylr.lr.shapes import Constant
from raylr.torch_lr.curves.stretch import tidy


def constant_schedules(scheduler: ReduceLROnPlateau, clock: Clock) -> list[Schedule]:
    """Return the LR that each param group has until the first cut."""
    lrs = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    return [Schedule(lr, clock.global_batch, "none", Warmup(), Constant()) for lr in lrs]


def flags(scheduler: ReduceLROnPlateau) -> str:
    """Return the flags that cut as the scheduler does where it is stepped with a test's metric after each epoch."""
    relative = scheduler.threshold_mode == "rel"
    given: dict[str, Any] = {
        "metric": "test_loss" if scheduler.mode == "min" else "test_accuracy",
        "factor": scheduler.factor,
        "patience": f"{scheduler.patience}ep",
        "cooldown": f"{scheduler.cooldown}ep",
        "min-delta": 0.0 if relative else scheduler.threshold,
        "min-share": scheduler.threshold if relative else 0.0,
        "lowest": _lowest(scheduler),
    }
    told = {key: f"{value:g}" if isinstance(value, float | int) else value for key, value in given.items()}
    return " ".join(
        f"--lr.plateau.{key} {value}" for key, value in told.items() if value not in ("0", "0ep") or key == "lowest"
    )


def _lowest(scheduler: ReduceLROnPlateau) -> float:
    """The least LR as a share of the LR. ConfigError where groups differ."""
    groups = scheduler.optimizer.param_groups
    shares = {tidy(low / float(group["lr"])) for low, group in zip(scheduler.min_lrs, groups, strict=True)}
    if len(shares) > 1:
        raise ConfigError("ReduceLROnPlateau(min_lr) is another share of each group's LR; use one share for all")
    return shares.pop()
