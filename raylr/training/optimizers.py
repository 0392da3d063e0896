"""Torch optimizers from the plan, one per group of parameters, each parameter in exactly one.

Their LR starts at 0 and is written by the loop before each update: what forgets to write it trains nothing.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from raylr.config.own_options import is_own
from raylr.config.run import OPTIMIZERS
from raylr.errors import ConfigError
from raylr.planning.plan import OptimizerPlan
from raylr.training.adaptive import prodigy, schedule_free
from raylr.training.layers import depths_of
from raylr.training.muon import FilterMuon
from raylr.training.own_optimizer import make, try_out
from raylr.training.patterns import listing, matched
from raylr.training.transfer import lr_scales

Named = list[tuple[str, nn.Parameter]]


def build_optimizers(model: nn.Module, plans: Mapping[str, OptimizerPlan]) -> dict[str, Optimizer]:
    """An optimizer per plan over the parameters that its patterns match.

    ConfigError when a pattern matches nothing, or a parameter is matched by two optimizers or by none.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    owners = _owners([name for name, _ in named], plans)
    depths = depths_of(model) if any(plan.layer_decay != 1.0 for plan in plans.values()) else {}
    return {
        key: _build(plan, [pair for pair in named if owners[pair[0]] == key], depths) for key, plan in plans.items()
    }


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
        patterns = [pattern.strip() for pattern in plan.match.split(",")]
        for name in matched(names, f"optimizers.{key}.match", patterns):
            if name in owners:
                raise ConfigError(
                    f"optimizers.{key}.match={plan.match} matches {name}, which optimizers.{owners[name]}.match"
                    f"={plans[owners[name]].match} has already; a parameter belongs to one optimizer"
                )
            owners[name] = key
    if missing := [name for name in names if name not in owners]:
        raise ConfigError(f"optimizers: no match takes {listing(missing)}; let one optimizer's match include it")
    return owners


def _by_scale(plan: OptimizerPlan, group: dict[str, Any], depths: Mapping[str, int]) -> list[dict[str, Any]]:
    """The group; with a layer decay or a transfer a group for each layer, the top first, and each class of parameters, whose
    `lr_scale` the writer of the LR takes."""
    if plan.layer_decay == 1.0 and plan.transfer == 1.0:
        return [group]
    scales = lr_scales(group["params"], plan.kind, plan.transfer)
    keys = {name: (depths.get(name, 0), scales.get(name, 1.0)) for name, _ in group["params"]}
    return [
        {
            **group,
            "params": [pair for pair in group["params"] if keys[pair[0]] == (depth, scale)],
            "lr_scale": plan.layer_decay**depth * scale,
            "weight_decay": group.get("weight_decay", plan.weight_decay) / scale,
        }
        for depth, scale in sorted(set(keys.values()))
    ]


def _build(plan: OptimizerPlan, named: Named, depths: Mapping[str, int]) -> Optimizer:
    """Weight decay acts on parameters of two or more dimensions only, unless the plan says on all."""
    decayed = [pair for pair in named if plan.decay_norms_and_biases or pair[1].ndim >= 2]
    spared = [pair for pair in named if not plan.decay_norms_and_biases and pair[1].ndim < 2]
    kinds = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for kind in kinds if kind["params"] for group in _by_scale(plan, kind, depths)]
    betas = (plan.beta1, plan.beta2)
    if is_own(plan.kind):
        return make(plan, [{**group, "params": [one for _, one in group["params"]]} for group in groups])
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

            adapted = {name for name, _ in decayed}
            layers = [{**group, "always_adapt": group["params"][0][0] in adapted} for group in groups]
            return Lars(layers, lr=0.0, momentum=plan.momentum, nesterov=plan.nesterov and plan.momentum > 0)
        case "prodigy":
            return prodigy(groups, plan)
        case "schedule-free":
            return schedule_free(groups, plan)
        case "muon":
            _require_matrices(plan.match, named)
            settings = {"momentum": plan.momentum, "nesterov": plan.nesterov, "weight_decay": plan.weight_decay}
            settings.update(ns_steps=plan.ns_steps, normalise=plan.normalise)
            return FilterMuon(_by_scale(plan, {"params": named}, depths), lr=0.0, **settings)  # type: ignore[arg-type]
    raise ConfigError(f"optimizer.name={plan.kind} is not known; use one of {', '.join(OPTIMIZERS)}")


def _require_matrices(match: str, named: Named) -> None:
    if vectors := [name for name, parameter in named if parameter.ndim < 2]:
        raise ConfigError(
            f"optimizer.name=muon needs parameters of two dimensions or more, and match={match} gives it "
            f"{listing(vectors)}; use optimizers.filters.match=*conv*.weight, say, beside another optimizer"
        )
