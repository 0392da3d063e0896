"""The early stop: decided alike on all ranks, resumed exactly, told in events and result."""

import shutil

import pytest

from raylr.events import StoppedEarly, event_of_row
from raylr.planning.plan import StopPlan
from raylr.training.early import is_over, judged, value_of
from raylr.training.evaluate import Scores
from raylr.training.totals import Totals
from tests.ranks import Ranks
from tests.training.runs import plan, policy, train
from tests.training.test_same_bits import DATA, rows

NEVER_BETTER = {
    "metrics": ("tests.training.watched:worse",),
    "total_examples": 320,
    "eval_every": 32,
    "checkpoint_every": 32,
}
STOP = StopPlan(metric="test_worse", mode="max", patience=96)


def after(stop: StopPlan, values: list[float]) -> list[tuple[float | None, int, bool]]:
    """Best value, where it was, and whether the run is over, after tests at 10, 20, ... examples."""
    totals, found, of = Totals(), [], plan(stop=stop, eval_every=10)
    for number, value in enumerate(values, start=1):
        totals = judged(stop, totals.evaluated(10 * number, Scores(value, 0.0), 0.0))
        found.append((totals.best, totals.best_at, is_over(of, totals)))
    return found


def test_it_ends_after_so_many_examples_without_a_better_value() -> None:
    stop = StopPlan(metric="test_loss", mode="min", patience=20)
    assert after(stop, [3.0, 2.0, 2.5, 2.0]) == [(3.0, 10, False), (2.0, 20, False), (2.0, 20, False), (2.0, 20, True)]


@pytest.mark.parametrize(
    ("tests", "ends_at"),
    [([2048, 4032, 6016], 4032), ([2048, 3968, 4032], 4032), ([2048, 3968], None)],  # updates of 64, tests every 2000
)
def test_updates_that_do_not_divide_the_interval_cost_no_test(tests: list[int], ends_at: int | None) -> None:
    of = plan(stop=StopPlan(metric="test_loss", mode="min", patience=2000), eval_every=2000)
    assert of.stop is not None
    totals, ended = Totals(), []
    for position in tests:
        totals = judged(of.stop, totals.evaluated(position, Scores(1.0, 0.0), 0.0))
        if is_over(of, totals):
            ended.append(position)
    assert ended[:1] == ([ends_at] if ends_at else [])


def test_more_is_better_where_the_mode_says_so() -> None:
    stop = StopPlan(metric="test_loss", mode="max", patience=20)
    assert [best for best, *_ in after(stop, [3.0, 2.0, 4.0])] == [3.0, 3.0, 4.0]


def test_a_gain_must_be_more_than_min_delta() -> None:
    stop = StopPlan(metric="test_loss", mode="min", patience=100, min_delta=0.5)
    assert [where for _, where, _ in after(stop, [3.0, 2.5, 2.4])] == [10, 10, 30]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_better(value: float) -> None:
    stop = StopPlan(metric="test_loss", mode="max", patience=30)
    assert after(stop, [value, value, value]) == [(None, 0, False), (None, 0, False), (None, 0, True)]


@pytest.mark.parametrize("metric", ["test_validation_share", "validation_validation_share"])
def test_a_metric_may_have_the_word_validation_in_its_name(metric: str) -> None:
    totals = Totals(test_loss=1.0, test_own={"test_validation_share": 0.25})
    assert value_of(StopPlan(metric=metric, mode="max", patience=10), totals) == 0.25


def test_all_ranks_end_at_the_same_update_and_say_why(ranks: Ranks, tmp_path) -> None:
    of = plan(**NEVER_BETTER, stop=STOP)
    found = {size: ranks.run(train, size, of, policy(of), DATA, str(tmp_path / str(size))) for size in (1, 2)}
    assert len({one["weights_sha256"] for results in found.values() for one in results}) == 1
    for results in found.values():
        assert {(one["status"], one["position"]) for one in results} == {("complete", 128)}
        assert results[0]["early_stop"] == {
            "position": 128, "metric": "test_worse", "value": 1.0, "best": 1.0, "best_position": 32,
        }  # fmt: skip
    for size in found:
        told = [event_of_row(row) for row in rows(tmp_path / str(size), "events.jsonl")]
        (stopped,) = [one for one in told if isinstance(one, StoppedEarly)]
        assert (stopped.position, stopped.metric, stopped.best, stopped.best_position) == (128, "test_worse", 1.0, 32)
        assert told[-1].kind == "finish"


def test_a_resumed_run_remembers_since_when_it_waits(ranks: Ranks, tmp_path) -> None:
    of = plan(**NEVER_BETTER, stop=STOP, checkpoint_keep=99)
    expected = ranks.run(train, 2, of, policy(of), DATA, str(tmp_path / "whole"))[0]
    for position in (96, 128):  # before the end, and where only the end was missing
        again = tmp_path / str(position)
        shutil.copytree(tmp_path / "whole", again)
        for path in (again / "checkpoints").iterdir():
            if int(path.stem) > position:
                path.unlink()
        found = ranks.run(train, 1, of, policy(of), DATA, str(again))[0]
        assert {key: found[key] for key in ("weights_sha256", "position", "early_stop", "steps")} == {
            key: expected[key] for key in ("weights_sha256", "position", "early_stop", "steps")
        }


def test_until_it_stops_the_bits_are_those_of_a_run_without(ranks: Ranks, tmp_path) -> None:
    of = plan(**NEVER_BETTER)
    ranks.run(train, 1, of, policy(of), DATA, str(tmp_path / "without"))
    stopping = of.model_copy(update={"stop": STOP})
    ranks.run(train, 1, stopping, policy(of), DATA, str(tmp_path / "with"))
    kept = {one: (tmp_path / one / "checkpoints" / "000000000128.json").exists() for one in ("with",)}
    assert kept == {"with": True}
    assert rows(tmp_path / "with", "ledger.jsonl") == rows(tmp_path / "without", "ledger.jsonl")[:4]
