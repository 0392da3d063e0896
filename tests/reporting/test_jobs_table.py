"""The table of jobs fits the terminal: what is told of a job is there at 80 columns."""

import io

import pytest
from rich.console import Console

from raylr.reporting.jobs import job_table

ROWS = [
    {
        "job": "raysubmit_Xe7cvjyGJCyuCvm2", "status": "SUCCEEDED", "began": 1.8e9, "ended": 1.8e9 + 65,
        "run": "/shared/runs/first", "told": "complete, test accuracy 91.25%",
    },
    {"job": "mine", "status": "RUNNING", "began": None, "ended": None, "run": "", "told": ""},
]  # fmt: skip


def shown(width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(job_table(ROWS))
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_wide_terminal_shows_everything() -> None:
    lines = shown(160)
    words = lines[2].split()
    assert (words[0], words[1], words[4:6]) == ("raysubmit_Xe7cvjyGJCyuCvm2", "SUCCEEDED", ["65", "s"])
    assert words[6:] == ["first", "/shared/runs", "complete,", "test", "accuracy", "91.25%"]
    assert lines[3].split() == ["mine", "RUNNING"]


@pytest.mark.parametrize("width", [80, 70])
def test_a_narrow_one_keeps_job_status_run_and_what_its_files_say(width: int) -> None:
    lines = shown(width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    for word in (
        "raysubmit_Xe7cvjyGJCyuCvm2",
        "SUCCEEDED",
        "first",
        "complete,",
        "91.25%",
        "no room for storage, took",
    ):
        assert word in text
