"""Runs as one page of HTML that needs nothing else: no network, no font. On request, its pictures as PNGs.

All text from files passes Jinja2's escaping, and the pictures hold none of it. The page permits its own script alone, by its
hash: should another get in, it does not run. Without scripts it shows all but the values below the pointer.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from raylr.errors import ConfigError
from raylr.reporting import compare
from raylr.reporting.charts import RUN_COLORS, Panel, sign
from raylr.reporting.hover import panel_data, script, script_source
from raylr.reporting.pictures import NARROW, WIDE, save_png, svg
from raylr.reporting.recorded import RecordedRun, read_run
from raylr.reporting.sections import Section, sections
from raylr.storage import (
    POPULATION,
    POPULATION_RESULT,
    RUN,
    Folder,
    LocalFolder,
    open_run,
    trials_of,
)

MAX_LISTED = 50  # events of a run in the table


@dataclass(frozen=True)
class Live:
    """That a page keeps itself up to date: the version that it shows, and how often it asks for a newer one."""

    version: str
    every_s: float


def folders_named(names: Sequence[str], storage: str) -> list[Folder]:
    """The folders of the runs and trials that are named, each once; a population stands for all its trials, best first.

    Raises ConfigError where there is none of a name.
    """
    found = {str(folder): folder for name in names for folder in _named(name, storage)}
    return list(found.values())


def _named(name: str, storage: str) -> Iterator[Folder]:
    folder = open_run(name, storage, RUN, POPULATION)
    if not folder.exists(POPULATION):
        yield folder
        return
    trials = {trial.name: trial for trial in trials_of(folder)}
    if not trials:
        raise ConfigError(f"run={name} is a population of which no trial has begun; wait for the first")
    result = folder.read_json(POPULATION_RESULT) if folder.exists(POPULATION_RESULT) else {}
    ranked = [row["trial"] for row in result.get("trials", []) if row["trial"] in trials]
    yield from (trials[trial] for trial in dict.fromkeys([*ranked, *trials]))


def report_on(names: Sequence[str], storage: str, out: Path, png_dir: Path | None = None) -> Path:
    """Write a page about the runs, trials and populations that are named. Raises ConfigError as `write_report` does."""
    return _write(read_all(folders_named(names, storage)), out, png_dir)


def write_report(run_dirs: list[Path], out: Path, png_dir: Path | None = None) -> Path:
    """Write a page about these runs to `out`, and a PNG of each section into `png_dir`; returns `out`.

    The runs are laid over each other in the order given. Raises ConfigError for a folder that is no run, and for a file
    that cannot be written.
    """
    if not run_dirs:
        raise ConfigError("run= names no run; give the folder of at least one")
    paths = dict.fromkeys(path.expanduser().resolve() for path in run_dirs)
    return _write(_labelled([read_run(path) for path in paths]), out, png_dir)


def read_all(folders: Sequence[Folder]) -> list[RecordedRun]:
    """Read the runs of these folders, wherever they are, and label them."""
    with ExitStack() as copies:
        return _labelled([read_run(copies.enter_context(folder.local_copy()), folder) for folder in folders])


def _labelled(runs: list[RecordedRun]) -> list[RecordedRun]:
    label(runs)
    return runs


def _write(runs: list[RecordedRun], out: Path, png_dir: Path | None) -> Path:
    found = sections(runs)
    if png_dir is not None:
        for section in found:
            save_png(section.panels, [run.label for run in runs], png_dir / f"{section.name}.png")
    text = page(runs, found)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        LocalFolder(out.parent).write_bytes(out.name, text.encode(errors="replace"))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}); give another file") from None
    return out


def label(runs: Sequence[RecordedRun]) -> None:
    """Name the runs by their folders, with as many of the folders above as make the names differ.

    Beside other runs the name of a trial follows that of its population.
    """
    if len({run.trial.population if run.trial else None for run in runs}) > 1:
        for run in runs:
            run.label = f"{run.trial.population}/{run.label}" if run.trial else run.label
    for depth in range(1, max(len(run.run_dir.parts) for run in runs) + 1):
        labels = [run.label for run in runs]
        for run in runs:
            if labels.count(run.label) > 1:
                run.label = "/".join(run.run_dir.parts[-depth:])


def page(runs: Sequence[RecordedRun], found: Sequence[Section], live: Live | None = None) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    numbers = count()
    panels: list[dict[str, Any]] = []

    def picture(panel: Panel, title: str) -> Markup:
        """A picture at two widths, of which the page shows the one that suits the screen."""
        drawn, frames = [], {}
        for name, width in (("wide", WIDE), ("narrow", NARROW)):
            text, frames[name] = svg(panel, width, f"p{next(numbers)}-", f"{title} over epochs")
            drawn.append(f'<div class="{name}">{text}</div>')
        panels.append(panel_data(panel, frames))
        return Markup("".join(drawn))

    folder = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("report.html.jinja").render(
        runs=runs,
        sections=found,
        picture=picture,
        panels=panels,
        compare=compare,
        signs={one.kind: sign(one.kind)[1] for run in runs for one in run.happenings},
        num_colors=len(RUN_COLORS),
        most_listed=MAX_LISTED,
        live=live,
        script=Markup(script()),
        script_source=script_source(),
        populations=list(dict.fromkeys(run.trial.population for run in runs if run.trial)),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by raylr {version('raylr')}",
    )
