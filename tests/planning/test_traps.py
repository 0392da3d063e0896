"""Warnings about an LR that comes from elsewhere, and the micro-batch of a small batch."""

from typing import Any

import pytest

from raylr.config import MODELS, Config
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.planning.story import WITHOUT_BATCHNORM
from raylr.training.models import build
from raylr.training.own_parts import look_at_own_parts

DATA = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3), "", "")


def planned(**values: str) -> Plan:
    config = load_config(None, {key.replace("__", "."): value for key, value in values.items()})
    return resolve(config, DATA, Hardware(False, 0))[0]


def line(plan: Plan, what: str) -> tuple[str, str] | None:
    return next(((one.value, one.why) for one in plan.story if one.what == what), None)


def test_an_lr_tuned_at_another_batch_than_the_reference_is_told_with_the_flag_that_mends_it() -> None:
    told = (
        "lr.base 0.1 is taken as tuned at batch 512, so the peak is 0.025; "
        "if it was tuned at 128: --lr.reference-batch 128"
    )
    assert told in planned(lr__base="0.1", batch__global_size="128").warnings
    # sqrt of 4 for AdamW
    assert any("so the peak is 0.002;" in one for one in planned(
        optimizer__name="adamw", lr__base="0.001", batch__global_size="2048").warnings)  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"lr__base": "0.1"},
        {"lr__base": "0.1", "lr__reference_batch": "128", "batch__global_size": "128"},
        {"batch__global_size": "128"},
        {"lr__base": "0.1", "lr__scaling": "none", "batch__global_size": "128"},
    ],
)
def test_nothing_is_told_where_nothing_is_scaled_unasked(values: dict[str, str]) -> None:
    assert not any("taken as tuned" in one for one in planned(**values).warnings)


def test_each_optimizer_has_a_warning_of_its_own() -> None:
    plan = planned(
        optimizers__head__match="head*",
        optimizers__head__lr__base="0.1",
        optimizers__rest__match="*",
        batch__global_size="1024",
    )
    assert [one for one in plan.warnings if "taken as tuned" in one] == [
        "optimizers.head.lr.base 0.1 is taken as tuned at batch 512, so the peak is 0.2; if it was tuned at 1024: "
        "--optimizers.head.lr.reference-batch 1024"
    ]


def test_a_ported_script_is_told_once_of_what_is_on_by_default() -> None:
    told = [one for one in planned(lr__base="0.1", optimizer__momentum="0.9").warnings if "on by default" in one]
    assert told == [
        "on by default, and maybe not in the script that the LR is from: Nesterov, weight decay 0.0005, mirrored images, "
        "random crops; off: --optimizer.no-nesterov --optimizer.weight-decay 0 --data.flip none --data.crop-padding 0"
    ]
    given = {
        "optimizer__nesterov": "no",
        "optimizer__weight_decay": "5e-4",
        "data__flip": "none",
        "data__crop_padding": "4",
    }
    for quiet in ({"lr__base": "0.1"}, {"optimizer__momentum": "0.9"}, {"lr__base": "0.1", **given}):
        assert not any("on by default" in one for one in planned(**quiet).warnings)


@pytest.mark.parametrize(
    ("batch", "micro"),
    [
        ({}, 128), ({"global_size": 256}, 128), ({"global_size": 255}, 85), ({"global_size": 128}, 64),
        ({"global_size": 192}, 96), ({"global_size": 100}, 50), ({"global_size": 127}, 127), ({"global_size": 8}, 8),
        ({"global_size": 128, "micro_size": 128}, 128), ({"per_worker_size": 128}, 128), ({"per_worker_size": 64}, 64),
        ({"per_worker_size": 192}, 96), ({"per_worker_size": 256}, 128), ({"ramp": "128 for 2ep, 256"}, 128),
    ],
)  # fmt: skip
def test_the_micro_batch_of_a_small_batch_is_its_largest_divisor_that_leaves_two(
    batch: dict[str, Any], micro: int
) -> None:
    assert resolve(Config(batch=batch, workers="1"), DATA, Hardware(False, 0))[0].micro_size == micro


def test_the_micro_batch_depends_on_no_number_of_workers_and_has_a_reason() -> None:
    two = planned(batch__global_size="128", workers="2")
    assert two.micro_size == planned(batch__global_size="128", workers="1").micro_size == 64
    why = "the largest that divides batch.global_size=128, which is less than two of 128; BatchNorm sees these together"
    assert line(two, "micro-batch") == ("64", why)
    assert line(planned(), "micro-batch") is None
    with pytest.raises(
        ConfigError, match=r"workers=4 is more than .* 2 \(batch\.global_size=128 / batch\.micro_size=64\); use"
    ):
        planned(batch__global_size="128", workers="4")
    with pytest.raises(
        ConfigError, match=r"batch\.global_size=300 is not a multiple of batch\.micro_size=128; use 256 or 384"
    ):
        planned(batch__global_size="300")


def test_a_network_without_batchnorm_is_told_that_micro_batches_change_the_bits_alone() -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    for name in MODELS:
        model = build(name, 10, (32, 32, 3), 0.0)
        has = any(isinstance(module, _BatchNorm) for module in model.modules())
        assert (name in WITHOUT_BATCHNORM) is not has
    why = "the model has no BatchNorm, so micro-batches change nothing but the bits"
    assert line(planned(model__name="vit-small"), "micro-batch") == ("128", why)


def test_a_model_of_ones_own_is_looked_at(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "from torch import nn",
        "def plain(num_classes):",
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))",
    ]
    lines += [
        "def normed(num_classes):",
        "    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3072, num_classes))",
    ]
    (tmp_path / "own_trap.py").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = look_at_own_parts(planned(model__name="own_trap:plain", batch__global_size="128"))
    assert [one.what for one in plain.story][2:5] == ["global batch", "workers", "micro-batch"]
    assert "change nothing but the bits" in (line(plain, "micro-batch") or ("", ""))[1]
    assert line(look_at_own_parts(planned(model__name="own_trap:normed")), "micro-batch") is None
