"""The verbs of `raylr ctl`: hands on a running job."""

import json

import click

RUN = click.argument("run")
STORAGE = click.option(
    "--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path"
)


@click.group()
def ctl() -> None:
    """Look at a running job, or change it, from any terminal that reaches its cluster.

    All workers carry an order out at the same update; what changes the LR is recorded as an override with its cause.
    """


@ctl.command()
@RUN
@STORAGE
def status(run: str, storage: str) -> int:
    """Print how far RUN is, as one line of JSON."""
    from raylr.running import control

    click.echo(json.dumps(control.status(run, storage)))
    return 0


@ctl.command()
@RUN
@STORAGE
@click.option(
    "--factor", type=click.FloatRange(min=0), required=True, help="multiplies all LRs from the next update on"
)
@click.option("--for", "duration", help="how long, such as 2ep or 400st; then back to 1 [to the end]")
def lr(run: str, storage: str, factor: float, duration: str | None) -> int:
    """Set a factor on the learning rate of RUN, with the cause `user`."""
    from raylr.running import control

    return _tell(control.order(run, storage, "lr", factor, duration))


@ctl.command()
@RUN
@STORAGE
def checkpoint(run: str, storage: str) -> int:
    """Write a checkpoint of RUN now."""
    from raylr.running import control

    return _tell(control.order(run, storage, "checkpoint"))


@ctl.command()
@RUN
@STORAGE
def stop(run: str, storage: str) -> int:
    """Write a checkpoint of RUN and end it with the status `stopped`; the same command again goes on."""
    from raylr.running import control

    return _tell(control.order(run, storage, "stop"))


def _tell(event: dict[str, object]) -> int:
    click.echo(json.dumps(event))
    return 0
