"""The verb `raylr batch-study`: how large the batch may be, by forks of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.fork import RunCommand
from raylr.cli.options import Location
from raylr.cli.training import forking_on, training_on
from raylr.config.run import names_in

if TYPE_CHECKING:
    from raylr.api.batch_study import Place


def _batch_study(
    run: str, changes: dict[str, str], at: str, batches: str, rules: str, window: str, tolerance: float,
    png: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Say how large the batch may be at some places of RUN, by forks that train on with larger ones.

    At each place one fork keeps the batch, and others have larger ones, with the LR scaled by each rule. All hold their LR and
    train on as many examples; the largest batch counts that loses no more held-out loss than --tolerance, and beside it stands
    the noise scale. A CONFIG.yaml in place of RUN is trained first. Needs a validation split (data.validation): test images are
    not looked at. Each fork is a run of its own under the storage of RUN: the same command goes on after an interrupt. Flags of
    fields hold for all forks.

    \b
    raylr batch-study first --at 1ep,4ep --batches 2x,4x,8x
    raylr batch-study config.yaml --rules linear,adascale --window 0.5ep --png batch.png
    """
    from raylr.api.batch_study import batch_study
    from raylr.reporting.batch_sizes import lines, save_png

    answer = Answer(as_json)

    def tell(place: Place) -> None:
        if not as_json:
            for line in lines(place, tolerance):
                answer.screen.print(line, soft_wrap=True)

    trains = training_on(answer.screen)
    found = batch_study(
        run, changes, names_in(at), names_in(batches), rules.replace(" ", "").split(","), window, tolerance,
        trains, forking_on(answer.screen), tell,
    )  # fmt: skip
    shown = [f"picture: {save_png(found.places, png)}"] if png is not None else []
    answer.lay_out({**found.row(), "png": None if png is None else str(png)}, *shown)
    return 0


def batch_study_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Option(["--at"], default="0.2dur,0.6dur", show_default=True, help="places, by commas, such as 1ep,4ep"),
        click.Option(["--batches"], default="2x,4x,8x", show_default=True, help="multiples of RUN's, or sizes"),
        click.Option(["--rules"], default="none,sqrt,linear", show_default=True, help="of the LR; also adascale"),
        click.Option(["--window"], default="1ep", show_default=True, help="what each fork trains on"),
        click.Option(["--tolerance"], type=float, default=0.05, show_default=True, help="loss that a larger batch may cost"),
        click.Option(["--png"], type=Location(path_type=Path), metavar="FILE", help="also draw noise scale and batches"),
        json_option(),
    ]  # fmt: skip
    return RunCommand("batch-study", _batch_study, arguments, own=own)
