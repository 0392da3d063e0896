"""Runs as one page of HTML that needs nothing else: no network, no script, no font. On request, its pictures as PNGs.

All text from files passes Jinja2's escaping, and the pictures hold none of it. The page forbids scripts, should one get in.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

from raylr.errors import ConfigError
from raylr.reporting import compare
from raylr.reporting.charts import RUN_COLORS, Panel, sign
from raylr.reporting.pictures import NARROW, WIDE, save_png, svg
from raylr.reporting.recorded import RecordedRun, read_run
from raylr.reporting.sections import Section, sections
from raylr.storage import LocalFolder

MAX_LISTED = 50  # events of a run in the table


def write_report(run_dirs: list[Path], out: Path, png_dir: Path | None = None) -> Path:
    """Write a page about these runs to `out`, and a PNG of each section into `png_dir`; returns `out`.

    The runs are laid over each other in the order given. Raises ConfigError for a folder that is no run, and for a file
    that cannot be written.
    """
    if not run_dirs:
        raise ConfigError("run= names no run; give the folder of at least one")
    runs = [read_run(path) for path in dict.fromkeys(path.expanduser().resolve() for path in run_dirs)]
    label(runs)
    found = sections(runs)
    if png_dir is not None:
        for section in found:
            save_png(section.panels, [run.label for run in runs], png_dir / f"{section.name}.png")
    page = _page(runs, found)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        LocalFolder(out.parent).write_bytes(out.name, page.encode(errors="replace"))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}); give another file") from None
    return out


def label(runs: Sequence[RecordedRun]) -> None:
    """Name the runs by their folders, with as many of the folders above as make the names differ."""
    for depth in range(1, max(len(run.run_dir.parts) for run in runs) + 1):
        labels = [run.label for run in runs]
        for run in runs:
            if labels.count(run.label) > 1:
                run.label = "/".join(run.run_dir.parts[-depth:])


def _page(runs: Sequence[RecordedRun], found: Sequence[Section]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    numbers = count()

    def picture(panel: Panel, title: str) -> Markup:
        """A picture at two widths, of which the page shows the one that suits the screen."""
        drawn = [
            f'<div class="{name}">{svg(panel, width, f"p{next(numbers)}-", f"{title} over epochs")}</div>'
            for name, width in (("wide", WIDE), ("narrow", NARROW))
        ]
        return Markup("".join(drawn))

    folder = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("report.html.jinja").render(
        runs=runs,
        sections=found,
        picture=picture,
        compare=compare,
        signs={one.kind: sign(one.kind)[1] for run in runs for one in run.happenings},
        num_colors=len(RUN_COLORS),
        most_listed=MAX_LISTED,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by raylr {version('raylr')}",
    )
