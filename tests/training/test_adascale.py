"""`lr.scaling=adascale`: the gain from the ledger's own estimates, its two limits, and what it does not go with."""

import re
from pathlib import Path
from typing import Any

import pytest

from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.lr import Policy, rule
from raylr.planning.facts import Hardware
from raylr.planning.plan import AdaScalePlan, Plan
from raylr.planning.resolve import resolve
from raylr.reporting.runs import explain_step
from raylr.storage import LocalFolder
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.measured import followed
from raylr.training.membership import Plain
from raylr.training.noise import Noise
from raylr.training.totals import Totals
from raylr.training.trainer import Trainer, Update
from tests.planning.test_instruments import DATA as DESCRIBED
from tests.training.runs import images, plan, policy
from tests.training.test_measured import overrides, rows
from tests.training.test_noise import PLAIN

DATA = images(90, 50)
EVERY_TWO = AdaScalePlan(every=64, reference_batch=8)  # updates of 32 examples: k = 4


def lr_of(of: Plan, scaling: str = "adascale") -> Policy:
    return policy(of, "cosine", 0, scaling=scaling, reference_batch=8)


def trained(of: Plan, folder: Path, data: Any = DATA) -> list[dict[str, Any]]:
    """The ledger of a run by one rank."""
    there = LocalFolder(folder)
    there.create()
    Loop(Trainer(of, lr_of(of), data), Plain(Group()), there).run()
    return rows(folder, "ledger.jsonl")


def test_the_gain_is_that_of_the_estimates_in_the_ledger_and_tau_their_sum(tmp_path: Path) -> None:
    of = plan(total_examples=400, checkpoint_every=400, adascale=EVERY_TWO)
    ledger = trained(of, tmp_path)
    gains, taus = [1.0] * len(ledger), [0.0] * len(ledger)
    for first in range(0, len(ledger) - 2, 2):
        square, variance = (
            sum(row[name] for row in ledger[first : first + 2]) / 2 for name in ("gradient_square", "gradient_variance")
        )
        signal, noise = max(square, 0), variance / 8  # of a gradient of the reference batch
        gains[first + 2 : first + 4] = [(noise + signal) / (noise / 4 + signal)] * len(gains[first + 2 : first + 4])
    for number in range(1, len(ledger)):
        taus[number] = taus[number - 1] + gains[number - 1]
    assert [row["factors"]["main"]["override"] for row in ledger] == pytest.approx(gains)
    assert [row["tau"] for row in ledger] == pytest.approx(taus)
    assert all(1 <= gain <= 4 for gain in gains)
    assert len(set(gains)) > 3
    assert [row["causes"] for row in ledger[:4]] == [[], [], ["adascale"], ["adascale"]]
    plain = policy(of, "cosine", 0, scaling="none", reference_batch=8)
    assert [row["lr"]["main"] for row in ledger] == [
        pytest.approx(plain.lr(row["position"], 32) * gain) for row, gain in zip(ledger, gains, strict=True)
    ]
    folder = LocalFolder(tmp_path)
    folder.write_json("plan.json", of.model_dump(mode="json"))
    (tmp_path / "policy.json").write_text(lr_of(of).to_json())
    told = f"  adascale  the run is worth {taus[4]:,.1f} updates of 8 so far by its gains, of 16.0 with noise alone"
    assert told in explain_step(folder, 4).splitlines()


def test_where_all_micro_batches_are_alike_the_lr_stays_that_of_the_reference_batch(tmp_path: Path) -> None:
    """Eight examples in all: each micro-batch of eight has all of them, so gradients do not scatter."""
    of = plan(num_train=8, total_examples=320, checkpoint_every=320, eval_every=320, adascale=EVERY_TWO, **PLAIN)
    ledger = trained(of, tmp_path, images(8, 50))
    assert [gain for _, gain in overrides(tmp_path, "adascale")] == pytest.approx([1.0] * 5, abs=1e-3)
    base = [policy(of, "cosine", 0, scaling="none", reference_batch=8).lr(row["position"], 32) for row in ledger]
    assert [row["lr"]["main"] for row in ledger] == pytest.approx(base, rel=1e-3)


def update(noise: Noise) -> Update:
    return Update(1, 32, 32, 1, {}, (), 1.0, 0, False, noise=noise)


@pytest.mark.parametrize("square", [0.0, -0.3])
def test_with_noise_alone_it_is_linear_scaling(square: float) -> None:
    of = plan(adascale=EVERY_TWO)
    totals, factors = followed(of, Totals(), update(Noise(square, 5.0)), 64)
    assert factors == {"adascale": 4.0}
    assert lr_of(of).lr(64, 32) * factors["adascale"] == lr_of(of, "linear").lr(64, 32)
    assert totals.gain_count == 0


def test_between_two_settings_and_after_an_update_that_was_taken_back_nothing_is_set() -> None:
    of = plan(adascale=AdaScalePlan(every=96, reference_batch=8))
    totals, factors = followed(of, Totals(gain=3.0), update(Noise(1.0, 5.0)), 64)
    assert (factors, totals.tau, totals.gain_count) == ({}, 3.0, 1)
    back = Update(1, 64, 32, 1, {}, (), 1.0, 0, False, rolled_back=True)
    assert followed(of, totals, back, 96) == (totals, {})


def test_the_rule_leaves_the_base_lr_to_the_gain() -> None:
    assert rule("adascale", 8.0) == 1.0


def resolved(**fields: object) -> tuple[Plan, Policy]:
    given = {"batch.global_size": 128, "batch.micro_size": 32, "epochs": 4, "lr.scaling": "adascale", **fields}
    return resolve(config_of(given), DESCRIBED, Hardware(False, 0))


def test_the_plan_tells_of_it() -> None:
    made, lr = resolved(**{"lr.reference_batch": 32, "lr.adascale.every": "0.2ep"})
    assert made.adascale == AdaScalePlan(every=200, reference_batch=32)
    assert lr.schedule().peak(128) == 0.4
    lines = {line.what: (line.value, line.why) for line in made.story}
    assert lines["lr peak"] == ("0.4", "as at the reference batch; the gain, 1 to 4, is measured on the way")
    assert (
        lines["adascale"][0]
        == "LR x gain, how many updates of 32 one of the batch is worth, set every 0.2ep = 200 examples"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"batch.micro_size": 128, "workers": 1},
            "lr.scaling=adascale compares micro-batches, and an update has one, of 128",
        ),
        (
            {"batch.reduce": "ddp"},
            "lr.scaling=adascale compares micro-batches, which batch.reduce=ddp has none of; use linear",
        ),
        ({"lr.adascale.every": "0ep"}, "lr.adascale.every=0ep is no interval"),
    ],
)
def test_where_the_gain_cannot_be_measured_it_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolved(**fields)
