"""Who shows a run that Python starts: nobody in a script, a bar in a terminal, a cell in a notebook."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import raylr
from raylr.api.showing import population_shown, shown

ASK = "from raylr.api.showing import shown; print(f'\\n=> {{type(shown({}).__enter__()).__name__}}')"
WITHOUT = "import importlib.util as u; find = u.find_spec; u.find_spec = lambda name: None if name == 'IPython' else find(name)"


def who(code: str, **environment: str) -> tuple[str, str]:
    """What shows a run in a fresh interpreter whose output is a pipe, and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    (name,) = [line.partition("=> ")[2] for line in done.stdout.splitlines() if "=> " in line]
    return name, done.stderr


def test_a_script_in_a_pipe_shows_nothing_unless_it_asks() -> None:
    assert who(ASK.format(None)) == ("NoneType", "")
    assert who(ASK.format(True)) == ("Display", "")


def test_false_silences_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for shows in (shown, population_shown):
        with shows(False) as nobody, shows(None) as somebody:
            assert (nobody, somebody is None) == (None, False)


def test_a_kernel_draws_in_its_cell() -> None:
    pytest.importorskip("ipykernel")
    start = "from ipykernel.zmqshell import ZMQInteractiveShell as Z; Z.instance().kernel = None"
    assert who(f"{start}; {ASK.format(None)}")[0] == "NotebookDisplay"
    assert who(f"{start}; {ASK.format(False)}")[0] == "NoneType"
    assert who(f"{start}; {ASK.format(None)}".replace("shown", "population_shown"))[0] == "NotebookPopulation"


def test_a_notebook_without_ipython_prints_lines_and_says_why_once() -> None:
    name, said = who(f"{WITHOUT}; {ASK.format(None)}", JPY_PARENT_PID="1")
    assert name == "Display"
    assert said.splitlines() == [
        "progress: this notebook has no IPython to draw with, so lines are printed; pip install ipython, or progress=False"
    ]
    assert who(f"{WITHOUT}; {ASK.format(False)}", JPY_PARENT_PID="1") == ("NoneType", "")


def test_the_package_has_a_version_and_says_that_it_is_typed() -> None:
    from importlib.metadata import version

    assert raylr.__version__ == version("raylr")
    assert (Path(raylr.__file__).parent / "py.typed").exists()
