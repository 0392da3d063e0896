"""Torch optimizers from the plan, one per group of parameters, each parameter in exactly one.

Their LR starts at 0 and is written by the loop before each update: what forgets to write it trains nothing.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.optim import Optimizer

from raylr.config.own_options import is_own
from raylr.errors import ConfigError
from raylr.planning.plan import OptimizerPlan
from raylr.training.muon import FilterMuon
from raylr.training.own_optimizer import make, try_out

Named = list[tuple[str, nn.Parameter]]


def build_optimizers(model: nn.Module, plans: Mapping[str, OptimizerPlan]) -> dict[str, Optimizer]:
    """An optimizer per plan over the parameters that its patterns match.

    ConfigError when a pattern matches nothing, or a parameter is matched by two optimizers or by none.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    owners = _owners([name for name, _ in named], plans)
    return {key: _build(plan, [pair for pair in named if owners[pair[0]] == key]) for key, plan in plans.items()}


def tried_optimizers(model: nn.Module, plans: Mapping[str, OptimizerPlan]) -> dict[str, Optimizer]:
    """The same, once those of one's own have made a few steps on small parameters."""
    optimizers = build_optimizers(model, plans)
    for name, optimizer in optimizers.items():
        if is_own(plans[name].kind):
            try_out(plans[name], [one for group in optimizer.param_groups for one in group["params"]])
    return optimizers


def _owners(names: list[str], plans: Mapping[str, OptimizerPlan]) -> dict[str, str]:
    """The optimizer of each parameter."""
    owners: dict[str, str] = {}
    for key, plan in plans.items():
        for name in _matches(names, key, plan.match):
            if name in owners:
                raise ConfigError(
                    f"optimizers.{key}.match={plan.match} matches {name}, which optimizers.{owners[name]}.match"
                    f"={plans[owners[name]].match} has already; a parameter belongs to one optimizer"
                )
            owners[name] = key
    if missing := [name for name in names if name not in owners]:
        raise ConfigError(f"optimizers: no match takes {_listing(missing)}; let one optimizer's match include it")
    return owners


def _matches(names: list[str], key: str, match: str) -> list[str]:
    """The names that any of the patterns matches, in their own order."""
    patterns = [pattern.strip() for pattern in match.split(",")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"optimizers.{key}.match={pattern} matches no parameter; the model has {_listing(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _build(plan: OptimizerPlan, named: Named) -> Optimizer:
    """Weight decay acts on parameters of two or more dimensions only, unless the plan says on all."""
    decayed = [pair for pair in named if plan.decay_norms_and_biases or pair[1].ndim >= 2]
    spared = [pair for pair in named if not plan.decay_norms_and_biases and pair[1].ndim < 2]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    betas = (plan.beta1, plan.beta2)
    if is_own(plan.kind):
        return make(plan, [{**group, "params": [one for _, one in group["params"]]} for group in groups])  # type: ignore[attr-defined]
    match plan.kind:
        case "sgd":
            nesterov = plan.nesterov and plan.momentum > 0
            on_gpu = all(parameter.is_cuda for _, parameter in named)  # one kernel for each group there
            return torch.optim.SGD(groups, lr=0.0, momentum=plan.momentum, nesterov=nesterov, fused=on_gpu or None)
        case "adam":
            return torch.optim.Adam(groups, lr=0.0, betas=betas, eps=plan.eps, amsgrad=plan.amsgrad)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=plan.eps, amsgrad=plan.amsgrad)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=0.0, alpha=plan.beta2, eps=plan.eps, momentum=plan.momentum)
        case "lars":
            from timm.optim.lars import Lars  # an extra of the package

            layers = [{**group, "always_adapt": group["params"] is decayed} for group in groups]
            return Lars(layers, lr=0.0, momentum=plan.momentum, nesterov=plan.nesterov and plan.momentum > 0)
        case "muon":
            _require_matrices(plan.match, named)
            settings = {"momentum": plan.momentum, "nesterov": plan.nesterov, "weight_decay": plan.weight_decay}
            settings.update(ns_steps=plan.ns_steps, normalise=plan.normalise)
            return FilterMuon([{"params": named}], lr=0.0, **settings)  # type: ignore[arg-type]
    raise ConfigError(f"optimizer.name={plan.kind} is not known; use sgd, adam, adamw, rmsprop, lars or muon")


def _require_matrices(match: str, named: Named) -> None:
    if vectors := [name for name, parameter in named if parameter.ndim < 2]:
        raise ConfigError(
            f"optimizer.name=muon needs parameters of two dimensions or more, and match={match} gives it "
            f"{_listing(vectors)}; use optimizers.filters.match=*conv*.weight, say, beside another optimizer"
        )


def _listing(names: list[str]) -> str:
    """The first names, and how many follow."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
