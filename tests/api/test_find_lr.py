"""Range tests with a stand-in for training that leaves real ledgers: what is trained, what is found, what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raylr.api.find_lr import FoundLR, find_lr, under_test
from raylr.api.plan import plan
from raylr.config import Config
from raylr.config.load import config_of, load_config
from raylr.config.starting import config_text
from raylr.errors import ConfigError, RaylrError
from raylr.lr.range_test import lrs, suggestion
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.lr_ranges import lines, loss_plot, save_png
from raylr.running.driver import RunResult
from raylr.storage import run_folder
from tests.api.stand_in import StandIn
from tests.ranks import Ranks
from tests.training.runs import images, train

BASE = {
    "workers": "1", "data.source": "synthetic", "data.train_examples": 1000, "data.test_examples": 800,
    "batch.global_size": 128, "batch.micro_size": 64,
}  # fmt: skip
BEST = {"sgd": 0.4, "adamw": 0.004}


class World(StandIn):
    """Runs whose losses follow a parabola in log LR around the best LR of the algorithm, a decade to either side."""

    def __init__(self) -> None:
        super().__init__()
        self.worse = 0.0

    def loss(self, kind: str, lr: float, seed: int) -> float:
        decades = math.log10(lr / BEST[kind])
        return self.worse * max(0.0, decades + 4) + 1 + 0.001 * seed + min(1.3, decades**2)

    def __call__(self, config: Config) -> RunResult:
        made, policy = plan(config)
        rows = []
        for step in range(made.total_examples // 128):
            rates = {name: policy.lr(128 * step, 128, name) for name in policy.optimizers}
            ((name, lr),) = [(name, lr) for name, lr in rates.items() if lr > 0]
            kind = made.optimizers[name].kind
            row = {"step": step, "lr": rates, "loss": self.loss(kind, lr, config.seed)}
            read = {"headroom": 0.1 * lr / BEST[kind]} if step % 5 == 0 else {}
            rows.append({**row, **read})
        return self.ended(config, made, policy, {}, ledger=rows)


def found(tmp_path: Path, world: World, fields: dict[str, Any] | None = None, **named: Any) -> FoundLR:
    fields = fields or {}
    base = {key: value for key, value in BASE.items() if not (key == "batch.global_size" and "batch.ramp" in fields)}
    config = config_of({**base, "storage": str(tmp_path), **fields})
    return find_lr(config, train=world, hold=world.hold, **named)


GROUPS = {
    "optimizers.body.match": "*conv*.weight", "optimizers.body.optimizer.name": "adamw", "optimizers.body.until": "1ep",
    "optimizers.rest.match": "*norm*,stem.*,head.*", "optimizers.rest.lr.base": 0.2,
}  # fmt: skip


def test_three_seeds_give_a_curve_whose_range_holds_the_best_lr(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world)
    (curve,) = answer.curves
    assert [config.seed for config in world.trained] == [0, 1, 2]
    assert (world.starts, answer.num_trained, answer.reference_batch) == (1, 3, 128)
    assert curve.field == "lr.base"
    assert curve.lrs == pytest.approx(lrs(4e-3, 12.0, 100))  # a hundredth to thirty times the tuned 0.4
    assert curve.losses[2][0] - curve.losses[0][0] == pytest.approx(0.002)
    assert curve.suggestion == suggestion(curve.lrs, curve.losses, curve.headrooms)
    assert curve.suggestion.tenth == pytest.approx(0.04, rel=0.1)
    assert curve.suggestion.edge == pytest.approx(4.0)  # where 0.1 x LR / 0.4 is 1
    assert curve.suggestion.critical == pytest.approx(0.4)  # a tenth of it
    assert len(curve.headrooms) == 20


def test_the_lr_of_each_update_is_that_of_the_grid(tmp_path: Path) -> None:
    world = World()
    (curve,) = found(tmp_path, world, low=1e-3, high=10.0, updates=50).curves
    ledger = run_folder(str(tmp_path), str(world.trained[0].name)).read_rows("ledger.jsonl")
    assert [row["lr"]["sgd"] for row in ledger] == pytest.approx(list(curve.lrs))
    assert (len(curve.lrs), curve.lrs[0], curve.lrs[-1]) == (50, 1e-3, pytest.approx(10.0))


def test_a_test_that_was_interrupted_goes_on_and_a_finished_one_trains_nothing(tmp_path: Path) -> None:
    first, again = World(), World()
    answer = found(tmp_path, first, seeds=3)
    more = found(tmp_path, again, seeds=4)
    assert [config.seed for config in again.trained] == [3]
    assert (more.num_trained, more.curves[0].losses[:3]) == (1, answer.curves[0].losses)


def test_each_optimizer_has_a_curve_of_its_own_while_the_others_stand_still(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, GROUPS)
    assert [(curve.optimizer, curve.field) for curve in answer.curves] == [
        ("body", "optimizers.body.lr.base"), ("rest", "optimizers.rest.lr.base"),
    ]  # fmt: skip
    assert len(world.trained) == 6
    body, rest = (one.suggestion.lr for one in answer.curves)
    assert rest / body == pytest.approx(100, rel=0.01)  # as their best LRs
    assert all(group.until is None for config in world.trained for group in config.optimizers.values())


def test_what_would_disturb_the_test_is_left_out_of_its_runs(tmp_path: Path) -> None:
    world = World()
    more = {
        "batch.ramp": "128 for 1ep, 256", "stop.metric": "test_loss", "hooks.end": "tests.training.watched:see",
        "log_every": "5st", "name": "mine", "trackers": "mlflow", "optimizer.momentum": 0.8, "lr.base": 0.7, "seed": 5,
    }  # fmt: skip
    found(tmp_path, world, more)
    one = world.trained[0]
    assert (one.batch.global_size, one.batch.ramp, one.stop.metric, one.hooks.end) == (128, None, None, None)
    assert (one.trackers, one.guard.enabled, one.log_every, one.lr.warmup) == ("none", False, None, "0ep")
    assert (one.optimizer.momentum, one.seed, one.data.test_examples) == (0.8, 5, 500)
    assert str(one.name).startswith("find-lr-")


def test_the_suggestion_is_written_as_a_config_that_has_it_at_this_batch(tmp_path: Path) -> None:
    for fields in ({}, GROUPS):
        answer = found(tmp_path, World(), fields)
        config = config_of({**BASE, "epochs": 3, **fields})
        (tmp_path / "tuned.yaml").write_text(config_text(answer.applied(config), tmp_path / "tuned.yaml"))
        written = load_config(tmp_path / "tuned.yaml")
        sections = [group.lr for group in written.optimizers.values()] or [written.lr]
        for section, curve in zip(sections, answer.curves, strict=True):
            assert section.base == pytest.approx(curve.suggestion.lr, rel=0.01)
            assert section.reference_batch == 128
        assert written.epochs == 3


def test_a_terminal_and_a_picture_show_the_curve_and_its_lrs(tmp_path: Path) -> None:
    answer = found(tmp_path, World(), GROUPS)
    curve = answer.curves[1]
    plot = loss_plot(curve, 60).splitlines()
    assert plot[0].startswith("loss of rest, mean of 3 seeds")
    assert all(sign in plot[-2] for sign in "stve") or len(set(plot[-2]) & set("stve")) >= 2  # some may coincide
    assert plot[-1].split() == ["LR", "0.004", "12"]
    told = "\n".join(lines(curve, answer.reference_batch))
    assert told.startswith("optimizers.rest.lr.base: ")
    assert "at a batch of 128, 3 seeds" in told
    assert "edge     4: " in told
    assert "critical 0.4: " in told
    assert save_png(answer.curves, tmp_path / "lr.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ConfigError, match=r"png=.*no/lr.png cannot be written"):
        save_png(answer.curves, tmp_path / "no" / "lr.png")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"low": 1.0, "high": 0.1}, "from=1 must be above 0 and below to=0.1; use --from 0.004"),
        ({"low": 0.0}, "from=0 must be above 0 and below to=12; use --from 0.004"),
        ({"updates": 5}, "updates=5 are too few for a curve; use 10 or more, such as 100"),
        ({"seeds": 0}, "seeds=0 must be 1 or more; use 3"),
    ],
)
def test_a_range_that_is_none_is_refused_before_anything_starts(tmp_path: Path, named: Any, said: str) -> None:
    world = World()
    with pytest.raises(ConfigError, match=said):
        found(tmp_path, world, **named)
    assert (world.trained, world.starts) == ([], 0)


def test_a_lowest_lr_that_diverges_and_a_run_that_failed_are_told(tmp_path: Path) -> None:
    world = World()
    world.worse = 3.0
    with pytest.raises(
        RaylrError,
        match=r"^rest: from=0\.004 already diverges: the loss rises from .* in its first updates; use --from 4e-06$",
    ):
        found(tmp_path / "one", world, {"optimizers.rest.match": "*"})
    world.status = "failed"
    with pytest.raises(RaylrError, match="has failed, and there is no curve; see its failure"):
        found(tmp_path / "two", world)
    world.status = "stopped"
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "three", world)


INFO = DatasetInfo("synthetic", 320, 50, ("a", "b", "c"), (9, 9, 3), "", "")


def test_real_runs_give_the_same_suggestion_at_1_2_and_4_workers(ranks: Ranks, tmp_path: Path) -> None:
    config = config_of({**BASE, "batch.global_size": 32, "batch.micro_size": 8, "precision": "fp32"})
    at_first, _ = resolve(config, INFO, Hardware(False, 0))
    decayed = config_of({**BASE, "lr.layer_decay": 0.5, "lr.shape": "cosine"})
    assert under_test(decayed, at_first, 32, "sgd", (1e-3, 10.0), 40).lr.layer_decay == 0.5
    made, policy = resolve(under_test(config, at_first, 32, "sgd", (1e-3, 10.0), 40), INFO, Hardware(False, 0))
    found = []
    for size in (1, 2, 4):
        of = made.model_copy(update={"workers": (size, size)})
        ranks.run(train, size, of, policy, images(320, 50), str(tmp_path / f"{size}"))
        rows = [json.loads(line) for line in (tmp_path / f"{size}" / "ledger.jsonl").read_text().splitlines()]
        headrooms = [(row["lr"]["sgd"], row["headroom"]) for row in rows if "headroom" in row]
        assert (len(rows), len(headrooms)) == (40, 20)
        found.append(suggestion(lrs(1e-3, 10.0, 40), [[row["loss"] for row in rows]], headrooms))
    assert found[0] == found[1] == found[2]
