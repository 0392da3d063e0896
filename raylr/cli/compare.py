"""The verb `raylr compare`: which of two is better, by a sequential test over paired seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand
from raylr.cli.training import training_on
from raylr.config import Config

EXITS = {"KEEP": 0, "DISCARD": 1, "RETEST": 3}


def _compare(
    config: Config,
    a: str,
    b: str,
    metric: str | None,
    mode: Literal["auto", "max", "min"],
    until_decided: bool,
    max_seeds: int,
    margin: float,
    reuse: bool,
    as_json: bool,
) -> int:
    """Compare A with B, each a run, a config (YAML) or a policy (JSON): is B better?

    Trains both with the same seeds in turn and judges the differences after every pair: KEEP where B is better (exit code 0),
    DISCARD where it is not (1), RETEST where more seeds are needed (3). A sequential test with 5 % of error in all decides,
    however often one looks. Runs of raylr have no noise but that of the seed, so the interval is that of the seed alone.

    One call adds a pair; --until-decided goes on to a decision or to --max-seeds. Runs are named by what they train, so the
    same command goes on after an interrupt and trains nothing twice. CONFIG.yaml and flags hold for both sides; a policy is
    trained under the other side's config.

    \b
    raylr compare base.yaml other.yaml --until-decided
    raylr compare one runs/search/best_policy.json --until-decided --max-seeds 20 --reuse
    """
    from raylr.api.compare import Comparison, compare
    from raylr.reporting.verdicts import ending, pair_lines

    answer = Answer(as_json)

    def tell(found: Comparison) -> None:
        for line in pair_lines(found):
            answer.screen.print(line, soft_wrap=True)

    found = compare(
        a, b, config, metric, max_seeds, until_decided, reuse, margin, mode, training_on(answer.screen), tell
    )
    answer.screen.print(ending(found), soft_wrap=True)
    if not answer.is_for_people:
        answer.say({"a": a, "b": b, **found.row()})
    return EXITS[found.verdict]


def compare_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Argument(["a"]),
        click.Argument(["b"]),
        click.Option(["--metric"], help="such as test_loss, or one of --metrics [accuracy on what the sides are tested on]"),
        click.Option(["--mode"], type=click.Choice(["auto", "max", "min"]), default="auto", help="what is better [auto]"),
        click.Option(["--until-decided"], is_flag=True, help="go on to a decision or to --max-seeds"),
        click.Option(["--max-seeds"], type=int, default=10, show_default=True, help="pairs at most"),
        click.Option(["--margin"], type=click.FloatRange(min=0), default=0.0, help="least difference worth keeping B for [0]"),
        click.Option(["--reuse"], is_flag=True, help="also take finished runs of other names under --storage"),
        json_option(),
    ]  # fmt: skip
    return ConfigCommand("compare", _compare, arguments, own=own)
