"""The verb `raylr race`: examples and seconds to a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand
from raylr.cli.training import training_on
from raylr.config import Config

if TYPE_CHECKING:
    from raylr.api.race import Lap, Race


def _race(
    config: Config, what: str, target: float, seeds: int, against: str | None, metric: str | None, as_json: bool
) -> int:
    """Say how many examples and seconds a config (YAML), a policy or a run needs to reach a target, over seeds.

    Trains it once a seed and looks for the first test that reaches the target; mean and standard deviation over the seeds, and
    with --against a two-sided z test of the difference. The same command goes on after an interrupt and trains nothing twice.
    Exit code 1 where no seed reaches the target. Seconds are those of this machine: training, tests and checkpoints.

    \b
    raylr race base.yaml --target 0.7 --seeds 5
    raylr race base.yaml --target 0.7 --against faster.yaml --eval.every 0.25ep
    """
    from raylr.api.race import race

    answer = Answer(as_json)

    def tell(lap: Lap) -> None:
        answer.screen.print(_lap(lap))

    found = race(what, target, seeds, against, config, metric, training_on(answer.screen), tell)
    for line in _told(found):
        answer.screen.print(line, soft_wrap=True)
    if not answer.is_for_people:
        answer.say({"config": what, "against": against, **found.row()})
    return 0


def _lap(lap: Lap) -> str:
    if lap.examples is None or lap.seconds is None:
        return f"{lap.side}, seed {lap.seed}: not reached, the best was {lap.best:.4f}"
    return f"{lap.side}, seed {lap.seed}: {lap.examples:,} examples, {lap.seconds:.1f} s, the best was {lap.best:.4f}"


def _told(found: Race) -> list[str]:
    lines = []
    for side in dict.fromkeys(lap.side for lap in found.laps):
        laps = [lap for lap in found.laps if lap.side == side]
        reached = len(found.of(side))
        numbers = [
            f"{spread.mean:,.{digits}f}{f' +- {spread.deviation:,.{digits}f}' * (spread.count > 1)} {what}"
            for what, digits in (("examples", 0), ("seconds", 1))
            if (spread := found.spread(side, what)) is not None
        ]
        lines.append(f"{side}: {found.metric} {found.target:g} by {reached} of {len(laps)} seeds" + _after(numbers))
    for what in ("examples", "seconds"):
        if (test := found.test(what)) is not None:
            lines.append(f"A - B: {test.difference:+,.1f} {what}, z = {test.z:.2f}, p = {test.p:.2g}")
    return lines


def _after(numbers: list[str]) -> str:
    return f" after {', '.join(numbers)}" if numbers else ""


def race_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Argument(["what"], metavar="CONFIG.yaml|POLICY|RUN"),
        click.Option(["--target"], type=float, required=True, help="such as 0.7 for 70 %"),
        click.Option(["--seeds"], type=click.IntRange(min=1), default=5, show_default=True, help="runs of each"),
        click.Option(["--against"], metavar="CONFIG.yaml", help="another one, to test the difference"),
        click.Option(["--metric"], help="such as test_loss [accuracy on what the runs are tested on]"),
        json_option(),
    ]
    return ConfigCommand("race", _race, arguments, own=own)
