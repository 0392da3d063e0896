"""The driver's side of a population against a stand-in for training: who copies whom, bounds, repeats, all searches."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError, RaylrError
from raylr.events import Copied, Copy, Decision, OfTrial, Stop, Train, TrialReport
from raylr.lr import Policy
from raylr.planning.facts import Hardware
from raylr.running.population.space import BASE, LR, Space
from raylr.running.session import set_up
from raylr.storage import LocalFolder
from raylr.training.data import describe

set_up()  # what Ray reads of the environment, before anything imports it

from raylr.running.population.bandit import Bandit, best_point  # noqa: E402
from raylr.running.population.curves import aligned, compare, smoothed  # noqa: E402
from raylr.running.population.fire import FirePBT, roles  # noqa: E402
from raylr.running.population.iterated import is_slow  # noqa: E402
from raylr.running.population.journal import Journal  # noqa: E402
from raylr.running.population.population import Population, TrialOrder  # noqa: E402
from raylr.running.population.result import Results  # noqa: E402

Score = Callable[[float, float], float]


def space(**fields: object) -> Space:
    config = PopulationConfig(**{"data": {"source": "synthetic"}, "epochs": 12, "workers": "1", **fields})
    return Space.of(config, describe(config.data), Hardware(bf16=False, num_gpus=0))


class World:
    """Trials whose quality is a number: each round it moves by what `gain` says of it and the LR."""

    def __init__(self, folder: Path, gain: Score, **fields: object) -> None:
        self.space, self.gain = space(**fields), gain
        self.orders: list[tuple[str, Decision]] = []
        folder.mkdir(exist_ok=True)
        self.quality: dict[str, float] = {}
        self.lr: dict[str, float] = {}
        self._num_begun = 0
        self.stopped: set[str] = set()
        self.population = Population(self.space, Journal(LocalFolder(folder)), self._obey)
        self.results = Results(self.population, LocalFolder(folder), {})

        assert self.turns

    @property
    def turns(self) -> list[tuple[str, ...]]:
        """The trials of each turn; those of a new one start from nothing."""
        for turn in self.population.turns[self._num_begun :]:
            self.quality |= dict.fromkeys(turn.settings, 0.0)
            self.lr |= {name: own[BASE] for name, own in turn.settings.items()}
        self._num_begun = len(self.population.turns)
        return [tuple(turn.settings) for turn in self.population.turns]

    def _obey(self, orders: list[TrialOrder]) -> None:
        before = dict(self.quality)
        for name, number, order in orders:
            self.orders.append((name, order))
            match order:
                case Stop():
                    self.stopped.add(name)
                case Copy(round_, donor, factor, _, weights, optimizer):
                    self.quality[name] = before[donor]
                    settings = self.population.judge.settings(name)
                    self.lr[name] = settings[BASE] * factor
                    done = Copied(0.0, number, 1, round_, donor, factor, weights, optimizer)
                    self.results.take(OfTrial(name, done))

    def round(self, number: int, ended: bool = False) -> None:
        for name in reversed(self.turns[-1]):
            if name in self.stopped:
                continue
            self.quality[name] += self.gain(self.quality[name], self.lr[name])
            state = f"{name}-{number}"
            report = TrialReport(
                round=number, ended=ended, position=number, test_accuracy=self.quality[name], test_loss=0.0,
                lr={"sgd": self.lr[name]}, weights_sha256=f"weights {state}", optimizer_sha256=f"optimizer {state}",
                overrides=(), train_s=1.0,
            )  # fmt: skip
            self.results.take(OfTrial(name, report))

    def run(self, rounds: int) -> "World":
        """Train all trials to their end, turn by turn; each has so many rounds."""
        while self.turns[-1]:
            first = self.population.round
            for number in range(1, rounds + 1):
                self.round(first + number, ended=number == rounds)
        return self


def rises_best_at(wanted: float) -> Score:
    return lambda quality, lr: 1.0 - abs(math.log(lr / wanted))


def test_the_worst_copies_one_of_the_best_and_its_factor_is_perturbed(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=8)
    world.round(1)
    exploits = [(name, order) for name, order in world.orders if isinstance(order, Copy)]
    by_score = sorted(world.lr, key=lambda name: abs(math.log(world.population.initial[name][BASE])))
    assert {name for name, _ in exploits} == set(by_score[-2:])
    assert {order.donor for _, order in exploits} <= set(by_score[:2])
    assert all(order.weights_sha256 == f"weights {order.donor}-1" for _, order in exploits)
    assert {order.factor for _, order in exploits} <= {0.8, 1.25}


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
    exploits = [(name, order) for name, order in world.orders if isinstance(order, Copy)]
    assert [name for name, _ in exploits] == [victim]
    assert exploits[0][1].donor != victim
    assert json.loads((tmp_path / "explore.json").read_text())["trials"][-1]["score"] is None


def test_where_all_scores_are_lost_nobody_copies(tmp_path):
    world = World(tmp_path, lambda quality, lr: math.nan, trials=4)
    world.round(1)
    assert {type(order) for _, order in world.orders} == {Train}


def test_the_same_seed_decides_the_same_and_another_one_does_not(tmp_path):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        world = World(tmp_path / name, rises_best_at(0.5), trials=6, seed=seed, resample_probability=0.3).run(8)
        found.append(world.orders)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("search", ["pbt", "pb2", "ipbt", "fire", "asha"])
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
    assert {type(order) for _, order in world.orders} == {Train}
    world.round(3)
    assert Copy in {type(order) for _, order in world.orders}


@pytest.mark.parametrize("search", ["pbt", "pb2", "ipbt", "fire"])
def test_nobody_copies_while_the_population_settles(tmp_path, search):
    world = World(tmp_path, rises_best_at(0.5), trials=6, search=search, settle="2.5ep")  # the last 3 of 12 rounds
    rounds = []
    for number in range(1, 13):
        before = len(world.orders)
        world.round(number, ended=number == 12)
        rounds.append(Copy in {type(order) for _, order in world.orders[before:]})
    assert any(rounds[:9])
    assert not any(rounds[9:])


def test_a_population_that_only_settles_is_refused():
    with pytest.raises(ConfigError, match=r"settle=12ep leaves no interval to copy in after burn_in=0ep; shorten it"):
        space(settle="12ep")
    space(settle="12ep", search="random")


@pytest.mark.parametrize("search", ["grid", "random"])
def test_a_search_of_fixed_lrs_lets_every_trial_train_on_and_names_the_best(search, tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=5, search=search).run(4)
    assert {type(order) for _, order in world.orders} == {Train}
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
    assert Journal(LocalFolder(tmp_path)).exploits() == before
    keys = [(row["round"], row["trial"]) for row in LocalFolder(tmp_path).read_rows("reports.jsonl")]
    assert keys == sorted(keys)


# turns, and Optuna


@pytest.mark.parametrize("search", ["grid", "random"])
def test_trials_of_fixed_lrs_take_turns_and_the_best_of_all_is_named(search, tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=5, at_once=2, search=search).run(3)
    names = world.population.names
    assert world.turns == [names[:2], names[2:4], names[4:], ()]
    assert world.population.round == 9
    best = min(world.lr, key=lambda name: abs(math.log(world.lr[name])))
    result = json.loads((tmp_path / "explore.json").read_text())
    assert result["best"] == best
    assert {row["trial"] for row in result["trials"]} == set(names)
    every_lr = World(tmp_path / "all", rises_best_at(1.0), trials=5, search=search).lr
    assert world.lr == every_lr


def test_what_ended_in_a_turn_that_is_over_is_complete_and_what_never_began_is_not(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=4, at_once=2, search="random")
    for number in (1, 2):
        world.round(number, ended=number == 2)
    for name in world.turns[1]:
        world.results.ended[name] = "complete"
    assert world.results.end(None)["status"] == "complete"
    early = World(tmp_path / "early", rises_best_at(1.0), trials=4, at_once=2, search="random")
    early.results.ended |= dict.fromkeys(early.turns[0], "complete")
    assert early.results.end(None)["status"] == "stopped"


def test_turns_go_on_where_they_were(tmp_path):
    whole = World(tmp_path / "whole", rises_best_at(1.0), trials=6, at_once=2, search="optuna").run(2)
    first = World(tmp_path / "cut", rises_best_at(1.0), trials=6, at_once=2, search="optuna")
    for number in (1, 2, 3):
        first.round(number, ended=number == 2)
    again = World(tmp_path / "cut", rises_best_at(1.0), trials=6, at_once=2, search="optuna")
    again.population.go_on(lambda name: [])
    assert again.turns == first.turns == whole.turns[:2]
    again.quality = first.quality
    again.round(4, ended=True)
    again.run(2)
    assert again.lr == whole.lr


def test_optuna_comes_nearer_to_the_best_lr_than_a_random_search(tmp_path):
    def distance(search: str, seed: int) -> float:
        fields = {"trials": 16, "at_once": 4, "search": search, "base_range": "0.01:100", "seed": seed}
        world = World(tmp_path / f"{search}{seed}", rises_best_at(3.0), **fields).run(1)
        last = world.turns[-2]
        return sum(abs(math.log(world.lr[name] / 3.0)) for name in last) / len(last)

    seeds = range(4)
    assert sum(distance("optuna", seed) for seed in seeds) < 0.7 * sum(distance("random", seed) for seed in seeds)


def test_optuna_suggests_inside_the_bounds_of_the_lr_and_of_fields(tmp_path):
    fields = {"mutate": "optimizer.momentum=0.5:0.9", "lr_bounds": "0.2:0.8", "base_range": "0.01:100"}
    world = World(tmp_path, rises_best_at(9.0), trials=8, at_once=2, search="optuna", **fields).run(1)
    assert all(0.2 * 0.999 <= 0.4 * lr <= 0.8 * 1.001 for lr in world.lr.values())
    momenta = [settings["optimizer.momentum"] for settings in world.population.initial.values()]
    assert len(set(momenta)) == 8
    assert all(0.5 <= momentum <= 0.9 for momentum in momenta)


def test_a_search_of_shapes_gives_each_trial_a_curve_of_its_own_and_the_best_is_a_policy(tmp_path):
    world = World(tmp_path, rises_best_at(1.0), trials=8, at_once=2, search="shape").run(1)
    policies = [world.space.policy_for(settings) for settings in world.population.initial.values()]
    assert len({policy.sha256 for policy in policies}) == 8
    total = world.space.policy.total_examples
    for policy, settings in zip(policies, world.population.initial.values(), strict=True):
        schedule = policy.schedule("sgd")
        assert schedule.base_lr == pytest.approx(0.4 * settings["base"])
        assert schedule.warmup.examples == round(settings["shape.warmup"] * total)
        after = schedule.warmup.examples + settings["shape.hold"] * (total - schedule.warmup.examples)
        assert policy.lr(int(after) - 1, 512) == pytest.approx(policy.schedule("sgd").peak(512), rel=1e-3)
        assert policy.lr(total, 512) == pytest.approx(schedule.peak(512) * settings["shape.final"])
    best = Policy.from_json((tmp_path / "best_policy.json").read_text())
    assert best in policies


# Iterated PBT


def copies(world: World, before: int) -> list[tuple[str, Copy]]:
    return [(name, order) for name, order in world.orders[before:] if isinstance(order, Copy)]


def test_iterated_pbt_doubles_its_step_where_scores_rise_no_more_and_gives_all_the_best_weights(tmp_path):
    world = World(tmp_path, lambda quality, lr: 0.0, trials=8, search="ipbt", epochs=20)
    scheduler, found = world.population.judge.scheduler, []
    for number in range(1, 21):
        before = len(world.orders)
        world.quality |= {name: -0.01 * index for index, name in enumerate(world.population.names)}
        world.round(number, ended=number == 20)
        found.append(copies(world, before))
    assert scheduler.restarts == [4, 12]  # after three steps without a rise: of 1 interval, of 2
    assert [len(one) for one in found] == [2, 2, 2, 6, 0, 2, 0, 2, 0, 2, 0, 6, 0, 0, 0, 2, 0, 0, 0, 0]
    best = set(world.population.names[:2])
    assert all({order.donor for _, order in one} <= best for one in found)
    assert {name for name, _ in found[3]} == set(world.population.names[2:])
    factors = [order.factor for _, order in found[3]]
    assert len(set(factors)) == len(factors)


def test_iterated_pbt_does_not_restart_where_two_longer_steps_do_not_fit(tmp_path):
    world = World(tmp_path, lambda quality, lr: 0.0, trials=4, search="ipbt", epochs=8)
    for number in range(1, 9):
        world.round(number, ended=number == 8)
    assert world.population.judge.scheduler.restarts == [4]  # 4 + 2 x 2 rounds are there, 3 steps in a row had no rise


def test_iterated_pbt_finds_the_lr_that_rises_best(tmp_path):
    world = World(tmp_path, rises_best_at(0.5), trials=6, search="ipbt", epochs=14).run(14)
    best = world.population.best()
    assert best["settings"][BASE] * best["settings"][LR] == pytest.approx(0.5, rel=0.3)
    assert all(0.01 <= row["factors_after"][LR] <= 10 for row in world.population.journal.exploits())


@pytest.mark.parametrize(
    ("best", "is_slow_now"),
    [
        ([0.1] * 14, False),
        ([0.1] + [0.5] * 14, False),
        ([0.1, 0.5] + [0.5] * 14, True),
        ([0.01 * step for step in range(20)], False),
        ([0.5 - 1e-4 * (step % 2) for step in range(15)], True),
    ],
)
def test_a_curve_is_slow_that_gains_less_than_its_deviation_over_fifteen_steps(best, is_slow_now):
    assert is_slow(best) is is_slow_now


# PB2


def test_the_bandit_goes_where_rises_were_greatest_and_not_where_another_trial_tries_it():
    draws = np.random.default_rng(0)
    places = draws.uniform(-2, 2, size=(40, 1))
    gains = -np.abs(places[:, 0] - 0.5)
    known = np.hstack([np.full((40, 1), 3.0), np.zeros((40, 1)), places])
    now, box = np.array([[3.0, 0.0, 0.0]]), np.array([[-2.0, 2.0]])
    first = best_point(known, gains, now, box, draws)
    assert first == pytest.approx(0.5, abs=0.25)
    few = slice(0, 3)
    here = best_point(known[few], gains[few], now, box, np.random.default_rng(1))
    tried = np.vstack([now, [[3.0, 0.0, here[0]]]])
    assert abs(best_point(known[few], gains[few], tried, box, np.random.default_rng(1)) - here) > 0.1


def test_pb2_finds_the_lr_that_rises_best_and_keeps_factors_inside_their_bounds(tmp_path):
    fields = {"base_range": "1:8", "factor_bounds": "0.02:4", "epochs": 8}
    world = World(tmp_path, rises_best_at(0.5), trials=6, search="pb2", **fields).run(8)
    settings = [row["factors_after"] for row in world.population.journal.exploits()]
    assert all(0.02 <= one[LR] <= 4 for one in settings)
    assert len({one[LR] for one in settings[2:]}) > 5  # PBT's two factors are tried in the first round only
    best = world.population.best()
    assert best["settings"][BASE] * best["settings"][LR] == pytest.approx(0.5, rel=0.3)


def test_pb2_chooses_the_same_again_and_leaves_others_random_numbers_alone(tmp_path):
    found = []
    for name in ("a", "b"):
        np.random.seed(len(found))
        expected = np.random.RandomState(len(found)).random()
        world = World(tmp_path / name, rises_best_at(0.5), trials=4, search="pb2", mutate="optimizer.momentum=0.5:0.9")
        found.append(world.run(4).orders)
        assert np.random.random() == expected
    assert found[0] == found[1]


def test_pb2_perturbs_as_pbt_does_while_it_knows_nothing_and_a_lost_score_is_a_bad_rise():
    bandit = Bandit(space(search="pb2", trials=4))
    settings = {BASE: 1.0, LR: 1.0}
    for trial in "abc":
        bandit.note(trial, 1, settings, 0.5)
    assert bandit.choose("a", "b", settings, 1) is None
    for trial, lr, score in (("a", 0.1, 0.7), ("b", 1.0, 0.6), ("c", 9.0, None)):
        bandit.note(trial, 2, {BASE: 1.0, LR: lr}, score)
    assert [rise for *_, rise in bandit.rises] == [pytest.approx(0.2), pytest.approx(0.1), -math.inf]
    chosen = bandit.choose("c", "a", {BASE: 1.0, LR: 0.1}, 2)
    assert chosen is not None
    assert chosen[LR] < 3
    bandit.note("c", 3, chosen, 0.8)
    assert bandit.rises[-1][1:] == (0.7, chosen, pytest.approx(0.1))


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


def test_an_early_stop_and_a_hook_of_the_end_belong_to_one_run() -> None:
    with pytest.raises(
        ConfigError, match=r"stop\.metric=test_loss ends one run, and the trials of a population end by its"
    ):
        space(stop={"metric": "test_loss"})
    with pytest.raises(ConfigError, match=r"hooks\.end=a:b is called at the end of a run, and a population is none"):
        space(hooks={"end": "a:b"})


@pytest.mark.parametrize("wrong", ["weights_sha256", "optimizer_sha256"])
def test_what_an_exploit_takes_over_must_be_the_donors(wrong: str) -> None:
    hashes = {"weights_sha256": "one", "optimizer_sha256": "two"}
    order = Copy(1, "donor", 1.2, {}, **hashes)
    order.require(**hashes)
    with pytest.raises(RaylrError, match=f"^{wrong} after the exploit of donor is other, not {hashes[wrong]}$"):
        order.require(**{**hashes, wrong: "other"})
