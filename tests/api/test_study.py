"""Studies of widths and amounts of data with a stand-in for training: the grid, what is best, what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raylr.api.plan import plan
from raylr.api.study import Place, Study, study
from raylr.config import Config
from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.lr.range_test import parabola_top
from raylr.reporting.study import cell_line, lines, save_png
from raylr.running.driver import RunResult
from tests.api.stand_in import StandIn
from tests.json_page import lacking

BASE = {
    "workers": "1", "data.source": "synthetic", "data.train_examples": 1000, "data.test_examples": 200, "epochs": 2,
    "batch.global_size": 64, "batch.micro_size": 64,
}  # fmt: skip


class World(StandIn):
    """Runs whose loss is a parabola in log2 LR: best at 0.2 / width, or at 0.2 under the rule, higher with fewer images."""

    def loss(self, config: Config, num_train: int, floor: str) -> float:
        best = 0.2 if config.model.transfer == "completep" else 0.2 / config.model.width
        assert config.lr.base is not None
        off = math.log2(config.lr.base / best)
        return 1 + 0.1 * off**2 + 100 / num_train + 0.001 * config.seed + (0.05 if "0.1" in floor else 0.0)

    def __call__(self, config: Config) -> RunResult:
        made, policy = plan(config)
        loss = self.loss(config, made.num_train, config.lr.shape or "")
        return self.ended(config, made, policy, {"validation_loss": loss, "validation_accuracy": 1 / (1 + loss)})


def found(tmp_path: Path, world: World, fields: dict[str, Any] | None = None, **named: Any) -> Study:
    config = config_of({**BASE, "storage": str(tmp_path), **(fields or {})})
    return study(config, train=world, hold=world.hold, **named)


def test_the_top_of_a_parabola_in_log_lr_is_found_exactly_and_an_end_is_an_end() -> None:
    rates = [0.1, 0.3, 0.5]
    losses = [(math.log(rate) - math.log(0.25)) ** 2 for rate in rates]
    assert parabola_top(rates, losses) == pytest.approx(0.25)
    assert parabola_top(rates, [1.0, 2.0, 3.0]) == 0.1
    assert parabola_top(rates, [3.0, 2.0, math.inf]) == 0.3


def test_the_best_lr_of_each_width_is_found_with_what_that_of_width_1_costs(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, widths=(0.5, 1, 2), lrs=(0.8, 0.1, 0.2, 0.4, 0.05))
    bests = {place.width: answer.best(place) for place in answer.places}
    assert {width: best and best.cell.lr for width, best in bests.items()} == {0.5: 0.4, 1: 0.2, 2: 0.1}
    for width, best in bests.items():
        assert best is not None
        assert best.lr == pytest.approx(0.2 / width)
        assert best.regret == (None if width == 1 else pytest.approx(0.1))  # one doubling off
        assert not best.at_end
    assert (len(world.trained), world.starts, answer.num_trained) == (30, 1, 30)
    assert [cell.lr for cell in answer.at(answer.places[0])] == [0.05, 0.1, 0.2, 0.4, 0.8]


def test_a_rule_is_tried_beside_none_and_shares_the_runs_of_width_1(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, widths=(1, 2), lrs=(0.1, 0.2, 0.4), transfers=("none", "completep"), seeds=1)
    assert len(world.trained) == 9  # of 12 points
    best = answer.best(Place("completep", 2, None))
    assert best is not None
    assert (best.cell.lr, best.regret) == (0.2, 0.0)


def test_amounts_of_data_are_those_trained_on_and_decays_are_floors(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, lrs=(0.1, 0.2), examples=(100, 400), decays=(0, 0.1, 1), seeds=1)
    assert {(plan(one)[0].num_train, one.data.validation) for one in world.trained} == {(100, 0.2), (400, 0.2)}
    assert {one.lr.shape for one in world.trained} == {"linear(floor=0)", "linear(floor=0.1)", "constant"}
    best = answer.best(Place("none", 1.0, 100))
    assert best is not None
    assert (best.cell.decay, best.cell.loss, best.at_end) == (0, pytest.approx(2.0), True)


def test_a_larger_grid_takes_the_runs_of_a_smaller_one(tmp_path: Path) -> None:
    again = World()
    found(tmp_path, World(), lrs=(0.1, 0.2))
    answer = found(tmp_path, again, lrs=(0.1, 0.2, 0.4), seeds=2)
    assert [(one.lr.base, one.seed) for one in again.trained] == [(0.4, 0), (0.4, 1)]
    assert answer.num_trained == 2


def test_without_lrs_five_around_the_configs_are_tried_and_a_given_split_is_kept(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, {"lr.base": 0.4, "data.validation": 0.3}, seeds=1)
    assert [cell.lr for cell in answer.cells] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert {one.data.validation for one in world.trained} == {0.3}


def test_the_lines_and_the_picture_say_what_is_best(tmp_path: Path) -> None:
    answer = found(tmp_path, World(), widths=(1, 2), lrs=(0.1, 0.2, 0.4))
    told = "\n".join(lines(answer))
    assert told.startswith(
        "validation loss, mean of 2 seeds, by LR at a batch of 512:\nwidth 1\n  0.1: 1.2255  0.2: 1.1255"
    )
    numbers = "accuracy 47.05%; 0.00071 between seeds"
    assert f"  best 0.2, 0.2 between the points; {numbers}\nwidth 2\n" in told
    ending = f"  best 0.1, where the grid ends: give --lrs beyond it; {numbers}; the best of width 1 costs 0.1000 here"
    assert told.endswith(ending)
    assert cell_line(answer.cells[0]) == "width 1, LR 0.1: validation loss 1.2255"
    assert save_png(answer, tmp_path / "study.png").read_bytes()[1:4] == b"PNG"
    assert lacking("study", {**json.loads(json.dumps(answer.row())), "png": None}) == []


def test_runs_that_failed_have_no_loss(tmp_path: Path) -> None:
    world = World()
    world.status = "failed"
    answer = found(tmp_path, world, lrs=(0.1, 0.2), seeds=1)
    assert (answer.best(answer.places[0]), answer.row()["best"]) == (None, [])
    assert "no run has a loss; use lower --lrs" in "\n".join(lines(answer))
    world.status = "stopped"
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "other", world)


@pytest.mark.parametrize(
    ("fields", "named", "said"),
    [
        ({}, {"widths": (0, 1)}, "widths=0 is no width; use from above 0 to 16, such as 0.5,1,2"),
        ({}, {"widths": ()}, "widths= names none; use 0.5,1,2"),
        ({}, {"lrs": (0.1, -1)}, "lrs=-1 is no LR; use numbers above 0, such as 0.1,0.2,0.4"),
        ({}, {"lrs": (0.1, 0.1)}, "lrs=0.1,0.1 has one twice; give each once"),
        ({}, {"examples": (0,)}, "examples=0 is no number of images; use 1000,5000"),
        ({}, {"decays": (2,)}, "decays=2 is no share of the peak; use 0 to 1, such as 0,0.1"),
        ({}, {"transfers": ("mup",)}, "transfer=mup is not known; use none or completep"),
        ({}, {"seeds": 0}, "seeds=0 must be 1 or more; use 2"),
        ({"model.name": "resnet18"}, {"widths": (0.5, 1)}, "model.width=0.5 beside model.name=resnet18, which takes no width"),
        ({"data.validation": 0}, {}, "data.validation=0 leaves nothing to judge by but test images; use 0.2, or leave it out"),
        ({"optimizers.a.match": "*"}, {}, "optimizers=a: a study has one LR, lr.base; use optimizer alone"),
        ({"optimizers.a.match": "*conv*", "optimizers.b.match": "*"}, {}, "optimizers=a, b: a study has one LR, lr.base; use"),
    ],
)  # fmt: skip
def test_a_grid_that_is_none_is_refused_before_anything_starts(
    tmp_path: Path, fields: dict[str, Any], named: Any, said: str
) -> None:
    world = World()
    with pytest.raises(ConfigError, match=said):
        found(tmp_path, world, fields, **named)
    assert (world.trained, world.starts) == ([], 0)
