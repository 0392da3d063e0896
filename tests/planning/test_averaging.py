"""The average of the weights in the plan: what it takes in, what is told, and what is refused."""

import re

import pytest

from raylr.errors import ConfigError
from raylr.planning.plan import AveragePlan
from tests.planning.test_instruments import plan


@pytest.mark.parametrize(
    ("given", "found", "told"),
    [
        (
            "ema(0.99)",
            AveragePlan(text="ema(0.99)", decay=0.99),
            "of the weights, tested beside them: 0.99 of it and 0.01 of the new ones, update by update",
        ),
        ("ema(decay=0.9)", AveragePlan(text="ema(decay=0.9)", decay=0.9), "0.9 of it and 0.1 of the new ones"),
        (
            "last(2ep)",
            AveragePlan(text="last(2ep)", every=400),
            "of the weights, tested beside them: the mean of those at the last 5 multiples of 400 examples",
        ),
        ("last(5st)", AveragePlan(text="last(5st)", every=100), "the last 5 multiples of 100 examples"),
    ],
)
def test_what_is_averaged_is_planned_and_told(given: str, found: AveragePlan, told: str) -> None:
    made = plan(**{"eval.average": given})
    assert made.average == found
    (line,) = [reason for reason in made.story if reason.what == "average"]
    assert told in line.value
    assert line.why == f"eval.average={given}"


def test_nothing_is_averaged_unless_it_is_asked_for() -> None:
    assert plan().average is None
    assert "average" not in {reason.what for reason in plan().story}


@pytest.mark.parametrize(("metric", "mode"), [("test_average_accuracy", "max"), ("test_average_loss", "min")])
def test_a_run_may_stop_by_the_tests_of_the_average(metric: str, mode: str) -> None:
    found = plan(**{"eval.average": "ema(0.9)", "stop.metric": metric}).stop
    assert found is not None
    assert found.mode == mode


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"eval.average": "ema"},
            "eval.average=ema is neither ema(DECAY) nor last(DURATION); use ema(0.999), or last(5ep)",
        ),
        ({"eval.average": "ema(1)"}, "eval.average=ema(1): the decay of an update is between 0 and 1; use ema(0.999)"),
        ({"eval.average": "ema(x)"}, "eval.average=ema(x): the decay of an update is between 0 and 1; use ema(0.999)"),
        ({"eval.average": "last(5)"}, "eval.average=5, a duration carries its unit"),
        ({"eval.average": "last(4st)"}, "eval.average=last(4st) is shorter than 5 updates; use last(5st), or more"),
        (
            {"eval.average": "ema(0.9)", "batch.reduce": "ddp"},
            "eval.average=ema(0.9) takes BatchNorm's statistics over micro-batches, which batch.reduce=ddp has none of; "
            "use batch.reduce=tree",
        ),
        (
            {"eval.average": "ema(0.9)", "metrics": "my.module:average_loss"},
            "metrics=my.module:average_loss would be test_average_loss, as those of eval.average are; give it another name",
        ),
        ({"stop.metric": "test_average_loss"}, "stop.metric=test_average_loss is not measured"),
    ],
)
def test_what_cannot_be_averaged_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(**fields)
