"""Races with a stand-in for training that leaves real run folders."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raylr.api.plan import plan
from raylr.api.race import Race, Spread, race, z_test
from raylr.cli import main
from raylr.cli.race import _told
from raylr.config import Config
from raylr.config.load import load_config
from raylr.errors import ConfigError, RaylrError
from raylr.running.driver import RunResult
from tests.api.stand_in import StandIn
from tests.api.test_compare import BASE


class Track(StandIn):
    """Runs whose accuracy in test number k is k x (base LR + seed / 100), at k x 1000 examples and k x 10 seconds."""

    def __call__(self, config: Config) -> RunResult:
        made, policy = plan(config)
        rate = policy.schedules[0][1].base_lr + config.seed / 100
        name = made.split
        rows = [
            {"position": 1000 * k, "wall_s": 10.0 * k, f"{name}_accuracy": k * rate, f"{name}_loss": 1 - k * rate,
             "train_loss": 1.0, "train_accuracy": 0.5, "images_per_s": 100.0}
            for k in (1, 2, 3)
        ]  # fmt: skip
        result = {"test_accuracy": rows[-1][f"{name}_accuracy"], "weights_sha256": str(config.seed)}
        return self.ended(config, made, policy, result, metrics=rows)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(BASE)  # a base LR of 0.2
    (tmp_path / "b.yaml").write_text(BASE.replace("base: 0.2", "base: 0.3"))
    return tmp_path


def run(there: Path, track: Track, target: float, **named: Any) -> Race:
    common = load_config(None, {"storage": str(there / "runs"), **named.pop("common", {})})
    against = str(there / named.pop("against")) if "against" in named else None
    return race(str(there / "a.yaml"), target, common=common, against=against, train=track, hold=track.hold, **named)


def test_the_first_test_at_the_target_counts(there: Path) -> None:
    found = run(there, Track(), 0.45, seeds=4)
    assert [(lap.seed, lap.examples, lap.seconds) for lap in found.laps] == [
        (0, 3000, 30.0), (1, 3000, 30.0), (2, 3000, 30.0), (3, 2000, 20.0),
    ]  # fmt: skip
    assert found.laps[3].best == pytest.approx(0.69)
    spread = found.spread("A", "seconds")
    assert spread is not None
    assert (spread.mean, spread.deviation, spread.count) == (27.5, 5.0, 4)


def test_a_loss_is_reached_from_above(there: Path) -> None:
    found = run(there, Track(), 0.6, seeds=1, metric="test_loss")
    assert (found.laps[0].examples, found.laps[0].best) == (2000, pytest.approx(0.4))


def test_two_configs_race_with_the_same_seeds_and_the_z_test_compares_them(there: Path) -> None:
    track = Track()
    found = run(there, track, 0.6, seeds=3, against="b.yaml")
    assert [(lap.side, lap.seed) for lap in found.laps] == [(side, seed) for seed in (0, 1, 2) for side in "AB"]
    assert [lap.examples for lap in found.of("A")] == [3000, 3000, 3000]
    assert [lap.examples for lap in found.of("B")] == [2000, 2000, 2000]
    test = found.test("examples")
    assert test is not None
    assert (test.difference, test.z, test.p) == (1000.0, math.inf, 0.0)
    assert found.row()["tests"]["examples"]["z"] is None
    json.dumps(found.row(), allow_nan=False)
    run(there, track, 0.6, seeds=3, against="b.yaml")
    assert len(track.trained) == 6  # all were there


def test_the_z_value_is_the_textbooks() -> None:
    found = z_test(Spread(52.0, 4.0, 40), Spread(50.0, 3.0, 36))
    assert found is not None
    error = math.sqrt(16 / 40 + 9 / 36)
    assert found.z == pytest.approx(2 / error)
    assert found.p == pytest.approx(0.0131, abs=1e-4)  # 2 (1 - Phi(2.4807))
    assert z_test(Spread(1.0, math.nan, 1), Spread(2.0, 0.1, 5)) is None


def test_seeds_that_miss_are_told_and_no_test_is_made(there: Path) -> None:
    found = run(there, Track(), 0.62, seeds=2, against="b.yaml")
    assert [lap.examples is None for lap in found.laps] == [True, False, False, False]
    assert found.test("seconds") is None
    assert _told(found)[0] == "A: test_accuracy 0.62 by 1 of 2 seeds after 3,000 examples, 30.0 seconds"


def test_a_validation_split_is_what_counts(there: Path) -> None:
    assert run(there, Track(), 0.5, seeds=1, common={"data.validation": "0.1"}).metric == "validation_accuracy"


def test_what_cannot_be_raced_is_one_line(there: Path) -> None:
    told = _told(run(there, Track(), 0.45, seeds=4))
    assert told == ["A: test_accuracy 0.45 by 4 of 4 seeds after 2,750 +- 500 examples, 27.5 +- 5.0 seconds"]
    with pytest.raises(
        RaylrError, match=r"target=0.9: none of 2 runs reached this test_accuracy; the best was 0.6300 with seed 1"
    ):
        run(there, Track(), 0.9, seeds=2)
    for named, told in (
        ({"target": 70.0}, "target=70 is no test_accuracy, which is from 0 to 1; use 0.7 for 70 %"),
        ({"target": 0.5, "seeds": 0}, "seeds=0 trains nothing"),
        ({"target": 0.5, "metric": "accuracy"}, "metric=accuracy is not measured on the way; use "),
    ):
        with pytest.raises(ConfigError, match=told):
            run(there, Track(), **named)


def test_the_verb_names_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["race", "nothing.yaml", "--target", "0.5"]) == 2
    assert "nothing.yaml" in capsys.readouterr().err
