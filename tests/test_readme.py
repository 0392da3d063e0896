"""The README says what is so: its tables, its commands, its file map and the test line that CI runs."""

import doctest
import re
import subprocess
from pathlib import Path

import pytest

from raylr.cli import main
from raylr.config import Config
from raylr.config.fields import settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PLANS = re.findall(r"^.*`raylr (plan --workers [^`]*)`:\n\n((?:\|.*\n)+)", README, re.MULTILINE)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n ").split("|")]


def test_the_line_that_ci_runs_is_the_only_test_line_of_the_readme():
    pattern = re.search(r"grep -E '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    lines = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert lines == ["python3 -m venv .uv && .uv/bin/pip install -q uv && .uv/bin/uv run pytest"]


def test_the_ci_script_is_sound_bash():
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


@pytest.mark.parametrize(("command", "table"), PLANS, ids=["global", "per-worker"])
def test_the_worked_numbers_are_those_that_plan_prints(command, table, capsys):
    assert main(command.split()) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [cells(line) for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    assert all(row in printed for row in rows)


def test_both_batch_modes_are_worked_out():
    assert len(PLANS) == 2


def test_every_flag_and_field_that_the_readme_names_is_there():
    keys = {setting.key for setting in settings(Config)}
    sections = {key.partition(".")[0] for key in keys if "." in key}
    flags = {flag.replace("-", "_") for flag in re.findall(r"--((?:\w+\.)[\w-]+)", README)}
    fields = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)[=`]", README))
    assert len(flags | fields) > 10
    assert flags | fields <= keys


def test_every_path_of_the_file_map_is_there():
    block = re.search(r"## Where things are\n\n```\n(.*?)```", README, re.DOTALL)
    parents, missing = [ROOT], []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = parents[depth] / line.split()[0]
        parents[depth + 1 :] = [path]
        missing += [path] * (not path.exists())
    assert not missing
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:raylr|jobs|benchmarks)/[\w/.]+)`", README))


@pytest.mark.parametrize("link", sorted({*re.findall(r"\]\((?!http)([^)]+)\)", README)}))
def test_every_link_leads_to_a_file(link):
    assert (ROOT / link).exists()


def test_the_story_of_the_batch_loop_is_the_ledgers():
    """By hand: 0.1 x 0.1 for each of the five updates of epoch 15, against 0.1 x 0.1 once."""
    rows = re.findall(r"^\| (\d+) +\| +[\d.]+ \| +(1e-\d+) \| +([\d.]+) \|$", README, re.MULTILINE)
    expected = [(74, "1e-01", 0.1)] + [(75 + n, f"1e-{2 + min(n, 4):02}", 0.01) for n in range(6)]
    assert [(int(update), wrong, float(lr)) for update, wrong, lr in rows] == expected


def test_the_python_of_the_readme_does_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README", "README.md", 0)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_no_lock_file_is_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert "uv.lock" not in tracked
