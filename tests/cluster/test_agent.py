"""The page for agents: its commands are run in their order, and answer with the fields and kinds of values that it shows."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.json_page import OF_OTHER_FLAGS, lacking

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "agent.md").read_text()

pytestmark = pytest.mark.timeout(300)


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the page: language and text."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def carried_out(command: str, where: Path) -> subprocess.CompletedProcess[str]:
    """A command of the page, by the raylr that is tested."""
    program, *arguments = shlex.split(command)
    assert program == "raylr", command
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "raylr", *arguments], cwd=where, capture_output=True, text=True, timeout=200,
        env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def refute(shown: Any, found: Any, path: str = "answer") -> list[str]:
    """What is shown and not found so: a field that lacks, a value of another kind; of lists the first elements count."""
    if isinstance(shown, dict):
        if not isinstance(found, dict):
            return [f"{path} is no object"]
        lacking = [f"{path}.{key} lacks" for key in shown.keys() - found.keys()]
        both = [key for key in shown if key in found]
        return lacking + [one for key in both for one in refute(shown[key], found[key], f"{path}.{key}")]
    if isinstance(shown, list):
        if not isinstance(found, list) or len(found) < len(shown):
            return [f"{path} has too few elements"]
        return [one for a, b in zip(shown, found, strict=False) for one in refute(a, b, f"{path}[]")]
    if isinstance(shown, str) and shown in ("complete", "run", "sgd"):
        return [] if found == shown else [f"{path} is {found!r}"]
    kinds = (int, float) if isinstance(shown, int | float) else type(shown)
    return [] if isinstance(found, kinds) else [f"{path} is a {type(found).__name__}"]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, list[subprocess.CompletedProcess[str]]]]:
    """Each block that shows an answer, with its language and what the commands before it gave."""
    where, done, told = tmp_path_factory.mktemp("agent"), [], []
    for language, text in blocks():
        if language == "yaml":
            (where / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
        elif language == "bash":
            done = [carried_out(line, where) for line in text.splitlines()]
        else:
            told.append((language, text, done))
    return told


def test_a_refusal_is_the_line_that_is_shown_and_exit_code_2(story: Any) -> None:
    shown = [(text, done) for language, text, done in story if language == "text"]
    assert shown
    for text, (done,) in shown:
        assert (done.returncode, done.stderr, done.stdout) == (2, text, "")


def test_each_command_answers_with_the_fields_that_are_shown(story: Any) -> None:
    shown = [(json.loads(text), done) for language, text, done in story if language == "json"]
    assert len(shown) >= 7
    for answer, done in shown:
        assert [one.returncode for one in done] == [0] * len(done), done[-1].stderr
        assert len(done[0].stdout.splitlines()) == 1, done[0].args
        assert refute(answer, json.loads(done[0].stdout)) == [], done[0].args


def test_each_answer_has_the_fields_of_the_page_about_json(story: Any) -> None:
    looked_at, found = set(), dict[str, list[str]]()
    for command in (one for _, _, done in story for one in done if "--json" in one.args and not one.returncode):
        verb, answer = command.args[3], json.loads(command.stdout)
        looked_at.add(verb)
        found[verb] = [*found.get(verb, []), *lacking(verb, answer, OF_OTHER_FLAGS.get(verb, ()))]
    assert {verb: wrong for verb, wrong in found.items() if wrong} == {}
    assert {"train", "plan", "explain", "explore", "runs", "evaluate"} <= looked_at


def test_the_table_of_verbs_names_verbs_that_there_are() -> None:
    from raylr.cli.program import program

    named = set(re.findall(r"`raylr ([a-z-]+)", PAGE))
    assert named <= set(program([]).commands), named
    assert {"plan", "train", "explore", "runs", "explain"} <= named


def test_the_exit_codes_are_those_of_the_program() -> None:
    from raylr.cli.options import EXIT_CODES

    assert EXIT_CODES == {"complete": 0, "stopped": 143}
    assert "0: done. 1: the run failed" in PAGE
    assert "143: stopped" in PAGE
