"""Which run `raylr ctl` speaks of; orders to runs that go on are in tests/cluster."""

import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.running.control import order, status
from tests.reporting.run_folders import make_run, result


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", result=result())


@pytest.mark.parametrize("form", ["path", "uri", "home", "name", "name under a uri"])
def test_a_run_is_found_by_path_uri_and_name(ended: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(ended.parents[1]))
    storage = str(ended.parent)
    run, storage = {
        "path": (str(ended), "none"),
        "uri": (f"file://{ended}", "none"),
        "home": ("~/runs/one", "none"),
        "name": ("one", storage),
        "name under a uri": ("one", f"file://{storage}"),
    }[form]
    with pytest.raises(ConfigError, match=r"run=.*one has ended \(complete\); there is nothing to control"):
        status(run, storage)


def test_a_run_that_is_not_there_is_told_with_those_that_are(ended: Path) -> None:
    with pytest.raises(ConfigError, match=r"run=two is no run folder, nor the name of one in .*; there are one$"):
        order("two", str(ended.parent), "stop")


def test_a_run_that_was_killed_is_not_running(ended: Path) -> None:
    (ended / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"run=.*one is not running"):
        status(str(ended), "none")


def test_a_population_takes_no_order_to_one_run(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "space.json").write_text("{}")
    (tmp_path / "search" / "hub.json").write_text(json.dumps({"address": "", "hub": "", "token_path": None}))
    with pytest.raises(ConfigError, match="search is a population, which knows status and stop"):
        order(str(tmp_path / "search"), "none", "lr", 0.1)
