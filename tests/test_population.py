"""The driver's side of a population against a stand-in for training: who copies whom, bounds, repeats, all searches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylr.lr import Policy
from raylr.population_config import PopulationConfig
from raylr.resolve import Hardware
from raylr.running.local import set_up
from raylr.running.population.space import BASE, LR, Space
from raylr.storage import Folder
from raylr.training.data import describe

set_up()  # what Ray reads of the environment, before anything imports it

from raylr.running.population.curves import aligned, compare, smoothed  # noqa: E402
from raylr.running.population.fire import FirePBT, roles  # noqa: E402
from raylr.running.population.journal import Journal  # noqa: E402
from raylr.running.population.population import Population  # noqa: E402
from raylr.running.population.result import Results  # noqa: E402

Score = Callable[[float, float], float]


def space(**fields: object) -> Space:
    config = PopulationConfig(**{"data": {"source": "synthetic"}, "epochs": 12, "workers": "1", **fields})
    return Space.of(config, describe(config.data), Hardware(bf16=False, num_gpus=0))


class World:
    """Trials whose quality is a number: each round it moves by what `gain` says of it and the LR."""

    def __init__(self, folder: Path, gain: Score, **fields: object) -> None:
        self.space, self.gain = space(**fields), gain
        self.orders: list[dict[str, Any]] = []
        folder.mkdir(exist_ok=True)
        self.population = Population(self.space, Journal(Folder(folder)), self._obey)
        self.results = Results(self.population, Folder(folder), {})
        self.quality = dict.fromkeys(self.population.names, 0.0)
        self.lr = {name: settings[BASE] for name, settings in self.population.initial.items()}
        self.stopped: set[str] = set()

    def _obey(self, orders: list[tuple[str, int, dict[str, Any]]]) -> None:
        before = dict(self.quality)
        for name, number, order in orders:
            self.orders.append({"trial": name, **order})
            if order["do"] == "stop":
                self.stopped.add(name)
            if order["do"] == "exploit":
                self.quality[name] = before[order["donor"]]
                settings = self.population.judge.settings(name)
                self.lr[name] = settings[BASE] * order["factor"]
                done = {"at": 0.0, "pid": 1, "position": number, "trial": name}
                self.results.take({"kind": "exploited", **order, **done})

    def round(self, number: int, ended: bool = False) -> None:
        for name in reversed(self.population.names):
            if name in self.stopped:
                continue
            self.quality[name] += self.gain(self.quality[name], self.lr[name])
            state = f"{name}-{number}"
            report = {
                "kind": "report", "trial": name, "round": number, "ended": ended, "position": number,
                "test_accuracy": self.quality[name], "test_loss": 0.0, "lr": {"sgd": self.lr[name]},
                "weights_sha256": f"weights {state}", "optimizer_sha256": f"optimizer {state}", "overrides": [], "train_s": 1.0,
            }  # fmt: skip
            self.results.take(report)

    def run(self, rounds: int) -> "World":
        for number in range(1, rounds + 1):
            self.round(number, ended=number == rounds)
        return self


def rises_best_at(wanted: float) -> Score:
    return lambda quality, lr: 1.0 - abs(math.log(lr / wanted))


def test_the_worst_copies_one_of_the_best_and_its_factor_is_perturbed(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=8)
    world.round(1)
    exploits = [order for order in world.orders if order["do"] == "exploit"]
    by_score = sorted(world.lr, key=lambda name: abs(math.log(world.population.initial[name][BASE])))
    assert {order["trial"] for order in exploits} == set(by_score[-2:])
    assert {order["donor"] for order in exploits} <= set(by_score[:2])
    assert all(order["weights_sha256"] == f"weights {order['donor']}-1" for order in exploits)
    assert {order["factor"] for order in exploits} <= {0.8, 1.25}


def test_a_population_finds_the_lr_that_rises_best_and_keeps_factors_inside_their_bounds(tmp_path):
    world = World(tmp_path, rises_best_at(0.5), trials=8, base_range="1:2", factor_bounds="0.4:4").run(12)
    factors = [row["factors_after"][LR] for row in world.population.journal.exploits()]
    assert min(factors) >= 0.4
    best = world.population.best()
    assert best["settings"][BASE] * best["settings"][LR] == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_not_finite_is_the_worst_and_never_copied(lost, tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=4)
    victim = world.population.names[2]
    world.gain = lambda quality, lr: 1.0
    world.quality[victim] = math.nan if lost is None else lost
    world.round(1)
    exploits = [order for order in world.orders if order["do"] == "exploit"]
    assert [order["trial"] for order in exploits] == [victim]
    assert exploits[0]["donor"] != victim
    assert json.loads((tmp_path / "explore.json").read_text())["trials"][-1]["score"] is None


def test_where_all_scores_are_lost_nobody_copies(tmp_path):
    world = World(tmp_path, lambda quality, lr: math.nan, trials=4)
    world.round(1)
    assert {order["do"] for order in world.orders} == {"train"}


def test_the_same_seed_decides_the_same_and_another_one_does_not(tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        world = World(tmp_path / name, rises_best_at(0.5), trials=6, seed=seed, resample_probability=0.3).run(8)
        found.append(world.orders)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("search", ["pbt", "fire", "asha"])
def test_a_population_that_starts_again_decides_the_same(search, tmp_path):
    whole = World(tmp_path / "whole", rises_best_at(0.5), trials=6, search=search)
    whole.run(8)
    first = World(tmp_path / "cut", rises_best_at(0.5), trials=6, search=search)
    for number in range(1, 5):
        first.round(number)
    again = World(tmp_path / "cut", rises_best_at(0.5), trials=6, search=search)
    again.population.go_on(lambda name: [])
    assert again.orders == first.orders
    assert again.population.round == 4
    again.quality, again.lr, again.stopped = first.quality, first.lr, first.stopped
    for number in range(5, 9):
        again.round(number, ended=number == 8)
    assert again.orders == whole.orders
    assert again.population.best()["trial"] == whole.population.best()["trial"]


def test_burn_in_lets_nobody_copy_before(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=4, burn_in="3ep")
    for number in (1, 2):
        world.round(number)
    assert {order["do"] for order in world.orders} == {"train"}
    world.round(3)
    assert "exploit" in {order["do"] for order in world.orders}


@pytest.mark.parametrize("search", ["grid", "random"])
def test_a_search_of_fixed_lrs_lets_every_trial_train_on_and_names_the_best(search, tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=5, search=search).run(4)
    assert {order["do"] for order in world.orders} == {"train"}
    best = min(world.lr, key=lambda name: abs(math.log(world.lr[name])))
    assert json.loads((tmp_path / "explore.json").read_text())["best"] == best
    policy = Policy.from_json((tmp_path / "best_policy.json").read_text())
    assert policy.schedule().base_lr == pytest.approx(0.4 * world.lr[best])


def test_asha_stops_trials_but_never_the_best(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=9, search="asha", reduction_factor=3)
    for number in (1, 2, 3, 4):
        world.round(number, ended=number == 4)
    best = min(world.lr, key=lambda name: abs(math.log(world.lr[name])))
    assert world.population.round == 4
    assert 3 <= len(world.stopped) <= 8
    assert best not in world.stopped
    assert world.population.best()["trial"] == best


def test_the_policy_of_the_best_is_its_base_with_the_overrides_that_it_reported(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=4)
    world.round(1)
    best = world.population.best()
    best_row = world.population.journal.round(1)[best["trial"]]
    best_row["overrides"] = [{"position": 64, "factor": 0.8, "ramp_examples": 0, "target": "*", "cause": "pbt"}]
    policy = world.population.best_policy()
    assert [entry.factor for entry in policy.overrides] == [0.8]
    assert policy.schedule().base_lr == pytest.approx(0.4 * best["settings"][BASE])


def test_the_journal_is_sorted_at_the_end_and_read_back(tmp_path):
    world = World(tmp_path, rises_best_at(0.5), trials=4).run(3)
    before = world.population.journal.exploits()
    world.population.journal.close()
    assert Journal(Folder(tmp_path)).exploits() == before
    keys = [(row["round"], row["trial"]) for row in Folder(tmp_path).read_rows("reports.jsonl")]
    assert keys == sorted(keys)


# FIRE PBT


def test_a_curve_is_compared_from_where_it_reaches_the_start_of_the_other():
    assert aligned([0.1, 0.3, 0.5], [0.3, 0.4]) == (1, 0)
    assert aligned([0.3, 0.4], [0.1, 0.3, 0.5]) == (0, 1)
    assert aligned([0.1, 0.2], [0.3, 0.4]) is None


def test_the_curve_that_goes_on_faster_from_the_same_score_is_ahead():
    slow, fast = [0.5 + 0.01 * k for k in range(12)], [0.5 + 0.03 * k for k in range(12)]
    found = compare(fast, slow)
    assert found.difference > 0.1
    assert found.p is not None
    assert found.p < 0.01
    assert compare(slow, fast).difference < 0
    assert compare([0.1, 0.2], [0.5, 0.6]).p is None


def test_smoothing_takes_noise_off_a_line_and_keeps_the_line():
    noisy = [k + (0.5 if k % 2 else -0.5) for k in range(20)]
    errors = [abs(value - k) for k, value in enumerate(smoothed(noisy))]
    assert max(errors[2:-2]) < 0.3


def test_members_are_dealt_to_the_sub_populations_in_turn():
    assert roles(list("abcdefg"), 2, 2) == ([["a", "c", "e"], ["b", "d"]], ["f", "g"])


def test_an_evaluator_trains_the_parents_weights_at_the_childs_lr(tmp_path):
    world = World(tmp_path, rises_best_at(0.5), search="fire", epochs=40, trials=9, evaluators=3)
    world.round(1)
    scheduler = world.population.judge.scheduler
    assert isinstance(scheduler, FirePBT)
    evaluation = scheduler.evaluations[scheduler.evaluators[0]]
    assert evaluation.parent in scheduler.groups[1]
    assert evaluation.child in scheduler.groups[0]


def test_an_evaluator_has_the_lr_of_the_child_on_the_donors_base(tmp_path):
    world = World(tmp_path, rises_best_at(0.5), search="fire", epochs=40, trials=9, evaluators=3)
    world.round(1)
    scheduler = world.population.judge.scheduler
    for evaluator, evaluation in scheduler.evaluations.items():
        settings = {
            name: world.population.judge.settings(name) for name in (evaluator, evaluation.parent, evaluation.child)
        }
        assert settings[evaluator][BASE] == settings[evaluation.parent][BASE]
        child = settings[evaluation.child]
        assert settings[evaluator][BASE] * settings[evaluator][LR] == pytest.approx(child[BASE] * child[LR])


def test_a_child_that_is_overtaken_takes_the_evaluators_weights_and_keeps_its_lr(tmp_path):
    """P1 stands still at 1. P2 is lower, and what an evaluator makes of it rises past that: seven points above are sure."""
    fields = {"search": "fire", "epochs": 60, "trials": 5, "evaluators": 1, "eval_rounds": 30}
    world = World(tmp_path, lambda quality, lr: 0.0, **fields)
    scheduler = world.population.judge.scheduler
    (first, second), (evaluator,) = scheduler.groups, scheduler.evaluators
    world.quality |= dict.fromkeys(first, 1.0) | dict.fromkeys(second, 0.5) | {evaluator: 0.1}
    lr = {name: world.population.initial[name][BASE] for name in first}
    for number in range(1, 26):
        world.quality[evaluator] += 0.1
        world.round(number)
    taken = next(row for row in world.population.journal.exploits() if row["donor"] == evaluator)
    assert taken["receiver"] in first
    assert taken["factors_after"][BASE] * taken["factors_after"][LR] == pytest.approx(lr[taken["receiver"]])
    assert 12 <= taken["round"] <= 20


def test_fire_needs_two_members_in_each_sub_population_and_an_evaluator():
    with pytest.raises(ValueError, match=r"trials=4 are too few for fire.*use --trials 5"):
        space(search="fire", trials=4)
