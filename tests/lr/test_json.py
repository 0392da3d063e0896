"""A policy through JSON: the same policy back, and no mistake in a file that passes."""

import hashlib
import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.lr import Momentum, Override, Policy, Schedule, Warmup
from raylr.lr.shapes import Constant
from tests.lr.curves import EPOCH, PLAIN, TOTAL, policy, shape, warmup_of

OVERRIDES = (Override(100, 0.1, 0, "*", "guard"), Override(200, 1.0, 50, "sgd", "resize"))


@pytest.mark.parametrize("text", PLAIN)
def test_every_shape_comes_back(text: str) -> None:
    built = policy(text, warmup=warmup_of(text), base_lr=0.1 + 0.2).with_overrides(*OVERRIDES)
    again = Policy.from_json(built.to_json())
    assert again == built
    assert again.to_json() == built.to_json()
    assert again.sha256 == built.sha256


def test_several_optimizers_and_momentum_come_back() -> None:
    muon = Schedule(0.02, 10, "legw", Warmup(5, "base", "cosine"), Constant(), match="conv*,fc.*")
    adam = Schedule(0.001, 10, "sde", Warmup(0), shape("one_cycle"), Momentum(0.85, 0.95))
    built = Policy(EPOCH, TOTAL, (("muon", muon), ("adam", adam)))
    assert Policy.from_json(built.to_json()) == built


def test_json_is_what_a_person_expects() -> None:
    data = json.loads(policy("cosine(floor=0.01)", base_lr=0.1).with_overrides(OVERRIDES[0]).to_json())
    assert data == {
        "format_version": 1,
        "examples_per_epoch": 100,
        "total_examples": 1000,
        "schedules": [
            {
                "name": "sgd",
                "base_lr": 0.1,
                "reference_batch": 10,
                "scaling": "none",
                "warmup": {"examples": 100, "start": "zero", "rise": "linear"},
                "shape": {"name": "cosine", "floor": 0.01},
                "momentum": None,
                "match": "*",
            }
        ],
        "overrides": [{"position": 100, "factor": 0.1, "ramp_examples": 0, "target": "*", "cause": "guard"}],
    }


def test_sha256_is_that_of_the_canonical_json_without_overrides() -> None:
    canonical = (
        '{"examples_per_epoch":100,"format_version":1,"schedules":[{"base_lr":1.0,"match":"*","momentum":null,'
        '"name":"sgd","reference_batch":10,"scaling":"none","shape":{"floor":0.0,"name":"linear"},'
        '"warmup":{"examples":100,"rise":"linear","start":"zero"}}],"total_examples":1000}'
    )
    assert policy("linear").sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    assert policy("linear").with_overrides(*OVERRIDES).sha256 == policy("linear").sha256


def test_sha256_tells_policies_apart_and_not_the_spelling_of_a_number() -> None:
    different = [policy("linear"), policy("cosine"), policy(warmup=99), policy(base_lr=2), policy("linear(floor=0.1)")]
    assert len({each.sha256 for each in different}) == len(different)
    assert policy(base_lr=1).sha256 == policy(base_lr=1.0).sha256


def test_a_policy_goes_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policy().to_json(), encoding="utf-8")
    assert Policy.from_json(path.read_text(encoding="utf-8")) == policy()


def changed(path: str, value: object) -> str:
    """Return a sound policy's JSON with the item at `path` set, or removed where the value is `...`."""
    built = policy("knots(1ep:0.5, 5ep:0)").with_overrides(OVERRIDES[0])
    data = json.loads(built.to_json())
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    place = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("format_version", r"policy\.format_version"),
        ("examples_per_epoch", r"policy\.examples_per_epoch"),
        ("total_examples", r"policy\.total_examples"),
        ("schedules", r"policy\.schedules"),
        ("overrides", r"policy\.overrides"),
        ("schedules/0/base_lr", r"policy\.schedules\[0\]\.base_lr"),
        ("schedules/0/momentum", r"policy\.schedules\[0\]\.momentum"),
        ("schedules/0/match", r"policy\.schedules\[0\]\.match"),
        ("schedules/0/warmup/rise", r"policy\.schedules\[0\]\.warmup\.rise"),
        ("schedules/0/shape/floor", r"policy\.schedules\[0\]\.shape\.floor"),
        ("schedules/0/shape/points/1/multiplier", r"policy\.schedules\[0\]\.shape\.points\[1\]\.multiplier"),
        ("overrides/0/cause", r"policy\.overrides\[0\]\.cause"),
    ],
)
def test_a_missing_field_is_named(path: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is missing; every field is needed"):
        Policy.from_json(changed(path, ...))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("total_exmaples", 5, r"policy\.total_exmaples is not a field; use total_examples"),
        ("schedules/0/base", 5, r"policy\.schedules\[0\]\.base is not a field; use base_lr"),
        ("schedules/0/shape/flor", 5, r"policy\.schedules\[0\]\.shape\.flor is not a field; use floor"),
        ("format_version", 2, r"policy\.format_version=2 is not readable here; use 1"),
        ("total_examples", "1000", r"total_examples='1000' must be a whole number"),
        ("total_examples", 400, r"lr\.shape=knots\(.*\), the knot at 500 examples is past the end"),
        ("schedules", {}, r"policy\.schedules=\{\} must be a list"),
        ("schedules/0", 5, r"policy\.schedules\[0\]=5 must be an object with named fields"),
        ("schedules/0/name", "", r"policy\.schedules\[0\]\.name='' must be the name of an optimizer"),
        ("schedules/0/base_lr", "0.1", r"policy\.schedules\[0\]\.base_lr='0\.1' must be a finite number"),
        ("schedules/0/base_lr", float("nan"), r"policy\.schedules\[0\]\.base_lr=nan must be a finite number"),
        ("schedules/0/reference_batch", 1.5, r"\.reference_batch=1\.5 must be a whole number"),
        ("schedules/0/match", 5, r"\.match=5 must be a text"),
        ("schedules/0/scaling", "liner", r"policy\.schedules\[0\]\.scaling=liner is unknown; use linear"),
        ("schedules/0/warmup", None, r"policy\.schedules\[0\]\.warmup=None must be an object"),
        ("schedules/0/warmup/examples", True, r"\.warmup\.examples=True must be a whole number"),
        ("schedules/0/shape/name", "knot", r"policy\.schedules\[0\]\.shape\.name=knot is no shape; use knots"),
        ("schedules/0/shape/name", [], r"\.shape\.name=\[\] is no shape; use one of constant"),
        ("schedules/0/shape/points", 5, r"\.shape\.points=5 must be a list"),
        ("schedules/0/shape/points/0/position", -1, r"\.points\[0\]\.position=-1 must be 0 examples or more"),
        ("schedules/0/shape/floor", 2, r"policy\.schedules\[0\]\.shape\.floor=2\.0 must be from 0 to 1"),
        ("overrides", None, r"policy\.overrides=None must be a list"),
        ("overrides/0/factor", -1, r"policy\.overrides\[0\]\.factor=-1\.0 must be 0 or more"),
        ("overrides/0/target", "adam", r"target=adam of an override is no optimizer; use \* or sgd"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy.from_json(changed(path, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "policy is not JSON: Expecting property name .* in line 1"),
        ("[]", r"policy=\[\] must be an object with named fields"),
        ("{}", r"policy\.format_version is missing"),
        ("[" * 5000, r"policy is no JSON of ours: it is nested too deeply$"),
        (
            '{"total_examples": 1' + "0" * 400 + "}",
            r"policy has the number 100000000\.\.\. of 401 digits; use at most 15$",
        ),
        (
            '{"total_examples": ' + "9" * 5000 + "}",
            r"policy has the number 999999999\.\.\. of 5000 digits; use at most 15$",
        ),
    ],
)
def test_what_is_no_policy_at_all(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy.from_json(text)
