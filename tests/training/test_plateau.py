"""`lr.plateau`: torch's ReduceLROnPlateau as overrides, equal at every number of workers, after a resume and in a fork."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.lr import Override
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.legs import Leg
from raylr.planning.plan import Parent, Plan, PlateauPlan
from raylr.planning.resolve import resolve
from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from raylr.training.fork import ForkLoop
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.plateau import judged
from raylr.training.replay import Interval, Record, replay
from raylr.training.totals import Totals
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy, train

CIFAR = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3), "", "")
DATA = images(90, 50)
EVERY = 90


@pytest.mark.parametrize(("patience", "cooldown", "threshold"), [(0, 0, 0.0), (2, 0, 0.05), (1, 3, 0.0), (3, 1, 0.1)])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("how", ["abs", "rel"])
def test_it_cuts_where_torchs_scheduler_does(
    how: str, mode: str, patience: int, cooldown: int, threshold: float
) -> None:
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    scheduler = ReduceLROnPlateau(
        optimizer, mode, 0.5, patience, threshold, how, cooldown, min_lr=2**-6, eps=0.0  # type: ignore[arg-type]
    )  # fmt: skip
    cut = PlateauPlan(
        metric="test_loss", mode=mode, factor=0.5, patience=patience * EVERY, cooldown=cooldown * EVERY,
        lowest=2**-6, **{"min_delta" if how == "abs" else "min_share": threshold},
    )  # fmt: skip
    of, totals, dice = plan(plateau=cut), Totals(), random.Random(7)
    for test in range(1, 80):
        value = dice.random() / (1 + test / 20 if mode == "min" else 1)
        position = test * EVERY + dice.choice((0, 6, 22))  # the first update at or after it
        totals = Totals(**{**vars(totals), "evaluated_at": position, "test_loss": value})
        before = totals.plateau.get("factor", 1.0)
        totals, new = judged(of, totals)
        scheduler.step(value)
        assert totals.plateau["factor"] == optimizer.param_groups[0]["lr"], test
        assert new == (None if totals.plateau["factor"] == before else totals.plateau["factor"])
    assert totals.plateau["factor"] < 1 / 4


def test_a_mean_of_tests_hides_one_that_is_better_by_luck_and_no_number_is_never_better() -> None:
    cut = PlateauPlan(metric="test_loss", mode="min", factor=0.1, patience=EVERY, average=2)
    factors = []
    totals = Totals()
    for test, value in enumerate((1.0, 0.5, 1.5, 0.5, float("nan"), 0.25, 1.0), 1):  # means 1, 3/4, 1, 1, -, 3/8, 5/8
        totals = Totals(**{**vars(totals), "evaluated_at": test * EVERY, "test_loss": value})
        totals, _ = judged(plan(plateau=cut), totals)
        factors.append(totals.plateau["factor"])
    assert factors == [1, 1, 1, 0.1, 0.1, 0.1, 0.1]


CUT = PlateauPlan(
    metric="test_loss", mode="min", factor=0.5, patience=0, min_delta=9.0, lowest=0.2
)  # each test but one
FIELDS: dict[str, Any] = {
    "plateau": CUT,
    "total_examples": 400,
    "eval_every": 64,
    "checkpoint_every": 64,
    "checkpoint_keep": 9,
}


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_it_is_an_override_at_one_position_for_any_number_of_workers_in_ledger_and_events(
    ranks: Ranks, tmp_path: Path
) -> None:
    of, found = plan(**FIELDS), []
    for size in (1, 2):
        results = ranks.run(train, size, of, policy(of, warmup=0), DATA, str(tmp_path / str(size)))
        ledger = [
            (row["position"], row["causes"], row["factors"]["main"])
            for row in rows(tmp_path / str(size), "ledger.jsonl")
        ]
        events = [row for row in rows(tmp_path / str(size), "events.jsonl") if row["kind"] == "override"]
        told = [(row["position"], row["cause"], row["factor"], row["for_examples"]) for row in events]
        found.append((results[0]["weights_sha256"], ledger, told))
    assert found[0] == found[1]
    _, ledger, told = found[0]
    # tests at 64, 128, ...; the first one is the best, the third cut stops at 0.2
    assert told == [(128, "plateau", 0.5, None), (192, "plateau", 0.25, None), (256, "plateau", 0.2, None)]
    overrides = {position: (factors["override"], causes) for position, causes, factors in ledger}
    assert (overrides[96], overrides[128], overrides[224]) == ((1.0, []), (0.5, ["plateau"]), (0.25, ["plateau"]))
    entries = tuple(Override(position, factor, 0, "*", "plateau") for position, _, factor, _ in told)
    lr = policy(of, warmup=0).with_overrides(*entries)
    assert all(row["lr"]["main"] == lr.lr(row["position"], 32) for row in rows(tmp_path / "1", "ledger.jsonl"))


def test_a_resumed_run_cuts_where_the_whole_one_does(tmp_path: Path) -> None:
    of = plan(**FIELDS)

    def loop(folder: LocalFolder) -> Loop:
        folder.create()
        return Loop(Trainer(of, policy(of), DATA), Plain(Group()), folder)  # type: ignore[arg-type]

    whole = LocalFolder(tmp_path / "whole")
    result = loop(whole).run()
    cut_off = LocalFolder(tmp_path / "resumed")
    loop(cut_off).run()
    for name in names(cut_off):
        if int(name) > 192:
            cut_off.remove(f"checkpoints/{name}.json")
            cut_off.remove(f"checkpoints/{name}.pt")
    assert loop(cut_off).run()["weights_sha256"] == result["weights_sha256"]
    assert [row["lr"] for row in rows(cut_off.path, "ledger.jsonl")] == [
        row["lr"] for row in rows(whole.path, "ledger.jsonl")
    ]


def test_a_fork_replays_the_cuts_of_its_parent_and_makes_its_own_and_a_replay_finds_them(tmp_path: Path) -> None:
    of, lr = plan(**FIELDS), policy(plan(**FIELDS), warmup=0)
    whole, fork = LocalFolder(tmp_path / "whole"), LocalFolder(tmp_path / "fork")
    whole.create()
    result = Loop(Trainer(of, lr, DATA), Plain(Group()), whole).run()  # type: ignore[arg-type]
    fork.create()
    legs = [Leg("whole", 224, of, lr)]
    told = of.model_copy(update={"parent": Parent(run="whole", position=224, step=7)})
    forked = ForkLoop(told, lr, legs, DATA, Plain(Group()), fork).run()  # type: ignore[arg-type]
    assert forked["weights_sha256"] == result["weights_sha256"]
    events = [row for row in rows(fork.path, "events.jsonl") if row["kind"] == "override"]
    assert [(row["position"], row["factor"]) for row in events] == [(128, 0.5), (192, 0.25), (256, 0.2)]
    record = Record(str(tmp_path), "whole", of, lr, (), whole.read_rows("ledger.jsonl"), [
        row for row in rows(whole.path, "events.jsonl") if row["kind"] == "override"
    ])  # fmt: skip
    intervals = [Interval(0, 192, True), Interval(192, 320, True)]
    assert replay(record, intervals, DATA, Group(), lambda count: None) is None  # type: ignore[arg-type]


def resolved(**values: str) -> Plan:
    config = load_config(None, {key.replace("__", "."): value for key, value in values.items()})
    return resolve(config, CIFAR, Hardware(False, 0))[0]


def test_the_plan_tells_of_it() -> None:
    made = resolved(lr__plateau__metric="test_accuracy", lr__plateau__average="3", lr__plateau__factor="0.2")
    assert made.plateau == PlateauPlan(
        metric="test_accuracy", mode="max", factor=0.2, patience=100_000, average=3, lowest=1e-3
    )  # fmt: skip
    line = next(one for one in made.story if one.what == "plateau")
    assert line.value == (
        "LR x 0.2 after more than 2ep = 100,000 examples without a higher test_accuracy, a mean of 3 tests, to x 0.001 at least"
    )
    assert resolved().plateau is None
    warned = resolved(lr__plateau__metric="test_loss", lr__plateau__patience="8ep").warnings
    assert "lr.plateau.patience=8ep is not shorter than the run of 8 epochs: it will cut nothing" in warned


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr__plateau__metric": "loss"}, "lr.plateau.metric=loss is not measured; did you mean test_loss?"),
        (
            {"lr__plateau__metric": "test_x", "metrics": "a.b:x"},
            "knows only those of raylr; give lr.plateau.mode=max or min",
        ),
        ({"lr__plateau__factor": "1.5"}, "lr.plateau.factor=1.5 must be less than 1"),
        (
            {"optimizers__all__match": "*", "optimizers__all__lr__plateau__metric": "test_loss"},
            "optimizers.all.lr.plateau is one for all optimizers; use lr.plateau",
        ),
    ],
)
def test_what_cannot_be_watched_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(**values)
