"""Hooks see updates, tests and the end, and change nothing."""

from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.events import Finished
from raylr.planning.plan import HooksPlan
from raylr.training.hooks import Hooks, check_hooks
from tests.ranks import Ranks
from tests.training.runs import plan, policy, train
from tests.training.test_same_bits import DATA

OWN = "tests.training.watched"
SEE = (f"{OWN}:see",)


def test_hooks_see_each_update_and_test_once_and_change_no_bit(ranks: Ranks, tmp_path: Path) -> None:
    plain, seen = plan(), plan(hooks=HooksPlan(update=SEE, test=SEE))
    expected = ranks.run(train, 1, plain, policy(plain), DATA, str(tmp_path / "plain"))[0]["weights_sha256"]
    for size in (1, 2):
        found = ranks.run(train, size, seen, policy(plain), DATA, str(tmp_path / str(size)))
        assert {one["weights_sha256"] for one in found} == {expected}
        lines = (tmp_path / f"{size}.seen").read_text().splitlines()
        assert [line.partition("(")[0] for line in lines] == [*["Updated"] * 3, "Metrics", *["Updated"] * 2, "Metrics"]
        assert [f"step={step}, position={32 * step}," in lines[step] for step in range(3)] == [True] * 3
        assert f"world_size={size}, rolled_back=False" in lines[0]


def test_a_hook_that_fails_is_named_once_and_training_goes_on(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(hooks=HooksPlan(update=(f"{OWN}:breaks", *SEE)))
    found = ranks.run(train, 1, of, policy(of), DATA, str(tmp_path / "run"))[0]
    assert found["status"] == "complete"
    assert len((tmp_path / "run.seen").read_text().splitlines()) == 5


def test_the_warning_has_the_error_and_its_place() -> None:
    said: list[str] = []
    hooks = Hooks("end", (f"{OWN}:breaks",), "runs/one", said.append)
    for _ in range(2):
        hooks(Finished({"status": "complete"}, "runs/one"))
    (line,) = said
    assert line.startswith(
        f"hooks.end={OWN}:breaks failed and is called no more: ValueError: broken on purpose (watched.py, line "
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{OWN}:NUMBER", "is an? int; name a function that takes the event"),
        (f"{OWN}:of_two", "cannot be called with an event alone; take one argument, and run_dir if you like"),
        (f"{OWN}:sees", r"has no sees; did you mean see\?"),
        ("no.such.module:see", "no.such.module does not import: ModuleNotFoundError"),
    ],
)
def test_what_is_no_hook_is_refused_before_anything_starts(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hooks\.test={name}.*{said}"):
        check_hooks(HooksPlan(test=(name,)))


def test_a_hook_may_be_a_builtin() -> None:
    check_hooks(HooksPlan(update=("builtins:print",)))


def test_the_hook_that_ships_adds_a_line_for_each_test(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(hooks=HooksPlan(test=("jobs.examples.own_metrics:append_to_csv",)))
    found = ranks.run(train, 1, of, policy(of), DATA, str(tmp_path / "run"))[0]
    lines = [line.split(",") for line in (tmp_path / "run" / "tests.csv").read_text().splitlines()]
    assert [line[0] for line in lines] == ["1.067", "1.778"]  # 96 and 160 of 90 examples
    assert lines[-1][2] == f"{found['test_accuracy']:.4f}"
