from typing import Any

import pytest
import torch
from torch import nn

from raylr.errors import ConfigError
from raylr.planning.plan import OptimizerPlan
from raylr.training.models import build
from raylr.training.muon import FilterMuon
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
    with pytest.raises(
        ConfigError, match=r"optimizer.name=lamb is not known; use one of sgd, adam, adamw, rmsprop, lars, muon, prod"
    ):
        build_optimizers(model(), {"main": plan(kind="lamb")})


def moved(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: list[torch.Tensor]) -> torch.Tensor:
    """The parameter after an update by each gradient."""
    for gradient in gradients:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()
    return parameter.detach()


def test_lars_moves_a_layer_by_a_share_of_its_own_norm_and_norms_and_biases_as_sgd_does():
    """By hand, for the first update: w - LR x 0.001 |w| / (|g| + decay |w|) x (g + decay w); the rest is b - LR x g."""
    pytest.importorskip("timm", reason="the extra raylr[lars] is not installed")
    layer = nn.Linear(2, 1)
    for parameter, value, gradient in ((layer.weight, [[3.0, 4.0]], [[0.6, -0.8]]), (layer.bias, [1.0], [0.5])):
        parameter.data, parameter.grad = torch.tensor(value), torch.tensor(gradient)
    optimizer = build_optimizers(layer, {"main": plan(kind="lars", nesterov=False, weight_decay=0.1)})["main"]
    for group in optimizer.param_groups:
        group["lr"] = 2.0
    optimizer.step()
    trust = 0.001 * 5.0 / (1.0 + 0.1 * 5.0)
    expected = [[3.0 - 2 * trust * (0.6 + 0.3), 4.0 - 2 * trust * (-0.8 + 0.4)]]
    torch.testing.assert_close(layer.weight.data, torch.tensor(expected))
    torch.testing.assert_close(layer.bias.data, torch.tensor([0.0]))


def test_lars_without_weight_decay_still_scales_by_layer():
    pytest.importorskip("timm", reason="the extra raylr[lars] is not installed")
    groups = build_optimizers(model(), {"main": plan(kind="lars", weight_decay=0.0)})["main"].param_groups
    assert [group["always_adapt"] for group in groups] == [True, False]


def test_muon_moves_filters_as_torchs_moves_the_matrix_of_them():
    torch.manual_seed(0)
    filters, gradients = torch.randn(8, 3, 3, 3), [torch.randn(8, 3, 3, 3) for _ in range(4)]
    settings = {"lr": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 0.3}
    ours, matrix = nn.Parameter(filters.clone()), nn.Parameter(filters.clone().flatten(1))
    moved(FilterMuon([ours], **settings), ours, gradients)
    moved(torch.optim.Muon([matrix], **settings), matrix, [gradient.flatten(1) for gradient in gradients])
    assert torch.equal(ours.flatten(1), matrix)
    assert not torch.equal(ours, filters)


@pytest.mark.parametrize("shapes", [[(8, 4, 3, 3)], [(8, 4, 3, 3), (8, 4, 3, 3), (40, 8), (8, 40)]])
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_step_in_fewer_launches_is_torchs_muon(shapes, nesterov):
    """That of a GPU, here without its graph. Tall matrices have an LR of their own, by Muon's rule."""
    torch.manual_seed(0)
    settings = {"lr": 0.1, "momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.3}
    start = [torch.randn(shape) for shape in shapes]
    ours, matrices = ([nn.Parameter(one.clone()) for one in start] for _ in range(2))
    matrices = [nn.Parameter(one.detach().flatten(1)) for one in matrices]
    fewer, muon = FilterMuon(ours, **settings), torch.optim.Muon(matrices, **settings)
    fewer.directions.wanted = False
    for _ in range(3):
        for one, matrix in zip(ours, matrices, strict=True):
            one.grad = torch.randn_like(one)
            matrix.grad = one.grad.flatten(1)
        fewer._step_on_gpu(fewer.param_groups[0], ours)
        muon.step()
    for one, matrix in zip(ours, matrices, strict=True):
        torch.testing.assert_close(one.flatten(1), matrix, rtol=1e-5, atol=1e-6)


def test_muon_gives_the_same_whatever_the_layout_in_memory():
    torch.manual_seed(0)
    filters, gradients = torch.randn(8, 4, 3, 3), [torch.randn(8, 4, 3, 3) for _ in range(4)]
    plain, last = nn.Parameter(filters.clone()), nn.Parameter(filters.to(memory_format=torch.channels_last))
    assert plain.stride() != last.stride()
    torch.testing.assert_close(
        moved(FilterMuon([plain], lr=0.1), plain, gradients),
        moved(FilterMuon([last], lr=0.1), last, gradients),
        atol=0.01,  # it computes in bf16, and the order of sums differs
        rtol=0.0,
        check_stride=False,
    )


def test_an_update_of_muon_has_singular_values_near_one():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.zeros(8, 3, 3, 3))
    update = moved(FilterMuon([filters], lr=1.0, weight_decay=0.0), filters, [torch.randn(8, 3, 3, 3)])
    sizes = torch.linalg.svdvals(update.flatten(1))
    assert 0.6 < sizes.min() <= sizes.max() < 1.3


def test_muons_state_is_by_parameter_in_its_shape_and_layout():
    filters = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
    unused = nn.Parameter(torch.randn(2, 2))
    optimizer = FilterMuon([filters, unused], lr=0.1)
    moved(optimizer, filters, [torch.ones(8, 4, 3, 3)])
    assert list(optimizer.state) == [filters]
    buffer = optimizer.state[filters]["momentum_buffer"]
    assert (buffer.shape, buffer.stride()) == (filters.shape, filters.stride())
    torch.testing.assert_close(buffer, torch.full_like(buffer, 0.05))  # 1 - 0.95 of the gradient


def test_muon_goes_on_from_a_state_that_was_put_back():
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 3, 3, 3), [torch.randn(8, 3, 3, 3) for _ in range(4)]
    whole, half = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    moved(FilterMuon([whole], lr=0.1), whole, gradients)
    first = FilterMuon([half], lr=0.1)
    moved(first, half, gradients[:2])
    second = FilterMuon([half], lr=0.1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(moved(second, half, gradients[2:]), whole)


def test_muon_takes_filters_beside_another_optimizer_for_the_rest():
    owner = build("cnn-small", 10, (9, 9, 3)).to(memory_format=torch.channels_last)
    plans = {"filters": plan(kind="muon", match="*conv*.weight"), "rest": plan(match="stem.*, *norm*, head.*")}
    optimizers = build_optimizers(owner, plans)
    assert type(optimizers["filters"]) is FilterMuon
    (group,) = optimizers["filters"].param_groups
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.0, 0.9, True, 0.1)
    assert {parameter.ndim for parameter in group["params"]} == {4}
    assert len(group["params"]) == 6


def test_muon_refuses_what_is_no_matrix():
    message = (
        r"optimizer.name=muon needs .*, and match=\* gives it body.bias, norm.weight, norm.bias; use optimizers.fil"
    )
    with pytest.raises(ConfigError, match=message):
        build_optimizers(model(), {"main": plan(kind="muon")})
