"""The verb `raylr advise`: is warmup needed, how long, and from which LR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand, Location
from raylr.cli.training import training_on
from raylr.config import Config
from raylr.errors import ConfigError


def _advise(
    config: Config, what: str | None, updates: int, seeds: int, tries: int, write: Path | None, as_json: bool
) -> int:
    """Say whether a run needs a warmup, how long, and from which LR, with the evidence.

    Takes a config (YAML) or a run, and the flags of `raylr train`. Short runs from the start are tried without a warmup, then
    with ever longer ones, until the headroom of no update is too high: the LR over the one at which the update would stop
    helping. The largest eigenvalue of the Hessian stands beside it. The runs are of its own, under --storage, and the same
    command goes on after an interrupt. With --try it is trained to the end with the advice and without it.

    \b
    raylr advise
    raylr advise config.yaml --try 5 --write warm.yaml
    """
    from raylr.api.advise import advise
    from raylr.api.sides import sides_of
    from raylr.config.starting import config_text
    from raylr.reporting.advice import lines
    from raylr.reporting.verdicts import ending

    if write is not None and write.exists():
        raise ConfigError(f"write={write} is there already; give another file, or remove it")
    answer = Answer(as_json)
    own = config if what is None else sides_of(what, what, config)[0].config
    found = advise(None, own, updates, seeds, tries, training_on(answer.screen))
    shown = list(lines(found, own.instruments.sharpness_products))
    if (tried := found.comparison) is not None:
        means = " and ".join(
            f"{name} {sum(values) / len(values):.4f}"
            for name, values in (
                ("A, as it is," if found.changes else "A, without warmup,", [pair.a for pair in tried.pairs]),
                ("B, as advised,", [pair.b for pair in tried.pairs if pair.b is not None]),
            )
            if values
        )
        shown += [f"tried with {len(tried.pairs)} seeds: mean {tried.metric} of {means}", str(ending(tried))]
    if write is not None:
        try:
            write.write_text(config_text(found.applied(own), write), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"write={write} cannot be written ({error.strerror}); give another file") from None
        shown.append(f"config: {write}")
    answer.lay_out({**found.row(), "written": None if write is None else str(write)}, *shown)
    return 0


def advise_command(arguments: Sequence[str]) -> click.Command:
    own = [
        click.Argument(["what"], required=False, metavar="[CONFIG.yaml|RUN]"),
        click.Option(["--updates"], type=int, default=80, help="longest warmup that is tried [80]"),
        click.Option(["--seeds"], type=click.IntRange(min=1), default=3, help="runs of each warmup [3]"),
        click.Option(["--try", "tries"], type=click.IntRange(min=0), default=0, metavar="PAIRS",
                     help="then compare it with the config as it is, in up to so many pairs of runs [0]"),
        click.Option(["--write"], type=Location(path_type=Path), metavar="FILE", help="write the config with the advice"),
        json_option(),
    ]  # fmt: skip
    return ConfigCommand("advise", _advise, arguments, own=own)
