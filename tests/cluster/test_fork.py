"""A fork by the real command on real Ray: stopped in the replay, continued, and equal to its parent; then verified."""

import json
import shutil
import signal

import pytest

from raylr.planning.facts import Hardware
from raylr.planning.resolve import resolve
from raylr.running.job import identity
from raylr.training.data import prepare
from tests.cluster.commands import SMALL, Command, assert_same, config_of, rows, wait_until
from tests.json_page import lacking

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def base(where, expected):
    """The folder of the plain run as `raylr train` would have left it, but for the joint's checkpoints."""
    result, plain_dir = expected
    shutil.copytree(plain_dir, where / "base")
    flags = [*SMALL, str(plain_dir.parent / "cache"), "--storage", str(where)]
    config = config_of(flags)
    info = prepare(config.data)
    plan, policy = resolve(config, info, Hardware(bf16=False, num_gpus=0))
    files = {
        "config.json": config.record(), "plan.json": plan.model_dump(mode="json"), "policy.json": json.loads(policy.to_json()),
        "result.json": {**identity(plan, policy, info), **result},
    }  # fmt: skip
    for name, content in files.items():
        (where / "base" / name).write_text(json.dumps(content))
    return where / "base"


def test_a_fork_that_changes_nothing_equals_its_parent_also_when_it_was_stopped(where, base, expected):
    command = ("fork", "base", "--at", "5ep", "--name", "same", "--storage", str(where), "--gpu", "no")
    first = Command(*command, "--workers", "2", cwd=where)
    wait_until(lambda: len(rows(where / "same", "ledger.jsonl")) > 65, "the replay")  # the checkpoint is at update 63
    first.process.send_signal(signal.SIGINT)
    code, _, err = first.end()
    assert code in (0, 143), err
    code, out, err = Command(*command, "--workers", "1", "--json", cwd=where).end()
    assert code == 0, err
    result = json.loads(out)
    assert (result["status"], result["parent"]["run"], result["parent"]["changes"]) == ("complete", "base", [])
    assert_same(where, "same", result, expected)
    forks = [row for row in rows(where / "same", "events.jsonl") if row["kind"] == "fork"]
    assert forks
    assert all((row["parent"], row["position"]) == ("base", result["parent"]["position"]) for row in forks)


def test_a_fork_is_verified_and_explained_by_the_commands(where, base):
    code, out, err = Command("verify", "same", "--storage", str(where), "--part", "5%", "--json", cwd=where).end(120)
    assert code == 0, err
    found = json.loads(out)
    assert found["verified"]
    assert lacking("verify", found) == []
    code, out, err = Command("explain", "same", "--storage", str(where), "--step", "80", cwd=where).end(60)
    assert code == 0, err
    assert "fork of base since position" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fork", "base", "--at", "9ep"), "at=9ep is beyond the end of base"),
        (("fork", "base"), "at says where the fork leaves RUN, and is not given"),
        (("fork", "base", "--at", "2ep", "--name", "base"), "name=base is the run that is forked"),
        (
            ("fork", "base", "--at", "2ep", "--name", "same"),
            "name=same is a fork of base at update 79, and this is one of base",
        ),
        (
            ("fork", "same", "--at", "2ep", "--name", "base"),
            "name=base is no fork, and this is one of same at update 32",
        ),
        (("extend", "base"), "extend of run=base needs --epochs"),
        (("extend", "base", "--epochs", "3"), "epochs=3 is no more than base has trained"),
        (("fork", "none", "--at", "2ep"), "run=none is no run folder"),
        (("plan", "--at", "2ep"), "at and cooldown plan a fork; name the run first"),
    ],
)
def test_what_is_no_fork_is_refused_in_one_line(where, base, arguments, message):
    code, _, err = Command(*arguments, "--storage", str(where), cwd=where).end(60)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert message in err


def test_the_joint_is_shown_and_nothing_is_started(where, base):
    before = {path.name for path in where.iterdir()}
    command = ("plan", "base", "--at", "5ep", "--epochs", "12", "--storage", str(where))
    code, out, err = Command(*command, cwd=where).end(60)
    assert code == 0, err
    assert "fork of" in out
    assert "LR at joint" in out
    assert "the fork" in out  # a curve of its own
    code, out, err = Command(*command, "--json", cwd=where).end(60)
    assert code == 0, err
    assert json.loads(out)["plan"]["parent"]["run"] == "base"
    assert {path.name for path in where.iterdir()} == before
