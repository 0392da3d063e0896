"""The one place that writes what a policy drives into a torch optimizer: LR, momentum, betas, eps.

A captured or compiled optimizer reads a tensor, so a value that is a tensor is filled and stays the same one.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raylr.lr import Factors, Policy, scaled_betas_eps


def write_lr(
    group: dict[str, Any], defaults: Mapping[str, Any], policy: Policy, position: int, batch: int, name: str | None
) -> Factors:
    """Write the values of the update at `position` into a param group, and return the factors of its LR.

    `defaults` are those that the optimizer was made with: the SDE rule scales its betas and eps, and never a value that
    it wrote before. `name` is the policy's optimizer. A group with an `lr_scale`, as timm makes them, gets the LR times that.
    """
    factors = policy.factors(position, batch, name)
    _write(group, "lr", factors.lr * group.get("lr_scale", 1.0))
    momentum = policy.momentum(position, batch, name)
    if momentum is not None and "momentum" in group:
        _write(group, "momentum", momentum)
    elif momentum is not None:
        group["betas"] = (momentum, *group["betas"][1:])
    schedule = policy.schedule(name)
    if schedule.scaling == "sde":
        group.update(_scaled(defaults, batch / schedule.reference_batch, name))
    return factors


def _scaled(defaults: Mapping[str, Any], k: float, name: str | None) -> dict[str, Any]:
    """Betas and eps under the SDE rule (Malladi 2022) at k = batch / reference batch."""
    betas = defaults.get("betas") or (defaults["alpha"], defaults["alpha"])
    scaled, eps = scaled_betas_eps(k, betas, defaults["eps"], name or "lr.scaling=sde")
    return {"betas": scaled, "eps": eps} if "betas" in defaults else {"alpha": scaled[1], "eps": eps}


def _write(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
