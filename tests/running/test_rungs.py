"""Successive halving in the driver, against a stand-in for training: who goes on, and what each begins with."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.events import OfTrial, TrialReport
from raylr.planning.facts import Hardware
from raylr.running.population.space import BASE, Space
from raylr.running.session import set_up
from raylr.storage import LocalFolder
from raylr.training.data import describe

pytest.importorskip("optuna", reason="--search shape is an extra")
set_up()  # what Ray reads of the environment, before anything imports it

from raylr.running.population.journal import Journal  # noqa: E402
from raylr.running.population.population import Population  # noqa: E402
from raylr.running.population.result import Results  # noqa: E402

FIELDS = {"search": "shape", "trials": 8, "at_once": 3, "rungs": 3, "reduction_factor": 2.0, "base_range": "0.7:1.4"}
FIELDS |= {"epochs": 16, "interval": "1ep", "workers": "1", "data": {"source": "synthetic", "train_examples": 1024}}


def space(**fields: object) -> Space:
    config = PopulationConfig(**{**FIELDS, **fields})
    return Space.of(config, describe(config.data), Hardware(bf16=False, num_gpus=0))


class World:
    """Trials that end at their lengths; their score is near 1 where the fall begins late."""

    def __init__(self, folder: Path, **fields: object) -> None:
        self.space, self.folder = space(**fields), LocalFolder(folder)
        folder.mkdir(exist_ok=True)
        self.population = Population(self.space, Journal(self.folder))
        self.results = Results(self.population, self.folder, {})
        self.trained: dict[str, list[int]] = {}

    def turn(self) -> None:
        """Train the trials of the newest turn to their ends, round by round."""
        turn = self.population.turns[-1]
        for name, settings in turn.settings.items():
            self.trained[name] = list(range(self.begins(name) + 1024, int(settings["examples"]) + 1, 1024))
        for number in range(max(len(self.trained[name]) for name in turn.settings)):
            for name in reversed(turn.settings):
                if number < len(self.trained[name]):
                    position, length = self.trained[name][number], self.trained[name][-1]
                    report = self.report(name, turn.round + number + 1, position, length)
                    self.results.take(OfTrial(name, report))

    def begins(self, name: str) -> int:
        start = self.population.starts.get(name)
        return start.position if start else 0

    def report(self, name: str, number: int, position: int, length: int) -> TrialReport:
        score = 0.9 - 0.1 * abs(self.population.initial[name]["shape.hold"] - 0.6)
        return TrialReport(
            round=number, ended=position == length, position=position, test_accuracy=score, test_loss=0.0, lr={"sgd": 0.1},
            weights_sha256="w", optimizer_sha256="o", overrides=(), train_s=1.0,
        )  # fmt: skip

    def run(self) -> "World":
        while self.population.turns[-1].settings:
            self.turn()
        return self


def test_the_best_of_each_rung_go_on_over_the_next_length(tmp_path):
    world = World(tmp_path).run()
    population = world.population
    assert [tuple(turn.settings) for turn in population.turns] == [
        population.names[:3], population.names[3:6], population.names[6:8], population.names[8:11], population.names[11:12],
        population.names[12:14], (),
    ]  # fmt: skip
    by_rung = [population.names[:8], population.names[8:12], population.names[12:]]
    for before, after in pairwise(by_rung):
        best = sorted(before, key=lambda name: (abs(population.initial[name]["shape.hold"] - 0.6), name))[: len(after)]
        for one, other in zip(best, after, strict=True):
            assert population.initial[other] == {
                **population.initial[one],
                "examples": population.initial[other]["examples"],
            }
    assert [{population.initial[name]["examples"] for name in rung} for rung in by_rung] == [{4096}, {8192}, {16384}]
    result = json.loads((tmp_path / "explore.json").read_text())
    assert result["best"] in by_rung[2]


def test_a_trial_begins_with_the_last_checkpoint_up_to_which_another_one_had_the_same_lrs(tmp_path):
    world = World(tmp_path).run()
    population, size = world.population, world.space.batch_at(0)
    assert any(name in population.names[:8] for name in population.starts)  # in the first rung too
    assert any(name in population.names[8:] for name in population.starts)
    for name, start in population.starts.items():
        one, other = (world.space.policy_for(population.initial[each]) for each in (name, start.donor))
        assert start.position in world.trained[start.donor][:-1]
        assert all(one.lr(at, size) == other.lr(at, size) for at in range(0, start.position, size))
    for name in population.names:  # nobody could have begun later
        mine = world.space.policy_for(population.initial[name])
        begun = next(turn for turn in population.turns if name in turn.settings).round
        for other, positions in world.trained.items():
            its_turn = next(turn for turn in population.turns if other in turn.settings).round
            its = world.space.policy_for(population.initial[other])
            for position in [one for one in positions[:-1] if one > world.begins(name) and its_turn < begun]:
                assert any(mine.lr(at, size) != its.lr(at, size) for at in range(0, position, size))


def test_what_was_shared_is_counted(tmp_path):
    world = World(tmp_path).run()
    result = json.loads((tmp_path / "explore.json").read_text())
    assert result["trained_examples"] == 1024 * sum(map(len, world.trained.values()))
    assert result["shared_examples"] == sum(world.begins(name) for name in world.population.names) > 0
    assert result["trained_examples"] + result["shared_examples"] == 8 * 4096 + 4 * 8192 + 2 * 16384


def test_the_life_of_the_best_weights_crosses_what_they_began_with(tmp_path):
    world = World(tmp_path).run()
    for name, start in world.population.starts.items():
        life = world.population.ancestry(name)
        assert life[-1] == {"trial": name, "start": start.position, "end": None}
        assert (life[-2]["trial"], life[-2]["end"]) == (start.donor, start.position)
        assert life[0]["start"] == 0


def test_a_search_that_starts_again_goes_on_with_the_same_trials(tmp_path):
    whole = World(tmp_path / "whole").run()
    first = World(tmp_path / "cut")
    for _ in range(4):
        first.turn()
    again = World(tmp_path / "cut")
    again.population.go_on(lambda name: [])
    assert again.population.turns == first.population.turns
    again.run()
    assert again.population.initial == whole.population.initial
    assert again.population.starts == whole.population.starts


def test_mutated_fields_keep_trials_apart_unless_they_are_equal(tmp_path):
    world = World(tmp_path, mutate="optimizer.weight_decay=0.0001:0.001").run()
    for name, start in world.population.starts.items():
        decay = [world.population.initial[each]["optimizer.weight_decay"] for each in (name, start.donor)]
        assert decay[0] == decay[1]


def test_settings_of_a_trial_make_its_policy_and_its_plan_as_long_as_it_is():
    at = space()
    settings = {BASE: 1.0, "lr": 1.0, "examples": 4096.0}
    settings |= {"shape.warmup": 0.3, "shape.hold": 0.5, "shape.power": 1.0, "shape.bend": 0.0, "shape.final": 0.01}
    assert at.policy_for(settings).total_examples == 4096
    assert at.changes_for(settings) == {"total_examples": 4096}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"search": "pbt"}, "rungs=3 are of search=shape, not of pbt"),
        ({"rungs": 5}, "rungs=5 leave the shortest trials 1 of the run's 16 intervals"),
        ({"batch": {"ramp": "128 for 2ep, 256"}}, "rungs=3 beside batch.ramp"),
    ],
)
def test_rungs_that_cannot_be_are_refused_in_one_line(fields, says):
    with pytest.raises(ConfigError, match=says):
        space(**fields)
