"""The configs that ship in jobs/: each is accepted as it stands and gives the curve that its comment promises."""

import json
import re
from pathlib import Path

import pytest
import yaml

from raylr.config.load import load_config
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.gauges import LR, MEANINGS

JOBS = Path(__file__).parents[1] / "jobs"
CONFIGS = sorted(path for path in JOBS.rglob("*.yaml") if "apiVersion" not in yaml.safe_load(path.read_text()))
CIFAR10 = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3))


def resolved(name: str) -> tuple[Plan, Policy]:
    return resolve(load_config(JOBS / f"{name}.yaml"), CIFAR10, Hardware(bf16=True, num_gpus=0))


@pytest.mark.parametrize("name", [str(path.relative_to(JOBS).with_suffix("")) for path in CONFIGS])
def test_a_config_that_ships_is_accepted_without_a_warning(name):
    plan, _ = resolved(name)
    assert plan.warnings == ()
    assert plan.eval_every == 50_000  # a test after every epoch


# By hand, at a batch of 512: update 1,464 starts at example 749,568, the last before epoch 15 = 750,000 examples;
# a cycle is 2,000 updates; the warmup's first update has done 1 of its 200 updates' examples.
@pytest.mark.parametrize(
    ("recipe", "update", "lr"),
    [
        ("multistep", 1464, 0.1),
        ("multistep", 1465, 0.01),
        ("step", 976, 0.1),  # 499,712 examples, before epoch 10
        ("step", 977, 0.05),
        ("step", 1954, 0.025),  # 1,000,448 examples, past epoch 20
        ("exponential", 97, 0.1),  # 49,664 examples: epoch 0
        ("exponential", 98, 0.095),
        ("polynomial", 0, 0.1),
        ("polynomial", 2929, 0.1 * (352 / 1_500_000) ** 2),  # 1,499,648 of 1,500,000 examples
        ("triangular", 0, 0.001),
        ("triangular", 500, 0.0505),
        ("triangular", 1000, 0.1),
        ("triangular", 2000, 0.001),
        ("warmup-triangular", 0, 0.001 / 200),
        ("warmup-triangular", 199, 0.001),
        ("warmup-triangular", 200, 0.001),
        ("warmup-triangular", 1200, 0.1),
    ],
)
def test_a_recipe_has_the_lr_of_its_description(recipe, update, lr):
    _, policy = resolved(f"recipes/{recipe}")
    assert policy.lr(update * 512, 512) == pytest.approx(lr, rel=1e-12)


def test_every_recipe_is_plain_sgd_with_momentum():
    recipes = [f"recipes/{path.stem}" for path in CONFIGS if path.parent.name == "recipes"]
    assert len(recipes) == 6
    for name in recipes:
        sgd = resolved(name)[0].optimizers["sgd"]
        assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, False, 0.0)


def test_the_dashboard_shows_every_gauge_and_no_other():
    dashboard = json.loads((JOBS / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert {name for text in asked for name in re.findall(r"ray_(\w+)\{", text)} == {*MEANINGS, LR}
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
