"""What a trial of a population is refused for, and what the list of jobs says of a run between two tests."""

import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.running.forking import ForkOrder, origin
from raylr.running.jobs import _told
from raylr.running.verify import verify
from tests.reporting.run_folders import make_run, report


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A storage with the population `search` and its trial t00."""
    make_run(tmp_path / "search" / "trials" / "t00")
    (tmp_path / "search" / "space.json").write_text("{}")
    (tmp_path / "search" / "explore.json").write_text(json.dumps({"best": "t00"}))
    return str(tmp_path)


@pytest.mark.parametrize("run", ["search", "search/t00", "search/trials/t00"])
def test_a_trial_is_neither_forked_nor_verified(storage: str, run: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is a trial of a population, whose weights came from others; train its best"
    ):
        origin(ForkOrder(run, "end", changes={"storage": storage}))
    with pytest.raises(ConfigError, match=r"is a trial of a population, whose weights came from others; verify a run"):
        verify(run, storage)


def test_a_job_is_told_by_its_last_test_also_where_points_follow_it(tmp_path: Path) -> None:
    point = {key: value for key, value in report(15).items() if key not in ("test_accuracy", "test_loss")}
    make_run(tmp_path / "one", metrics=[report(10), point])
    assert _told(str(tmp_path), "one") == "epoch 1.00, test accuracy 62.50%"
