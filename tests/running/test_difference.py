"""Another request under a name: told in the user's words, and with a default name given one of its own."""

from pathlib import Path

import pytest

from raylr.config import Config
from raylr.events import News, Waiting
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.running.difference import AnotherRun, differences
from raylr.running.driver import Run
from raylr.running.job import _place
from raylr.storage import run_folder

DATA = DatasetInfo("synthetic", 10_000, 1_000, ("a", "b"), (32, 32, 3), "", "")


def run_of(storage: Path, **fields: object) -> Run:
    config = Config(storage=str(storage), **fields)
    return Run(config, *resolve(config, DATA, Hardware(False, 0)))


def placed(run: Run) -> tuple[str, list[str]]:
    """The name of the folder in which a run goes on, written as a start does, and what was said about it."""
    said: list[News] = []
    job, folder = _place(run.config, run, said.append)
    folder.create()
    folder.write_json("config.json", run.config.record())
    job.write_plan(folder)
    return folder.name, [one.text for one in said if isinstance(one, Waiting)]


def test_the_difference_is_told_by_the_fields_that_were_given(tmp_path: Path) -> None:
    placed(run_of(tmp_path, name="one", epochs=30, optimizer={"nesterov": False}))
    again = run_of(tmp_path, name="one", epochs=12, workers="4", checkpoint={"keep": 9}, data={"root": "elsewhere"})
    assert differences(again.config, run_folder(str(tmp_path), "one")) == [
        "epochs was 30 and is 12",
        "optimizer.nesterov was no and is the default (yes)",
    ]
    with pytest.raises(
        AnotherRun, match=r"name=one is another run: epochs was 30 and is 12; optimizer\.nesterov was no "
    ):
        placed(again)


def test_what_the_config_does_not_tell_is_told_by_the_numbers_of_the_plan(tmp_path: Path) -> None:
    placed(run_of(tmp_path, name="one"))
    config = Config(storage=str(tmp_path), name="one")
    fewer = DatasetInfo("synthetic", 5_000, 1_000, ("a", "b"), (32, 32, 3), "", "")
    with pytest.raises(AnotherRun, match="num_train was 10000 and is 5000"):
        placed(Run(config, *resolve(config, fewer, Hardware(False, 0))))


def test_without_a_name_another_request_gets_the_next_default_name_and_keeps_it(tmp_path: Path) -> None:
    assert placed(run_of(tmp_path, epochs=30)) == ("cnn-small-sgd-0", [])
    told = ["name=cnn-small-sgd-0 is another run: epochs was 30 and is 12; so this one is cnn-small-sgd-0-2"]
    assert placed(run_of(tmp_path, epochs=12)) == ("cnn-small-sgd-0-2", told)
    assert placed(run_of(tmp_path, epochs=12))[0] == "cnn-small-sgd-0-2"
    assert placed(run_of(tmp_path, epochs=30))[0] == "cnn-small-sgd-0"
    assert placed(run_of(tmp_path, epochs=3))[0] == "cnn-small-sgd-0-3"
