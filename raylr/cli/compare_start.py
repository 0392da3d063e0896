"""The verb `raylr compare-start`: ways to find a starting LR, at equal examples with what each way costs counted."""

from __future__ import annotations

from collections.abc import Sequence

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand
from raylr.cli.training import training_on
from raylr.config import Config
from raylr.lr.bounds import Bounds


def _compare_start(config: Config, trials: int, seeds: int, within: str, as_json: bool) -> int:
    """Compare ways to find a starting LR: the default, a range test by each rule, grid, random, TPE, ASHA, Prodigy.

    Takes the config and flags of `raylr train`. A sweep of 8 LRs says which is best, and is counted to nobody. Each way has the
    examples of TRIALS + 1 runs: what its search leaves over is the length of the runs that its LR then trains. All is judged
    on a validation split: a fifth of the training images, where data.validation says nothing. The same command goes on.

    \b
    raylr compare-start --epochs 4 --data.train-examples 5000
    raylr compare-start jobs/recipes/step.yaml --trials 8 --seeds 5 --within 0.1:10
    """
    from raylr.api.compare_start import compare_start
    from raylr.reporting.starts import lines

    answer = Answer(as_json)
    bounds = Bounds.parse(within, "within")
    found = compare_start(
        config,
        trials,
        seeds,
        (bounds.low, bounds.high),
        training_on(answer.screen),
        tell=lambda text: answer.screen.print(text, soft_wrap=True),
    )
    answer.lay_out(found.row(), *lines(found))
    return 0


def compare_start_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Option(["--trials"], type=int, default=4, help="runs of a grid, and of each search [4]"),
        click.Option(["--seeds"], type=int, default=2, help="runs of each way, and of each LR of the sweep [2]"),
        click.Option(["--within"], default="0.0625:8", help="multiples of the LR to look in, LOW:HIGH [0.0625:8]"),
        json_option(),
    ]
    return ConfigCommand("compare-start", _compare_start, arguments, own=own)
