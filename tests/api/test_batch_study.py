"""A batch study: forks that train for real in this process, and stand-ins whose losses are known; what is found and refused."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raylr.api.batch_study import BatchStudy, batch_study
from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import ALL_FEATURES, Hardware
from raylr.planning.plan import Plan
from raylr.reporting.batch_sizes import lines, save_png
from raylr.running import forking
from raylr.running.forking import ForkOrder
from raylr.storage import LocalFolder
from raylr.training.fork import ForkLoop
from raylr.training.group import Group
from raylr.training.membership import Plain
from raylr.training.source import load, prepare
from tests.api.stand_in import StandIn
from tests.ranks import Ranks
from tests.training.runs import pictures
from tests.training.test_initial import job_of, trained

FIELDS = {
    "batch.global_size": 6, "batch.micro_size": 3, "data.validation": 0.25, "workers": 1, "checkpoint.keep": 9,
    "lr.base": 0.05, "lr.reference_batch": 6, "lr.warmup": "0ep",
}  # fmt: skip


@pytest.fixture(scope="module")
def where(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `base`, of 54 images a epoch for two epochs, and `tested`, without a validation split."""
    found = tmp_path_factory.mktemp("batches")
    pictures(found / "abc", "abc")
    trained(ranks, 1, *job_of(found, "abc", "base", **FIELDS))
    trained(ranks, 1, *job_of(found, "abc", "tested", **{**FIELDS, "data.validation": 0.0}))
    return found


class Here(StandIn):
    """Trains forks in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[ForkOrder] = []

    def __call__(self, order: ForkOrder) -> Any:
        self.orders.append(order)
        parent, config = forking.origin(order)
        made = forking.resolved_fork(parent, order, config, prepare(config), Hardware(False, 0), ALL_FEATURES)
        folder = LocalFolder(Path(config.storage) / str(config.name))
        folder.create()
        folder.write_json("config.json", config.record())
        made.write_plan(folder)
        data = load(made.plan, config.data)
        result = ForkLoop(made.plan, made.policy, made.legs, data, Plain(Group()), folder).run()  # type: ignore[arg-type]
        folder.write_json("result.json", result)
        return SimpleNamespace(status=result["status"])


class Known(Here):
    """A stand-in: each branch ends at once with the loss that `loss` gives for its batch and rule."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def __call__(self, order: ForkOrder) -> Any:
        self.orders.append(order)
        fields = dict(order.changes or {})
        folder = LocalFolder(Path(fields["storage"]) / fields["name"])
        folder.create()
        batch, rule, end = fields["batch.global_size"], fields["lr.scaling"], round(float(fields["epochs"]) * 54)
        value = self.loss(batch, "" if batch == 6 else rule)
        losses = {55: 9.0, end - 6: value - 0.01, end: value + 0.01}
        rows = [
            {"step": 0, "position": position, "epoch": 1.0, "lr": {}, "train_loss": 1.0, "train_accuracy": 0.5,
             "validation_loss": loss, "validation_accuracy": 0.5, "images_per_s": 1.0, "world_size": 1,
             "global_batch": batch, "wall_s": 1.0}
            for position, loss in losses.items()
        ]  # fmt: skip
        updates = [
            {"position": end - 48 + 6 * step, "gradient_square": 0.5, "gradient_variance": 10.0 + step}
            for step in range(3)
        ]
        for name, found in (("metrics", rows), ("ledger", updates)):
            (folder.path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
        folder.write_json("result.json", {"status": "complete"})
        return SimpleNamespace(status="complete")


def study(where: Path, forks: Here, run: str = "base", **given: Any) -> BatchStudy:
    changes = {"storage": str(where / "runs"), **given.pop("changes", {})}
    return batch_study(run, changes, **given, train_fork=forks, hold=forks.hold)


def test_branches_hold_the_scaled_lr_and_are_judged_by_the_second_half_of_their_window(where: Path) -> None:
    here = Here()
    given = {"at": ["1ep"], "batches": ["2x"], "rules": ["none", "sqrt", "linear"], "window": "1ep"}
    found = study(where, here, **given)
    (place,) = found.places
    assert (place.position, place.batch, found.window, found.num_trained, here.starts) == (54, 6, 48, 4, 1)
    parent = [json.loads(line) for line in (where / "runs/base/ledger.jsonl").read_text().splitlines()]
    lr = next(row["lr"]["sgd"] for row in parent if row["position"] == 54)
    scales = {"": 1.0, "none": 1.0, "sqrt": math.sqrt(2), "linear": 2.0}
    for branch in (place.keeps, *place.branches):
        ledger = [json.loads(line) for line in Path(branch.run, "ledger.jsonl").read_text().splitlines()]
        own = [row for row in ledger if row["position"] >= 54]
        assert ledger[: len(ledger) - len(own)] == parent[:9]
        assert [row["lr"]["sgd"] for row in own] == pytest.approx([lr * scales[branch.rule]] * len(own))
        assert {row["global_batch"] for row in own} == {branch.batch}
        assert own[-1]["position"] + branch.batch == 54 + 48
        tests = [json.loads(line) for line in Path(branch.run, "metrics.jsonl").read_text().splitlines()]
        late = [row["validation_loss"] for row in tests if row["position"] > 54 + 24]
        assert branch.loss == pytest.approx(sum(late) / len(late))
        plan = Plan.model_validate_json(Path(branch.run, "plan.json").read_text())
        assert not plan.final_test  # the test images are not read
    ledger = [json.loads(line) for line in Path(place.keeps.run, "ledger.jsonl").read_text().splitlines()]
    own = [row for row in ledger if row["position"] >= 54]
    square, variance = (sum(row[name] for row in own) for name in ("gradient_square", "gradient_variance"))
    assert place.noise_scale == (pytest.approx(variance / square) if square > 0 else None)
    again = Here()
    assert study(where, again, **given).places == found.places
    assert (again.orders, again.starts) == ([], 0)  # nothing is trained twice


def test_the_largest_batch_is_the_last_before_the_first_that_loses_too_much(where: Path, tmp_path: Path) -> None:
    losses = {
        (12, "none"): 1.1,
        (12, "linear"): 1.02,
        (24, "none"): 1.4,
        (24, "linear"): 1.2,
        (48, "none"): 1.01,
        (48, "linear"): math.nan,
    }
    known = Known(lambda batch, rule: losses.get((batch, rule), 1.0))
    given = {"at": ["50ex"], "batches": ["2x", "24", "8x"], "rules": ["none", "linear"], "window": "200ex"}
    told = []
    found = study(where, known, **given, tell=told.append)
    (place,) = found.places
    assert (place.largest, place.rule) == (12, "linear")  # 48 would do, but 24 does not
    assert place.noise_scale == pytest.approx(11 / 0.5)
    best = place.best(48)
    assert best is not None
    assert best.rule == "none"
    assert told == [place]
    text = list(lines(place, 0.05))
    assert text[0] == "at epoch 1: batch 6 has a held-out loss of 1.0000; noise scale 22 examples"
    assert text[2].split() == ["12", "+0.1000", "+0.0200"]
    assert text[4].split() == ["48", "+0.0100", "diverged"]
    assert text[-1] == "  the largest batch that loses no more than 0.05: 12 under linear"
    assert save_png(found.places, tmp_path / "batch.png").read_bytes()[1:4] == b"PNG"
    row = json.loads(json.dumps(found.row()))
    assert [branch["batch"] for branch in row["places"][0]["branches"]] == [12, 12, 24, 24, 48, 48]
    looser = study(where, known, **given, tolerance=0.25)
    assert looser.places[0].largest == 48
    worse = Known(lambda batch, rule: 2.0 if rule else 1.0)
    assert study(where, worse, **{**given, "window": "210ex", "batches": ["2x"]}).places[0].largest == 6


def test_a_branch_under_adascale_measures_its_gain_and_flags_hold_for_all(where: Path) -> None:
    known = Known(lambda batch, rule: 1.0)
    study(where, known, at=["1ep"], batches=["2x"], rules=["adascale"], window="120ex", changes={"loss.clip_norm": "1"})
    keeps, scaled = (dict(order.changes or {}) for order in known.orders)
    assert {one["loss.clip_norm"] for one in (keeps, scaled)} == {"1"}
    assert (scaled["lr.scaling"], scaled["lr.adascale.every"]) == ("adascale", "12ex")
    assert keeps["instruments.noise"] == "120ex"


def test_a_stopped_fork_interrupts_and_one_that_keeps_the_batch_must_not_diverge(where: Path) -> None:
    class Ends(Here):
        def __init__(self, status: str) -> None:
            super().__init__()
            self.status = status

        def __call__(self, order: ForkOrder) -> Any:
            return SimpleNamespace(status=self.status, run_dir="runs/one")

    with pytest.raises(KeyboardInterrupt):
        study(where, Ends("stopped"), window="132ex", batches=["2x"])
    with pytest.raises(RaylrError, match=r"runs/one has failed; see its failure\.txt"):
        study(where, Ends("failed"), window="132ex", batches=["2x"])
    with pytest.raises(RaylrError, match="keeps the batch and has diverged, so there is nothing to compare with"):
        study(where, Known(lambda batch, rule: math.nan), window="144ex", batches=["2x"])


@pytest.mark.parametrize(
    ("run", "given", "message"),
    [
        ("tested", {}, "run=tested was tested on the test images, which are not there to choose by; train one with"),
        (
            "base",
            {"batches": ["1x"]},
            "batches=1x is no batch above 6, the run's, in whole micro-batches of 3; use 2x, or 12",
        ),
        ("base", {"batches": ["13"]}, "batches=13 is no batch above 6"),
        ("base", {"batches": ["many"]}, "batches=many is no batch above 6"),
        ("base", {"window": "1ep"}, "window=1ep has fewer than 4 updates of 48 examples; use 192ex or more"),
        ("base", {"rules": ["legw"]}, "rules=legw is no rule of a branch; use none, linear, sqrt or adascale"),
        ("base", {"tolerance": 0.0}, "tolerance=0 must be above 0"),
        ("base", {"at": ["9ep"]}, "at=9ep is beyond the end of base"),
        ("nowhere", {}, "run=nowhere"),
    ],
)
def test_what_cannot_be_studied_is_refused(where: Path, run: str, given: dict[str, Any], message: str) -> None:
    here = Here()
    with pytest.raises(ConfigError, match=re.escape(message)):
        study(where, here, run, **given)
    assert (here.orders, here.starts) == ([], 0)
