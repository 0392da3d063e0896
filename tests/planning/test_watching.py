"""Metrics, the early stop and hooks in the plan: what is chosen, told, doubted and refused."""

import re

import pytest

from raylr.config import Config
from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import HooksPlan, Plan, StopPlan
from raylr.planning.resolve import resolve

DATA = DatasetInfo(
    source="synthetic", num_train=1000, num_test=200, class_names=("a", "b", "c"), image_shape=(32, 32, 3),
    data_sha256="", mean=(0.5,) * 3, std=(0.25,) * 3, note="",
)  # fmt: skip


def plan(**fields: object) -> Plan:
    given = {"batch.global_size": 100, "batch.micro_size": 50, "epochs": 4, **fields}
    return resolve(config_of(given), DATA, Hardware(bf16=False, num_gpus=0))[0]


def test_nothing_is_watched_unless_asked_for() -> None:
    found = plan()
    assert (found.metrics, found.stop, found.hooks) == ((), None, HooksPlan())
    assert not {"metrics", "early stop", "hooks"} & {reason.what for reason in found.story}


@pytest.mark.parametrize("given", ["top2,own.part:f1", ["top2", "own.part:f1"], "top2, own.part:f1"])
def test_metrics_are_a_list_or_names_by_commas(given: object) -> None:
    assert plan(metrics=given).metrics == ("top2", "own.part:f1")


def test_the_story_tells_what_is_watched() -> None:
    found = plan(**{"metrics": "top2", "stop.metric": "test_top2", "stop.patience": "1.5ep", "hooks.test": "own:see"})
    told = {reason.what: reason.value for reason in found.story}
    assert told["metrics"] == "test_top2"
    assert told["early stop"] == "after 1.5ep = 1,500 examples without a higher test_top2"
    assert told["hooks"] == "test own:see"
    assert found.stop == StopPlan(metric="test_top2", mode="max", patience=1500)
    assert not [one for one in found.warnings if "patience" in one]


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("test_loss", "auto", "min"),
        ("test_accuracy", "auto", "max"),
        ("test_loss", "max", "max"),
        ("test_f1", "min", "min"),
    ],
)
def test_what_is_better_follows_the_metric_or_is_given(metric: str, mode: str, expected: str) -> None:
    found = plan(**{"metrics": "own:f1", "stop.metric": metric, "stop.mode": mode}).stop
    assert found is not None
    assert found.mode == expected


def test_a_patience_as_long_as_the_run_is_doubted() -> None:
    found = plan(**{"stop.metric": "test_loss", "stop.patience": "4ep"})
    assert "stop.patience=4ep is not shorter than the run of 4 epochs: it will not stop it" in found.warnings


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metrics": "top3"}, "metrics=top3 is always 1 where there are 3 classes; use top2 or less"),
        (
            {"metrics": "top"},
            "must be top5 or the like, or package.module:name, and top is neither; did you mean top5?",
        ),
        ({"metrics": "f1"}, "and f1 is neither; accuracy and loss are always measured"),
        ({"metrics": "a:f1,b:f1"}, "metrics=a:f1 would be test_f1, which another one is; give it another name"),
        ({"metrics": "a:loss"}, "metrics=a:loss would be test_loss, which another one is; give it another name"),
        ({"stop.metric": "top2", "metrics": "top2"}, "stop.metric=top2 is not measured; did you mean test_top2?"),
        ({"stop.metric": "accuracy"}, "stop.metric=accuracy is not measured; did you mean test_accuracy?"),
        ({"stop.metric": "xyz"}, "stop.metric=xyz is not measured; use test_accuracy, test_loss, or add it to metrics"),
        (
            {"stop.metric": "test_f1", "metrics": "a:f1"},
            "stop.metric=test_f1 is one of your own, and stop.mode=auto knows only those of raylr; give stop.mode=max or min",
        ),
        ({"stop.metric": "test_loss", "stop.patience": "0ep"}, "stop.patience=0ep is no time to get better in"),
        ({"stop.metric": "test_loss", "stop.patience": "3"}, "stop.patience=3, a duration carries its unit"),
        ({"hooks.end": "see"}, "hooks.end=see must be package.module:function, by commas, and see is not"),
    ],
)
def test_what_cannot_be_watched_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(**fields)


def test_hooks_and_metrics_come_back_from_the_record() -> None:
    config = config_of({"metrics": ["top2"], "hooks.update": ["a:b", "c:d"], "stop.metric": "test_loss"})
    assert Config(**config.record()) == config
    assert plan(**{"hooks.update": ["a:b", "c:d"]}).hooks.update == ("a:b", "c:d")


def test_a_plan_shows_its_story_and_its_doubts_as_text() -> None:
    page = plan(**{"stop.metric": "test_loss", "stop.patience": "9ep", "hooks.end": "own:see"})._repr_html_()
    assert ">early stop</td>" in page
    assert ">end own:see</td>" in page
    assert "<div>warning: stop.patience=9ep is not shorter" in page
    assert page.count("<tr>") == page.count("</tr>") >= 10
