"""Metrics of one's own as plain numbers that JSON holds."""

from collections.abc import Mapping
from typing import Any

from raylr.errors import ConfigError
from raylr.storage import finite

TAKEN = frozenset({"step", "position", "epoch", "lr", "world_size", "global_batch", "wall_s"})


def plain_numbers(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics as floats, None for one that is not finite. Raises ConfigError for what is no number, or has a name taken."""
    return {name: _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> float | None:
    if name in TAKEN:
        raise ConfigError(f"metric={name} is a column that the loop writes itself; give it another name")
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):  # the last: a tensor of several elements
        kind = f"{type(value).__name__} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
        raise ConfigError(f"{name}={kind} is no number; report one number, such as its mean") from None
    return finite(number)
