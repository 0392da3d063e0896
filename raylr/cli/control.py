"""The verb `raylr ctl`: inspect and control a running job."""

from typing import Literal

import click

from raylr.cli.answers import Answer, json_flag
from raylr.errors import ConfigError

Action = Literal["status", "lr", "checkpoint", "stop"]


@click.command()
@click.argument("run")
@click.argument("action", type=click.Choice(["status", "lr", "checkpoint", "stop"]))
@click.option("--factor", type=click.FloatRange(min=0), help="for lr: multiplies all LRs from the next update on")
@click.option("--for", "duration", help="for lr: how long, such as 2ep or 400st; then back to 1 [to the end]")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@json_flag
def ctl(
    run: str,
    action: Literal["status", "lr", "checkpoint", "stop"],
    factor: float | None,
    duration: str | None,
    storage: str,
    as_json: bool,
) -> int:
    """Look at a running job, or change it, from any terminal that reaches its cluster and its storage.

    status prints how far RUN is; lr sets a factor on its learning rate, recorded as an override with the cause `user`;
    checkpoint writes one now; stop writes one and ends the run, which the same command continues. All workers carry an
    order out at the same update. Answers with the status, or the event with which the run answered: one line of JSON in a
    pipe.

    A population takes status, with the progress of its trials, and stop, after which it can go on too.

    \b
    raylr ctl RUN status
    raylr ctl RUN lr --factor 0.1 --for 2ep
    """
    from raylr.reporting.sentences import answered
    from raylr.running import control

    if action == "lr" and factor is None:
        raise ConfigError("lr needs --factor, such as --factor 0.1")
    if action != "lr" and (factor, duration) != (None, None):
        raise ConfigError(f"--factor and --for belong to lr, not to {action}")
    found = (
        control.status(run, storage) if action == "status" else control.order(run, storage, action, factor, duration)
    )
    Answer(as_json).say(found, answered(found))
    return 0
