"""README.md and docs/ are right: their tables, commands, links, Python and file map, and the test line that CI runs."""

import doctest
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from raylr.cli import main
from raylr.cli.options import ConfigCommand
from raylr.cli.program import program
from raylr.config import Config
from raylr.config.fields import settings
from raylr.errors import ConfigError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *(ROOT / "benchmarks").glob("*.md")]
}
PLANS = [
    (page, *found)
    for page, text in PAGES.items()
    for found in re.findall(r"^.*`raylr (plan --workers [^`]*)`:\n\n((?:\|.*\n)+)", text, re.MULTILINE)
]


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The page without its fences."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a page's fences, and of each command with a flag in its prose."""
    lines = [line for fence in fences(text, "bash") for line in fence.replace("\\\n", " ").splitlines()]
    lines += [span for span in re.findall(r"`([^`\n]+)`", prose(text)) if " -" in span]
    for line in lines:
        yield shlex.split(line, comments=True)


RAYLR = sorted(
    {(page, shlex.join(words)) for page, text in PAGES.items() for words in commands(text) if words[:1] == ["raylr"]}
)
BENCHMARKS = sorted(
    {
        (page, words[2])
        for page, text in PAGES.items()
        for words in commands(text)
        if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks.")
    }
)


def parse(words: list[str]) -> None:
    """Read a command as `raylr` reads it, its config included, and do nothing."""
    command: click.Command = program(words)
    context = click.Context(command)
    if words == ["--help"]:
        return
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    if isinstance(command, ConfigCommand):
        command.action = lambda config, **values: 0
    context = command.make_context(command.name, list(words))
    if isinstance(command, ConfigCommand):
        command.invoke(context)
    if command.name == "submit":
        given = context.params["arguments"]
        parse([*([] if given[:1] == ("explore",) else ["train"]), *given])


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)}


def test_the_line_that_ci_runs_is_the_only_test_line_of_the_readme():
    pattern = re.search(r"grep -E '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    lines = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert lines == ["python3 -m venv .uv && .uv/bin/pip install -q uv && .uv/bin/uv run pytest"]


def test_the_ci_script_is_sound_bash():
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_readme_is_short_and_begins_with_a_picture():
    assert len(README.splitlines()) <= 180
    assert len(README.split()) <= 1550
    assert "![" in "".join(README.splitlines()[:10])


@pytest.mark.parametrize("page", PAGES)
def test_the_cells_of_tables_are_short(page):
    tables = [line for line in prose(PAGES[page]).splitlines() if line.startswith("|")]
    assert [cell for line in tables for cell in cells(line) if len(cell) >= 60] == []


@pytest.mark.parametrize(("page", "command", "table"), PLANS)
def test_the_worked_numbers_are_those_that_plan_prints(page, command, table, capsys):
    assert main(command.split()) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [cells(line) for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    assert all(row in printed for row in rows)


def test_both_batch_modes_are_worked_out():
    assert {command.split()[-2] for _, command, _ in PLANS} == {"--batch.global-size", "--batch.per-worker-size"}
    assert "README.md" in {page for page, _, _ in PLANS}


@pytest.mark.parametrize(("page", "command"), RAYLR)
def test_every_command_is_one_that_raylr_takes(page, command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    parse([shown_file(page, word, tmp_path) for word in shlex.split(command)[1:]])


def shown_file(page, word, folder):
    """The path of a file that the page shows under this name, else the word."""
    for text in fences(PAGES[page], "yaml"):
        if text.startswith(f"# {word}\n"):
            (folder / word).write_text(text)
            return str(folder / word)
    return word


def test_a_wrong_command_is_found():
    for wrong in ("train --lr.bse 0.1", "plan --epochs many", "explain one", "cluster fly", "submit -- --no-such"):
        with pytest.raises((ConfigError, click.UsageError)):
            parse(wrong.split())


def test_commands_are_found_in_fences_and_prose():
    assert {command.split()[1] for _, command in RAYLR} > {"train", "plan", "explain", "explore", "submit", "cluster"}


@pytest.mark.parametrize(("page", "module"), BENCHMARKS)
def test_every_benchmark_that_a_page_names_is_there(page, module):
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_and_field_that_a_page_names_is_there(page):
    keys = {setting.key for setting in settings(Config)}
    sections = {key.partition(".")[0] for key in keys if "." in key}
    text = re.sub(r"`python -m [^`]*`", "", PAGES[page])  # benchmarks have flags of their own
    flags = {flag.replace("-", "_") for flag in re.findall(r"--((?:\w+\.)+[\w-]+)", text)}
    fields = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)[=`]", text))
    named = tuple(f"{section}." for section in ("task", "optimizers"))  # what is below has names of the user's
    assert {field for field in flags | fields if not field.endswith(".") and not field.startswith(named)} <= keys
    assert page != "README.md" or len(flags | fields) > 10


def test_every_path_of_the_file_map_is_there():
    block = re.search(r"## Where things are\n\n```\n(.*?)```", PAGES["CONTRIBUTING.md"], re.DOTALL)
    parents, missing = [ROOT], []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = parents[depth] / line.split()[0]
        parents[depth + 1 :] = [path]
        missing += [path] * (not path.exists())
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:raylr|jobs|benchmarks|docs|tests)/[\w/.-]+)`", PAGES[page])
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", prose(PAGES[page])):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_docs_is_linked_from_the_readme():
    assert {page for page in PAGES if page.startswith("docs/")} <= set(re.findall(r"\]\(([^)#]+)\)", README))


def test_the_story_of_the_batch_loop_is_the_ledgers():
    """By hand: 0.1 x 0.1 for each of the five updates of epoch 15, against 0.1 x 0.1 once."""
    page = PAGES["docs/how-the-lr-is-chosen.md"]
    rows = re.findall(r"^\| (\d+) +\| +[\d.]+ \| +(1e-\d+) \| +([\d.]+) \|$", page, re.MULTILINE)
    expected = [(74, "1e-01", 0.1)] + [(75 + n, f"1e-{2 + min(n, 4):02}", 0.01) for n in range(6)]
    assert [(int(update), wrong, float(lr)) for update, wrong, lr in rows] == expected


@pytest.mark.parametrize("page", [page for page in PAGES if fences(PAGES[page], "python")])
def test_the_python_of_a_page_does_what_it_says(page):
    example = doctest.DocTestParser().get_doctest("\n".join(fences(PAGES[page], "python")), {}, page, page, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_python_of_the_readme_is_run():
    assert fences(README, "python")


def test_no_lock_file_is_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert "uv.lock" not in tracked
