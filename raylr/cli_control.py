"""The verbs of `raylr ctl RUN`: hands on a running job."""

import json

import click

STORAGE = click.option(
    "--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path"
)


@click.group()
@click.argument("run")
@STORAGE
@click.pass_context
def ctl(context: click.Context, run: str, storage: str) -> None:
    """Look at a running job, or change it, from any terminal that reaches its cluster.

    All workers carry an order out at the same update; what changes the LR is recorded as an override with its cause.

    \b
    raylr ctl RUN status
    raylr ctl RUN lr --factor 0.1 --for 2ep
    """
    context.obj = (run, storage)


@ctl.command()
@click.pass_obj
def status(where: tuple[str, str]) -> int:
    """Print how far RUN is, as one line of JSON."""
    from raylr.running import control

    click.echo(json.dumps(control.status(*where)))
    return 0


@ctl.command()
@click.pass_obj
@click.option(
    "--factor", type=click.FloatRange(min=0), required=True, help="multiplies all LRs from the next update on"
)
@click.option("--for", "duration", help="how long, such as 2ep or 400st; then back to 1 [to the end]")
def lr(where: tuple[str, str], factor: float, duration: str | None) -> int:
    """Set a factor on the learning rate of RUN, with the cause `user`."""
    from raylr.running import control

    return _tell(control.order(*where, "lr", factor, duration))


@ctl.command()
@click.pass_obj
def checkpoint(where: tuple[str, str]) -> int:
    """Write a checkpoint of RUN now."""
    from raylr.running import control

    return _tell(control.order(*where, "checkpoint"))


@ctl.command()
@click.pass_obj
def stop(where: tuple[str, str]) -> int:
    """Write a checkpoint of RUN and end it with the status `stopped`; the same command again goes on."""
    from raylr.running import control

    return _tell(control.order(*where, "stop"))


def _tell(event: dict[str, object]) -> int:
    click.echo(json.dumps(event))
    return 0
