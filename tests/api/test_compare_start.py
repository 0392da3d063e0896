"""Ways to find a starting LR with a stand-in for training: who has which examples, whose LR is how far from the best."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from raylr.api.compare_start import Starts, compare_start
from raylr.api.plan import plan
from raylr.config import Config
from raylr.config.load import config_of
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.reporting.starts import lines
from raylr.running.driver import RunResult
from raylr.running.population.driver import PopulationResult
from raylr.storage import run_folder
from tests.api.stand_in import StandIn
from tests.json_page import lacking

BEST = 0.4  # base LR at a batch of 64
BASE = {
    "workers": "1", "data.source": "synthetic", "data.train_examples": 1000, "data.test_examples": 200, "epochs": 4,
    "batch.global_size": 64, "batch.micro_size": 64, "lr.base": 0.1, "lr.reference_batch": 64,
}  # fmt: skip
EPOCH = 800  # without the fifth that is held out


class World(StandIn):
    """Runs that end the better the nearer their LR is to BEST and the longer they are; searches of which trial t1 is best."""

    def __init__(self) -> None:
        super().__init__()
        self.searched: list[PopulationConfig] = []

    def train(self, config: Config) -> RunResult:
        made, policy = plan(config)
        name = policy.optimizers[0]
        off = 0.0 if config.optimizer.name == "prodigy" else abs(math.log2(policy.schedule(name).base_lr / BEST))
        accuracy = 0.6 - 0.05 * off + 0.01 * made.total_examples / EPOCH - 0.001 * config.seed
        rows = [
            {"position": at, "loss": 2.3 - 2 * math.exp(-((math.log(lr / 0.2)) ** 2)), "headroom": lr / 1.6}
            for at in range(0, made.total_examples, 64)
            if (lr := policy.lr(at, 64, name))
        ]
        result = {"validation_loss": 2 - accuracy, "validation_accuracy": accuracy}
        return self.ended(config, made, policy, result, ledger=rows)

    def search(self, config: PopulationConfig) -> PopulationResult:
        self.searched.append(config)
        rows = [{"trial": f"t{index}", "position": 3200, "base": 2.0 ** (index + 1)} for index in range(config.trials)]
        folder = run_folder(config.storage, str(config.name))
        folder.create()
        reports = [{"trial": "t3", "position": 800}] if config.search == "asha" else rows
        folder.append_after("reports.jsonl", [], [(json.dumps(row) + "\n").encode() for row in reports]).close()
        return PopulationResult(run_dir=str(folder), status="complete", best="t1", best_score=0.5, trials=rows)


def found(tmp_path: Path, world: World, fields: dict[str, Any] | None = None, **named: Any) -> Starts:
    config = config_of({**BASE, "storage": str(tmp_path), **(fields or {})})
    return compare_start(config, train=world.train, search=world.search, hold=world.hold, **named)


def test_a_search_takes_its_examples_from_the_run_that_follows(tmp_path: Path) -> None:
    world = World()
    answer = found(tmp_path, world, trials=3, within=(0.25, 32.0))
    starts = {one.way.name: one for one in answer.starts}
    assert answer.best_lr == pytest.approx(BEST, rel=0.2)
    assert (starts["default"].way.lr, starts["default"].way.spent) == (0.1, 0)
    assert starts["default"].examples == 4 * 4 * EPOCH  # all that there is
    assert starts["grid"].way.spent == 3 * 4 * EPOCH
    assert starts["grid"].examples == 4 * EPOCH
    assert starts["grid"].way.lr == pytest.approx(0.4)  # the config's LR times that of the best trial
    assert starts["grid"].factor == pytest.approx(max(BEST / answer.best_lr, answer.best_lr / BEST))
    assert starts["default"].factor == pytest.approx(answer.best_lr / 0.1)
    assert (starts["asha"].way.spent, starts["asha"].examples) == (800, 4 * 4 * EPOCH - 800)
    critical = starts["range test, critical"]
    assert critical.way.lr == pytest.approx(0.16, rel=0.15)  # a tenth of the LR whose headroom is 1
    assert critical.way.spent == 3 * 100 * 64
    assert critical.examples == 4 * EPOCH  # never shorter than the config's own
    assert ("prodigy" in starts) == (find_spec("prodigyopt") is not None)
    order = [one.mean for one in answer.starts]
    assert order == sorted(order, reverse=True)


def test_runs_have_the_seeds_after_that_of_the_searches_and_are_not_trained_again(tmp_path: Path) -> None:
    world = World()
    first = found(tmp_path, world, seeds=2)
    assert {config.seed for config in world.searched} == {0}
    assert {config.search for config in world.searched} >= {"grid", "random", "asha"}
    assert all(config.data.validation == 0.2 and config.workers == "1" for config in world.searched)
    finals = [config for config in world.trained if config.name.startswith("compare-start-")]
    assert {config.seed for config in finals} == {1, 2}
    count = len(world.trained)
    assert found(tmp_path, world, seeds=2).row() == first.row()
    assert len(world.trained) == count


def test_the_answer_is_shown_and_has_the_fields_of_the_page(tmp_path: Path) -> None:
    answer = found(tmp_path, World())
    table, last = lines(answer)
    assert table.row_count == len(answer.starts)
    assert last == f"best LR of the sweep: {answer.best_lr:.3g} at a batch of 64"
    assert lacking("compare-start", answer.row()) == []


@pytest.mark.parametrize(
    ("fields", "named", "says"),
    [
        ({}, {"trials": 1}, "trials=1 search nothing; use 4"),
        ({}, {"seeds": 0}, "seeds=0 must be 1 or more"),
        ({}, {"within": (2.0, 1.0)}, "within=2:1 is no range"),
        ({"data.validation": 0}, {}, "data.validation=0 leaves nothing to judge by but test images"),
        ({"policy": "policy.json"}, {}, "policy=policy.json sets the LR, which is what is asked for"),
        ({"task": "raylr.tasks.gan:DCGAN"}, {}, "task=raylr.tasks.gan:DCGAN beside compare-start"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_trains(
    fields: dict[str, Any], named: dict[str, Any], says: str, tmp_path: Path
) -> None:
    world = World()
    with pytest.raises(ConfigError, match=says):
        found(tmp_path, world, fields, **named)
    assert not world.trained
