"""A real study of two LRs at two widths on Ray, which goes on from what is there."""

import json
from pathlib import Path

import pytest

from tests.cluster.commands import Command
from tests.json_page import lacking
from tests.training.runs import pictures

pytestmark = pytest.mark.timeout(300)
SMALL = [
    "--data.source", "pictures", "--data.cache-dir", "cache", "--batch.global-size", "16", "--batch.micro-size", "8",
    "--precision", "fp32", "--workers", "1", "--epochs", "1", "--seeds", "1", "--transfer", "completep",
]  # fmt: skip


def test_a_study_answers_draws_and_takes_the_runs_that_are_there(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures", "abc")
    flags = [*SMALL, "--lrs", "0.1,0.2", "--json"]
    code, out, err = Command("study", *flags, "--widths", "0.25", "--png", "study.png", cwd=tmp_path).end()
    assert code == 0, err
    (found,) = (json.loads(line) for line in out.splitlines())
    assert lacking("study", found) == []
    assert [(cell["width"], cell["lr"]) for cell in found["cells"]] == [(0.25, 0.1), (0.25, 0.2)]
    assert all(0 < cell["loss"] < 10 for cell in found["cells"])
    assert (tmp_path / "study.png").read_bytes()[1:4] == b"PNG"
    again = json.loads(Command("study", *flags, "--widths", "0.25", cwd=tmp_path).end()[1])
    assert (again["runs_trained"], again["cells"]) == (0, found["cells"])

    code, _, err = Command("study", *flags, "--widths", "half", cwd=tmp_path).end()
    expected = "error: widths=half is no list of numbers; separate them by commas, such as 0.5,1,2\n"
    assert (code, err) == (2, expected)
