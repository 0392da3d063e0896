"""A population of loops of one's own without Ray: its trials are threads, which ask the real search what to do next."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.events import Copied, Decision, LoopAttached, Order, Progress, TrialReport
from raylr.lr import Policy
from raylr.planning.facts import ALL_FEATURES
from raylr.planning.loop_plan import LoopPlan
from raylr.running.population.journal import Journal
from raylr.running.population.lineage import trial_ids
from raylr.running.population.loop_space import LoopSpace, refuse_other_fields
from raylr.running.population.loops import _trial, check
from raylr.running.population.population import Population, TrialOrder
from raylr.storage import LocalFolder
from raylr.training.attached.loop import OwnLoop
from raylr.training.attached.rounds import Rounds
from raylr.training.attached.surroundings import inside
from raylr.training.group import Group
from tests.training.own_loops import BATCH, NUM_TRAIN, attached, batches, cosine, rows, step

DEADLINE_S = 60
Loop = Callable[[OwnLoop, str], None]


class Search:
    """A population as the trials' threads see it: a lock in the place of Ray's actor."""

    def __init__(self, folder: Path, config: PopulationConfig) -> None:
        folder.mkdir(exist_ok=True)
        self.config, self.journal = config, Journal(LocalFolder(folder))
        self.population: Population | None = None
        self.decisions: dict[tuple[str, int], Decision] = {}
        self.turns: dict[str, dict[str, Any]] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.changed = threading.Condition()

    def report(self, trial: str, news: LoopAttached | TrialReport | Copied | Progress) -> None:
        with self.changed:
            match news:
                case LoopAttached(policy, plan) if self.population is None:
                    told = Policy.from_json(policy), LoopPlan.model_validate(plan)
                    self.population = Population(
                        LoopSpace.told(self.config, *told, ALL_FEATURES), self.journal, self.decide
                    )
                    first = self.population.turns[0]
                    self.turns = {
                        name: _trial(self.population.space, name, one, first.round)
                        for name, one in first.settings.items()
                    }
                case TrialReport():
                    assert self.population is not None
                    self.population.on_report(trial, news)
                case Copied():
                    assert self.population is not None
                    self.population.on_copied(trial, news)
            self.changed.notify_all()

    def decide(self, orders: list[TrialOrder]) -> None:
        self.decisions |= {(trial, number): decision for trial, number, decision in orders}

    def waited(self, found: Callable[[], Any]) -> Any:
        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, DEADLINE_S)
            return found()


class Asks:
    """One trial's word with the population."""

    def __init__(self, search: Search, trial: str) -> None:
        self.search, self.trial = search, trial

    def begin(self) -> Mapping[str, Any]:
        return self.search.waited(lambda: self.search.turns.get(self.trial))  # type: ignore[no-any-return]

    def report(self, news: LoopAttached | TrialReport | Copied | Progress) -> None:
        self.search.report(self.trial, news)

    def decision(self, number: int) -> Decision:
        return self.search.waited(lambda: self.search.decisions.get((self.trial, number)))  # type: ignore[no-any-return]

    def orders(self, since: int) -> list[Order]:
        return []

    def end(self, result: dict[str, Any]) -> None:
        self.search.results[self.trial] = result


def explored(folder: Path, loop: Loop, **fields: Any) -> Search:
    """Train a population to its end; raises what a trial has raised."""
    config = PopulationConfig(
        loop="own.py:train",
        trials=3,
        interval="1ep",
        score="loss",
        quantile_fraction=0.34,
        base_range="0.01:1",
        **fields,
    )
    search = Search(folder, config)
    errors: list[BaseException] = []

    def trial(name: str) -> None:
        rounds = Rounds(Group(), Asks(search, name), str(folder / "trials"), name, config.interval, config.score)
        try:
            with inside(rounds):
                own = attached(folder, name="the loop's own name", policy=cosine(0.05))
            loop(own, name)
            own.finish()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=trial, args=(name,), daemon=True) for name in trial_ids(config.seed, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.05)
    if errors:
        raise errors[0]
    return search


def train(loop: OwnLoop, trial: str) -> None:
    for epoch in loop.epochs():
        for inputs in loop.rest(batches(epoch, loop)):
            loss = step(loop, inputs)
        loop.report(loss=loss)


@pytest.fixture
def one_thread() -> Any:
    """The same bits in threads at once as alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_exploit_copies_what_was_attached_and_its_lr_follows_at_once(tmp_path: Path, one_thread: None) -> None:
    search = explored(tmp_path / "search", train)
    exploits = search.journal.exploits()
    assert exploits
    for row in exploits:
        assert row["donor_weights_sha256"] == row["receiver_weights_sha256"]
        assert row["donor_optimizer_sha256"] == row["receiver_optimizer_sha256"]
        ledger = rows(tmp_path / "search/trials" / row["receiver"])
        after = next(one for one in ledger if one["position"] == row["position"])
        assert after["factors"]["optimizer"]["override"] == row["factors_after"]["lr"]
        assert after["causes"] == ["pbt"]
        assert after["factors"]["optimizer"]["peak"] == pytest.approx(0.05 * row["factors_after"]["base"])
        assert [one["step"] for one in ledger] == list(range(24))
    assert {result["status"] for result in search.results.values()} == {"complete"}


def test_best_policy_is_the_lr_that_the_best_weights_lived_through(tmp_path: Path, one_thread: None) -> None:
    search = explored(tmp_path / "search", train)
    assert search.population is not None
    best, policy = search.population.best(), search.population.best_policy()
    assert best is not None
    assert policy is not None
    lived = {row["position"]: row["lr"]["optimizer"] for row in rows(tmp_path / "search/trials" / best["trial"])}
    for segment in search.population.ancestry(best["trial"]):
        end = segment["end"] or NUM_TRAIN * 3
        for row in rows(tmp_path / "search/trials" / segment["trial"]):
            if segment["start"] <= row["position"] < end:
                lived[row["position"]] = row["lr"]["optimizer"]
    assert len(lived) == 24
    assert all(policy.lr(position, BATCH) == lr for position, lr in lived.items())


def test_the_same_seed_finds_the_same(tmp_path: Path, one_thread: None) -> None:
    timeless = []
    for name in ("one", "two"):
        search = explored(tmp_path / name, train)
        timeless.append([{**row, "time": 0, "latency_s": 0} for row in search.journal.exploits()])
        assert search.population is not None
        timeless[-1].append(search.population.best_policy())  # type: ignore[arg-type]
    assert timeless[0] == timeless[1]


def test_a_loop_that_diverges_is_the_worst_and_becomes_a_copy(tmp_path: Path, one_thread: None) -> None:
    broken: list[str] = []

    def spoilt(loop: OwnLoop, trial: str) -> None:
        for epoch in loop.epochs():
            for inputs in loop.rest(batches(epoch, loop)):
                loss = step(loop, inputs)
            if epoch == 0 and trial.startswith("t01"):
                broken.append(trial)
                with torch.no_grad():
                    loop.model.weight.fill_(torch.nan)  # type: ignore[attr-defined]
                loss = float("nan")
            loop.report(loss=loss)
        assert torch.isfinite(loop.model.weight).all()  # type: ignore[attr-defined]

    search = explored(tmp_path / "search", spoilt)
    first = [row for row in search.journal.exploits() if row["round"] == 1]
    assert [row["receiver"] for row in first] == broken


def test_factors_stay_within_their_bounds(tmp_path: Path, one_thread: None) -> None:
    search = explored(tmp_path / "search", train, factor_bounds="0.9:1.05")
    factors = [row["factors_after"]["lr"] for row in search.journal.exploits()]
    assert factors
    assert all(0.9 <= factor <= 1.05 for factor in factors)


def test_a_loop_without_the_score_says_what_it_has(tmp_path: Path) -> None:
    def other(loop: OwnLoop, trial: str) -> None:
        for inputs in batches(0, loop):
            step(loop, inputs)
        loop.report(perplexity=2.0)

    with pytest.raises(ConfigError, match="score=loss is not in the loop's report, it has perplexity"):
        explored(tmp_path / "search", other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model": {"name": "resnet18"}},
            r"model\.name=resnet18 beside loop=own\.py:train, whose own code decides that",
        ),
        ({"epochs": 3}, "epochs=3.* beside loop"),
        ({"mutate": "optimizer.momentum=0.8:0.9"}, "of a loop the LR alone is searched"),
    ],
)
def test_fields_that_the_loop_decides_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_other_fields(PopulationConfig(loop="own.py:train", **fields))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "has no train"),
        ("train = 3", "is a int; name a function that trains"),
        ("def train(one, two): pass", "needs one, two; it is called with one argument, its config, or with none"),
        ("import nowhere", "does not import: ModuleNotFoundError"),
        ("import os; os._exit(3)", "ends the process that imports it: exit code 3"),
    ],
)
def test_a_loop_that_cannot_be_called_is_refused_before_anything_starts(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(ConfigError, match=message):
        check(PopulationConfig(loop=f"{tmp_path}/own.py:train", storage=str(tmp_path)))


def test_a_loop_is_looked_at_elsewhere_so_that_ray_is_not_imported_too_early(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import os\nos.environ['OWN_LOOP_WAS_HERE'] = 'yes'\ndef train(): pass")
    check(PopulationConfig(loop=f"{tmp_path}/own.py:train", storage=str(tmp_path)))
    assert "OWN_LOOP_WAS_HERE" not in os.environ


def test_an_interval_longer_than_the_loop_is_refused() -> None:
    plan = LoopPlan(
        workers=(1, 1), num_train=NUM_TRAIN, total_examples=3 * NUM_TRAIN, global_batch=BATCH, per_worker_size=None, rewarm=0,
        models={"model": "Linear"}, optimizers={"optimizer": "SGD"}, checkpoint_keep=3,
    )  # fmt: skip
    config = PopulationConfig(loop="own.py:train", interval="4ep")
    with pytest.raises(ConfigError, match="interval=4ep is 384 examples, longer than the loop's policy"):
        LoopSpace.told(config, cosine(), plan, ALL_FEATURES)
    with pytest.raises(ConfigError, match=r"lr_bounds=1:2 hold none of the peak LRs 0\.025 to 0\.4"):
        LoopSpace.told(config.model_copy(update={"interval": "1ep", "lr_bounds": "1:2"}), cosine(), plan, ALL_FEATURES)
