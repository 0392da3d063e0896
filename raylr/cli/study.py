"""The verb `raylr study`: the best LR, and the best floor of its decay, against the width of a model and the amount of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand, Location
from raylr.cli.training import training_on
from raylr.config import Config
from raylr.errors import ConfigError

T = TypeVar("T")


def _study(
    config: Config, widths: str, lrs: str | None, examples: str | None, decays: str | None, transfer: str,
    seeds: int, png: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Say which LR is best, and which floor of its decay, at each width of a model and each number of images.

    Takes the config and flags of `raylr train` and trains the whole grid, with seeds, judged by the loss on a validation split:
    a fifth of the training images, where data.validation says nothing. With --transfer none,completep the rule that carries
    an LR over to another width is tried beside none. Runs are named by what they train, so the same command goes on after an
    interrupt, and a larger grid takes the runs of a smaller one.

    \b
    raylr study --widths 0.5,1,2 --lrs 0.1,0.2,0.4,0.8 --transfer none,completep --png width.png
    raylr study --examples 1000,5000,20000 --decays 0,0.1,1
    """
    from raylr.api.study import Cell, study
    from raylr.reporting.study import cell_line, lines, save_png

    answer = Answer(as_json)

    def tell(cell: Cell) -> None:
        answer.screen.print(cell_line(cell), soft_wrap=True)

    found = study(
        config,
        _numbers("widths", widths, float),
        _numbers("lrs", lrs, float),
        _numbers("examples", examples, int),
        _numbers("decays", decays, float),
        [name.strip() for name in transfer.split(",")],
        seeds,
        training_on(answer.screen),
        tell,
    )
    shown = list(lines(found))
    if png is not None:
        shown.append(f"picture: {save_png(found, png)}")
    answer.lay_out({**found.row(), "png": None if png is None else str(png)}, *shown)
    return 0


def _numbers(flag: str, text: str | None, kind: Callable[[str], T]) -> list[T]:
    """The numbers of a flag, separated by commas."""
    try:
        return [kind(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        example = "1000,5000" if kind is int else "0.5,1,2"
        raise ConfigError(f"{flag}={text} is no list of numbers; separate them by commas, such as {example}") from None


def study_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Option(["--widths"], default="1", help="model.width of each, by commas, such as 0.5,1,2 [1]"),
        click.Option(["--lrs"], help="lr.base of each, by commas [five around the config's, a factor of 2 apart]"),
        click.Option(["--examples"], help="images to train on, by commas, such as 1000,5000 [as the config says]"),
        click.Option(["--decays"], help="shares of the peak LR at the end of a linear decay, by commas [as the config says]"),
        click.Option(["--transfer"], default="none", help="none, completep or both, by commas [none]"),
        click.Option(["--seeds"], type=int, default=2, help="runs of each point [2]"),
        click.Option(["--png"], type=Location(path_type=Path), metavar="FILE", help="also draw the losses into this file"),
        json_option(),
    ]  # fmt: skip
    return ConfigCommand("study", _study, arguments, own=own)
