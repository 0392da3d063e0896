"""The width of a model: same bits at 1, channels and parameters at others, and the rule that carries an LR over."""

from typing import Any

import pytest
import torch

from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.training.group import Group
from raylr.training.models import build
from raylr.training.optimizers import build_optimizers
from raylr.training.trainer import Trainer
from raylr.training.transfer import begin
from tests.training.runs import OPTIMIZER, images, plan, policy

SHAPE = (32, 32, 3)
INFO = DatasetInfo("synthetic", 1000, 200, ("a", "b", "c"), SHAPE, "", "")


def planned(**fields: Any) -> Plan:
    return resolve(config_of({"epochs": 1, **fields}), INFO, Hardware(False, 0))[0]


@pytest.mark.parametrize("name", ["cnn-small", "vit-small"])
def test_a_model_of_width_1_has_the_bits_that_it_had(name: str) -> None:
    states = []
    for more in ({}, {"width": 1.0}):
        torch.manual_seed(3)
        states.append(build(name, 10, SHAPE, **more).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_channels_follow_the_width() -> None:
    shapes = {width: build("cnn-small", 10, SHAPE, 0.0, width).state_dict() for width in (0.5, 1.0, 2.0)}
    assert {width: tuple(one["groups.0.conv2.weight"].shape) for width, one in shapes.items()} == {
        0.5: (16, 16, 3, 3), 1.0: (32, 32, 3, 3), 2.0: (64, 64, 3, 3),
    }  # fmt: skip
    assert [len(shapes[width]["stem.weight"]) for width in (0.5, 1.0, 2.0)] == [12, 24, 48]
    vit = build("vit-small", 10, SHAPE, 0.0, 0.5)
    assert (vit.get_parameter("head.weight").shape, vit.get_parameter("positions").shape) == ((10, 96), (64, 96))
    assert vit(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def scaled(kind: str, name: str, m: float) -> dict[str, tuple[float, float]]:
    """Factors on the LR and the weight decay of each parameter."""
    model = build(name, 10, SHAPE, 0.0, m)
    own = OPTIMIZER.model_copy(update={"kind": kind, "transfer": m, "weight_decay": 0.1})
    (optimizer,) = build_optimizers(model, {"main": own}).values()
    names = {parameter: key for key, parameter in model.named_parameters()}
    return {
        names[one]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for one in group["params"]
    }


def test_the_factors_are_those_of_table_3_of_mup() -> None:
    adam, sgd = scaled("adamw", "vit-small", 2.0), scaled("sgd", "cnn-small", 2.0)
    assert adam["patches.weight"] == (1.0, 0.1)
    assert adam["positions"] == (1.0, 0.1)
    assert adam["blocks.3.mlp.0.weight"] == (0.5, 0.2)  # LR x decay stays
    assert adam["blocks.3.mlp.0.bias"] == (1.0, 0.0)
    assert adam["head.weight"] == (0.5, 0.2)
    assert sgd["stem.weight"] == (2.0, 0.05)
    assert sgd["groups.1.conv1.weight"] == (1.0, 0.1)
    assert sgd["groups.1.norm1.bias"] == (2.0, 0.0)
    assert sgd["head.weight"] == (0.5, 0.2)


def test_the_first_update_moves_a_hidden_layers_output_as_much_at_any_width_under_the_rule_alone() -> None:
    """Sign descent, as Adam does first, moves an output of a layer of n inputs by LR x n: LR / m keeps that."""
    moved = {}
    for transfer in (True, False):
        for width in (0.25, 1.0):
            torch.manual_seed(0)
            model = build("vit-small", 10, SHAPE, 0.0, width)
            own = OPTIMIZER.model_copy(
                update={"kind": "adamw", "weight_decay": 0.0, "transfer": width if transfer else 1.0}
            )
            (optimizer,) = build_optimizers(model, {"main": own}).values()
            layer = model.get_parameter("blocks.0.mlp.0.weight")
            before = layer.detach().clone()
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * group.get("lr_scale", 1.0)
            model(torch.rand(2, 3, 32, 32)).square().sum().backward()
            optimizer.step()
            moved[transfer, width] = float((layer.detach() - before).abs().sum(1).mean())
    assert moved[True, 0.25] == pytest.approx(moved[True, 1.0], rel=0.02)
    assert 4 * moved[False, 0.25] == pytest.approx(moved[False, 1.0], rel=0.02)


def test_a_fresh_model_begins_as_the_rule_says() -> None:
    for name, hidden, head in (("cnn-small", 1.0, 2.0), ("vit-small", 2.0, 4.0)):
        torch.manual_seed(1)
        plain = build(name, 10, SHAPE, 0.0, 0.25)
        torch.manual_seed(1)
        ruled = build(name, 10, SHAPE, 0.0, 0.25)
        begin(ruled, 0.25)
        for key, before in plain.named_parameters():
            inner = before.ndim > 1 and not key.startswith(("stem", "patches", "positions"))
            factor = head if key == "head.weight" else hidden if inner else 1.0
            assert torch.allclose(ruled.get_parameter(key), factor * before), key


def test_a_trainer_writes_the_factors_and_begins_by_the_rule() -> None:
    own = OPTIMIZER.model_copy(update={"transfer": 2.0})
    of = plan(width=2.0, optimizers={"main": own})
    trainer, plain = Trainer(of, policy(of), images(90, 50)), Trainer(plan(width=2.0), policy(of), images(90, 50))
    assert torch.allclose(trainer.model.get_parameter("head.weight") * 2**0.5, plain.model.get_parameter("head.weight"))
    lr = trainer.update(Group()).lr["main"]
    assert sorted({group["lr"] / lr for group in trainer.optimizers["main"].param_groups}) == [0.5, 1.0, 2.0]


def test_the_plan_says_what_follows_the_width_and_a_layer_decay_goes_with_it() -> None:
    found = planned(**{"model.width": 2, "model.transfer": "completep"})
    assert (found.width, found.optimizers["sgd"].transfer) == (2.0, 2.0)
    told = {line.what: (line.value, line.why) for line in found.story}
    assert told["width"] == ("x 2 channels", "model.width=2")
    assert told["transfer"][1] == "model.transfer=completep"
    assert planned(**{"model.width": 2}).optimizers["sgd"].transfer == 1.0
    assert "width" not in {line.what for line in planned().story}
    own = OPTIMIZER.model_copy(update={"transfer": 2.0, "layer_decay": 0.5})
    (optimizer,) = build_optimizers(build("cnn-small", 10, SHAPE, 0.0, 2.0), {"main": own}).values()
    scales = [group["lr_scale"] for group in optimizer.param_groups if group["weight_decay"]]
    assert scales == [0.5, 0.5, 0.25, 0.125, 0.125]  # head, three groups, stem: 1/2, then 1/2 1/4 1/8, then 1/16 x 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model.name": "resnet18", "model.width": 2}, "model.width=2 beside model.name=resnet18, which takes no"),
        (
            {"model.name": "tests.training.test_sharpness:tiny", "model.width": 0.5},
            "model.width=0.5 beside model.name=tests.training.test_sharpness:tiny, which takes no width; use cnn-small",
        ),
        (
            {"model.name": "airbench", "model.transfer": "completep"},
            "model.transfer=completep knows the parts of cnn-small, cnn-medium, cnn-large or vit-small, not those of airbench",
        ),
        (
            {"optimizer.name": "rmsprop", "model.width": 2, "model.transfer": "completep"},
            "model.transfer=completep has a rule for sgd, adam, adamw, not for rmsprop; use model.transfer=none",
        ),
    ],
)  # fmt: skip
def test_what_takes_no_width_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(**fields)


def test_a_width_of_a_vit_that_does_not_divide_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.width=0\.3 gives model\.name=vit-small 58 .* use model\.width=0\.296875"
    ):
        build("vit-small", 10, SHAPE, 0.0, 0.3)
    assert build("vit-small", 10, SHAPE, 0.0, 0.296875).get_parameter("head.weight").shape == (10, 57)
