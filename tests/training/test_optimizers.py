from typing import Any

import pytest
import torch
from torch import nn

from raylr.errors import ConfigError
from raylr.run_plan import OptimizerPlan
from raylr.training.optimizers import build_optimizers


def plan(**changes: Any) -> OptimizerPlan:
    values: dict[str, Any] = {
        "kind": "sgd", "match": "*", "momentum": 0.9, "nesterov": True, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6,
        "amsgrad": False, "weight_decay": 0.1, "decay_norms_and_biases": False,
    }  # fmt: skip
    return OptimizerPlan(**values | changes)


def model() -> nn.Module:
    """Parameters body.weight, body.bias, norm.weight, norm.bias, head.weight."""
    parts = {"body": nn.Linear(2, 3), "norm": nn.BatchNorm1d(3), "head": nn.Linear(3, 2, bias=False)}
    return nn.ModuleDict(parts)


def names(optimizer: torch.optim.Optimizer, owner: nn.Module) -> set[str]:
    by_parameter = {parameter: name for name, parameter in owner.named_parameters()}
    return {by_parameter[parameter] for group in optimizer.param_groups for parameter in group["params"]}


@pytest.mark.parametrize(
    ("kind", "cls", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": False}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": False}),
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.95, "eps": 1e-6, "momentum": 0.9}),
    ],
)
def test_each_kind_gets_its_settings_and_no_lr(kind, cls, settings):
    optimizer = build_optimizers(model(), {"main": plan(kind=kind)})["main"]
    assert type(optimizer) is cls
    for group in optimizer.param_groups:
        assert group["lr"] == 0.0
        assert {key: group[key] for key in settings} == settings


def test_amsgrad_is_handed_on():
    assert build_optimizers(model(), {"main": plan(kind="adam", amsgrad=True)})["main"].param_groups[0]["amsgrad"]


def test_sgd_without_momentum_is_plain():
    group = build_optimizers(model(), {"main": plan(momentum=0.0)})["main"].param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


def test_norms_and_biases_do_not_decay():
    decays = {
        name: group["weight_decay"]
        for group in build_optimizers(model(), {"main": plan()})["main"].param_groups
        for name in group["param_names"]
    }
    assert decays == {"body.weight": 0.1, "head.weight": 0.1, "body.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0}


def test_norms_and_biases_decay_on_demand():
    (group,) = build_optimizers(model(), {"main": plan(decay_norms_and_biases=True)})["main"].param_groups
    assert (len(group["params"]), group["weight_decay"]) == (5, 0.1)


def test_patterns_share_the_parameters_out():
    owner = model()
    optimizers = build_optimizers(
        owner, {"body": plan(match="body.*, norm.?ias, norm.weight"), "head": plan(kind="adamw", match="head.*")}
    )
    assert names(optimizers["head"], owner) == {"head.weight"}
    assert names(optimizers["body"], owner) == {"body.weight", "body.bias", "norm.weight", "norm.bias"}


def test_frozen_parameters_belong_to_no_optimizer():
    owner = model()
    owner["head"].requires_grad_(False)
    assert "head.weight" not in names(build_optimizers(owner, {"main": plan()})["main"], owner)


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        (
            {"a": "body.*,tail.*", "b": "*"},
            r"optimizers.a.match=tail.\* matches no parameter; the model has body.weight, body.bias",
        ),
        (
            {"a": "body.*", "b": "*.weight"},
            r"optimizers.b.match=\*.weight matches body.weight, which optimizers.a.match=body.\* has already",
        ),
        (
            {"a": "body.*"},
            r"optimizers: no match takes norm.weight, norm.bias, head.weight; let one optimizer's match include it",
        ),
    ],
)
def test_a_parameter_without_exactly_one_optimizer_is_refused(matches, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizers(model(), {name: plan(match=match) for name, match in matches.items()})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer.name=lamb is not known; use sgd, adam, adamw or rmsprop"):
        build_optimizers(model(), {"main": plan(kind="lamb")})
