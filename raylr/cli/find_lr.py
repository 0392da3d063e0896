"""The verb `raylr find-lr`: a range test, which gives a range of LRs and not one number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand, Location
from raylr.cli.training import training_on
from raylr.config import Config
from raylr.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType


def _find_lr(
    config: Config, low: float | None, high: float | None, updates: int, seeds: int,
    png: Path | None, write: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Find a range of LRs to start from, by short runs whose LR rises exponentially.

    Takes the config and flags of `raylr train`; of several optimizers each is tested by itself, the others at LR 0. The loss
    is that of the global batch over all workers, so the answer is the same at any number of workers. The runs are of its own,
    under --storage: no run of yours is touched, and the same command goes on after an interrupt.

    \b
    raylr find-lr
    raylr find-lr config.yaml --from 1e-4 --to 10 --png lr.png --write tuned.yaml
    """
    from raylr.api.find_lr import find_lr
    from raylr.config.starting import config_text
    from raylr.reporting.lr_ranges import LossPlot, lines, save_png

    if write is not None and write.exists():
        raise ConfigError(f"write={write} is there already; give another file, or remove it")
    answer = Answer(as_json)
    found = find_lr(config, low, high, updates, seeds, training_on(answer.screen))
    shown: list[RenderableType] = []
    for curve in found.curves:
        shown += [LossPlot(curve), *lines(curve, found.reference_batch)]
    if png is not None:
        shown.append(f"picture: {save_png(found.curves, png)}")
    if write is not None:
        try:
            write.write_text(config_text(found.applied(config), write), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"write={write} cannot be written ({error.strerror}); give another file") from None
        shown.append(f"config: {write}")
    paths = {name: None if path is None else str(path) for name, path in (("png", png), ("written", write))}
    answer.lay_out({**found.row(), **paths}, *shown)
    return 0


def find_lr_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Option(["--from", "low"], type=float, help="lowest LR [a hundredth of the tuned one]"),
        click.Option(["--to", "high"], type=float, help="highest LR [thirty times the tuned one]"),
        click.Option(["--updates"], type=int, default=100, help="of each run [100]"),
        click.Option(["--seeds"], type=click.IntRange(min=3), default=3, help="runs of each optimizer [3]"),
        click.Option(["--png"], type=Location(path_type=Path), metavar="FILE", help="also draw the curves into this file"),
        click.Option(["--write"], type=Location(path_type=Path), metavar="FILE", help="write the config with the LR found"),
        json_option(),
    ]  # fmt: skip
    return ConfigCommand("find-lr", _find_lr, arguments, own=own)
