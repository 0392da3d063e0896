"""LRs that follow what is measured: independent values, equal at any number of workers, after a resume and in a fork."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.legs import Leg
from raylr.planning.plan import AdaScalePlan, GradNormPlan, HypergradientPlan, Parent, Plan
from raylr.planning.resolve import resolve
from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from raylr.training.fork import ForkLoop
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.replay import Interval, Record, replay
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy, train

CIFAR = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3), "", "")
DATA = images(90, 50)
NORM = GradNormPlan(target=1.0, every=64, memory=3, low=0.3, high=3.0)
LENGTH: dict[str, Any] = {"total_examples": 400, "checkpoint_every": 96, "checkpoint_keep": 9}
ANGLE = HypergradientPlan(beta=0.2, every=64, low=0.3, high=3.0)
KINDS: dict[str, dict[str, Any]] = {
    "grad_norm": {"grad_norm": NORM},
    "hypergradient": {"hypergradient": ANGLE},
    "adascale": {"adascale": AdaScalePlan(every=64, reference_batch=8)},
}


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def overrides(folder: Path, cause: str) -> list[tuple[int, float]]:
    events = [row for row in rows(folder, "events.jsonl") if row["kind"] == "override"]
    assert {row["cause"] for row in events} == {cause}
    return [(row["position"], row["factor"]) for row in events]


def alone(of: Plan, folder: Path) -> dict[str, Any]:
    """The result of a run by one rank, which goes on from what is in the folder."""
    there = LocalFolder(folder)
    there.create()
    return Loop(Trainer(of, policy(of, warmup=0), DATA), Plain(Group()), there).run()  # type: ignore[arg-type]


def test_the_factor_is_the_target_over_the_mean_norm_in_the_ledger(tmp_path: Path) -> None:
    of = plan(**LENGTH, grad_norm=NORM)
    alone(of, tmp_path)
    ledger, average, expected, count = rows(tmp_path, "ledger.jsonl"), 0.0, [], 0
    for row in ledger:
        count = min(count + 1, 3)
        average = average * (1 - 1 / count) + row["grad_norm"] / count
        after = row["position"] + 32
        if after % 64 == 0:
            expected.append((after, min(max(1.0 / average, 0.3), 3.0)))
    found = overrides(tmp_path, "grad_norm")
    assert found == [(position, pytest.approx(factor)) for position, factor in expected]
    assert len({factor for _, factor in found}) > 2
    at_work = {row["position"]: row["factors"]["main"]["override"] for row in ledger}
    assert (at_work[32], at_work[64], at_work[96]) == (1.0, found[0][1], found[0][1])
    assert [row["causes"] for row in ledger[1:4]] == [[], ["grad_norm"], ["grad_norm"]]


def test_the_factor_grows_with_the_cosine_of_each_gradient_to_the_one_before(tmp_path: Path) -> None:
    """Plain SGD at an LR that hardly moves: the gradients are those of fixed weights, taken by torch's own way here."""
    sgd = OPTIMIZER.model_copy(update={"momentum": 0.0, "weight_decay": 0.0})
    of = plan(**LENGTH, hypergradient=ANGLE, optimizers={"main": sgd}, clip_norm=None)
    trainer = Trainer(of, policy(of, "constant", warmup=0, base_lr=0.01), DATA)  # type: ignore[arg-type]
    before, factor, expected = None, 1.0, []
    for update in range(6):
        weights = [one.detach().clone() for one in trainer.parameters]
        made = trainer.update(Group())
        moved = torch.cat(
            [(a - b).detach().flatten() for a, b in zip(weights, trainer.parameters, strict=True)]
        ).double()
        if before is not None:
            cosine = float(moved @ before / moved.norm() / before.norm())
            assert made.cosine == pytest.approx(cosine, abs=2e-3)
            factor = min(max(factor * (1 + 0.2 * made.cosine), 0.3), 3.0)
        before = moved
        if update % 2:
            expected.append((32 * (update + 1), pytest.approx(factor)))
    loop = LocalFolder(tmp_path)
    loop.create()
    lr = policy(of, "constant", warmup=0, base_lr=0.01)
    Loop(Trainer(of, lr, DATA), Plain(Group()), loop).run()  # type: ignore[arg-type]
    assert overrides(tmp_path, "hypergradient")[0] == expected[0]  # the next gradients are of other weights


def test_after_an_update_that_was_taken_back_there_is_no_gradient_before() -> None:
    of = plan(**LENGTH, hypergradient=ANGLE)
    trainer = Trainer(of, policy(of, warmup=0), DATA)  # type: ignore[arg-type]
    trainer.update(Group())
    with torch.no_grad():
        trainer.parameters[0].fill_(torch.nan)
    assert trainer.update(Group()).rolled_back
    assert math.isnan(trainer.update(Group()).cosine)
    assert math.isfinite(trainer.update(Group()).cosine)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_to_the_bit_for_any_number_of_workers(ranks: Ranks, tmp_path: Path, kind: str) -> None:
    of, found = plan(**LENGTH, **KINDS[kind]), []
    for size in (1, 2):
        results = ranks.run(train, size, of, policy(of, warmup=0), DATA, str(tmp_path / str(size)))
        found.append((results[0]["weights_sha256"], overrides(tmp_path / str(size), kind)))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_a_fork_and_a_replay_do_what_the_whole_run_does(tmp_path: Path, kind: str) -> None:
    of = plan(**LENGTH, **KINDS[kind])
    whole = alone(of, tmp_path / "whole")["weights_sha256"]
    alone(of, tmp_path / "resumed")
    for name in [name for name in names(LocalFolder(tmp_path / "resumed")) if int(name) > 192]:
        for suffix in ("json", "pt"):
            (tmp_path / "resumed" / "checkpoints" / f"{name}.{suffix}").unlink()
    assert alone(of, tmp_path / "resumed")["weights_sha256"] == whole
    assert [row["lr"] for row in rows(tmp_path / "resumed", "ledger.jsonl")] == [
        row["lr"] for row in rows(tmp_path / "whole", "ledger.jsonl")
    ]
    fork, lr = LocalFolder(tmp_path / "fork"), policy(of, warmup=0)
    fork.create()
    told = of.model_copy(update={"parent": Parent(run="whole", position=224, step=7)})
    forked = ForkLoop(told, lr, [Leg("whole", 224, of, lr)], DATA, Plain(Group()), fork).run()  # type: ignore[arg-type]
    assert forked["weights_sha256"] == whole
    events = [row for row in rows(tmp_path / "whole", "events.jsonl") if row["kind"] == "override"]
    record = Record(str(tmp_path), "whole", of, lr, (), rows(tmp_path / "whole", "ledger.jsonl"), events)
    intervals = [Interval(0, 192, True), Interval(192, 288, True)]
    assert replay(record, intervals, DATA, Group(), lambda count: None) is None  # type: ignore[arg-type]


def resolved(**values: str) -> Plan:
    config = load_config(None, {key.replace("__", "."): value for key, value in values.items()})
    return resolve(config, CIFAR, Hardware(False, 0))[0]


def test_the_plan_tells_of_it() -> None:
    made = resolved(lr__grad_norm__target="0.5", lr__grad_norm__every="1ep", lr__grad_norm__bounds="0.2:5")
    assert made.grad_norm == GradNormPlan(target=0.5, every=50_000, memory=100, low=0.2, high=5.0)
    line = next(one for one in made.story if one.what == "gradient norm")
    assert line.value == "LR x 0.5 / mean norm of 100 updates, 0.2 to 5, anew every 1ep = 50,000 examples"
    assert resolved().grad_norm is None
    made = resolved(lr__hypergradient__beta="0.05")
    assert made.hypergradient == HypergradientPlan(beta=0.05, every=5_000, low=0.1, high=10.0)
    line = next(one for one in made.story if one.what == "hypergradient")
    assert line.value == "LR x (1 + 0.05 cos) with each update, 0.1 to 10, set every 0.1ep = 5,000 examples"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"lr__grad_norm__target": "1", "lr__grad_norm__bounds": "2:5"},
            "lr.grad_norm.bounds=2:5 leaves 1 out, the schedu",
        ),
        (
            {"lr__grad_norm__target": "1", "lr__grad_norm__bounds": "5:2"},
            "lr.grad_norm.bounds=5:2 is upside down; use 2:5",
        ),
        (
            {"lr__grad_norm__target": "1", "lr__grad_norm__every": "0ep"},
            "lr.grad_norm.every=0ep is no interval; use 1st",
        ),
        ({"lr__grad_norm__target": "0"}, "lr.grad_norm.target=0 must be more than 0"),
        ({"lr__hypergradient__beta": "1"}, "lr.hypergradient.beta=1 must be less than 1"),
        (
            {"lr__hypergradient__beta": "0.1", "batch__reduce": "ddp"},
            "lr.hypergradient.beta=0.1 needs the gradient of the tr",
        ),
        (
            {"lr__hypergradient__beta": "0.1", "lr__hypergradient__every": "0st"},
            "lr.hypergradient.every=0st is no interval",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(**values)
