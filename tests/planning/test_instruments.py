"""Instruments in the plan: what is read how often, what is told, and what is refused."""

import re

import pytest

from raylr.config.free import is_free
from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.driver import FREE

DATA = DatasetInfo(
    source="synthetic", num_train=1000, num_test=200, class_names=("a", "b", "c"), image_shape=(32, 32, 3),
    data_sha256="", mean=(0.5,) * 3, std=(0.25,) * 3, note="",
)  # fmt: skip


def plan(**fields: object) -> Plan:
    given = {"batch.global_size": 100, "batch.micro_size": 50, "epochs": 4, **fields}
    return resolve(config_of(given), DATA, Hardware(bf16=False, num_gpus=0))[0]


def test_the_headroom_is_read_where_it_is_asked_for_alone() -> None:
    assert plan().headroom_every is None
    assert "headroom" not in {reason.what for reason in plan().story}
    found = plan(**{"instruments.headroom": "5st"})
    assert found.headroom_every == 500
    (told,) = [reason for reason in found.story if reason.what == "headroom"]
    assert told.value == "read every 500 examples, by 4 to 10 forward passes over an update's batch"
    assert told.why == "instruments.headroom=5st"


def test_the_sharpness_is_read_as_often_as_is_asked_for_and_by_so_many_products() -> None:
    assert plan().sharpness_every is None
    found = plan(**{"instruments.sharpness": "1dur", "instruments.sharpness_products": 12})
    assert (found.sharpness_every, found.sharpness_products) == (4000, 12)
    (told,) = [reason for reason in found.story if reason.what == "sharpness"]
    assert told.value == (
        "read every 4,000 examples, by at most 12 products of the Hessian with a vector for an eigenvalue"
    )


def test_a_run_may_be_measured_from_its_next_start_on() -> None:
    assert is_free("instruments.headroom")
    assert is_free("instruments.sharpness")
    assert {"headroom_every", "sharpness_every", "sharpness_products"} <= FREE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"instruments.headroom": "0st"}, "instruments.headroom=0st is no interval; use 50st, or 1st for every update"),
        ({"instruments.headroom": "50"}, "instruments.headroom=50, a duration carries its unit"),
        (
            {"instruments.headroom": "5st", "batch.reduce": "ddp"},
            "instruments.headroom=5st sums the loss over micro-batches, which batch.reduce=ddp has none of; "
            "use batch.reduce=tree",
        ),
        (
            {"instruments.sharpness": "5st", "batch.reduce": "ddp"},
            "instruments.sharpness=5st sums the Hessian over micro-batches, which batch.reduce=ddp has none of; "
            "use batch.reduce=tree",
        ),
        (
            {"instruments.sharpness": "5st", "model.compile": True},
            "instruments.sharpness=5st needs second derivatives, which model.compile=yes has none of; use model.compile=no",
        ),
        ({"instruments.sharpness": "0st"}, "instruments.sharpness=0st is no interval; use 50st, or 1dur for the first"),
        ({"instruments.headrom": "5st"}, "did you mean instruments.headroom?"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(**fields)
