"""The verb `raylr submit`."""

from functools import partial
from pathlib import Path

import click

from raylr.cli.options import Location


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--address", help="of the job server, such as http://127.0.0.1:8265 [RAY_API_SERVER_ADDRESS, RAY_ADDRESS]"
)
@click.option("--submission-id", help="name of the job in Ray [a random one]")
@click.option(
    "--working-dir", type=Location(path_type=Path), default=".", show_default=True, help="checkout that travels"
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(address: str | None, submission_id: str | None, working_dir: Path, arguments: tuple[str, ...]) -> int:
    """Submit a training job to a Ray cluster, follow its log and pass on its exit code.

    ARGUMENTS, after --, are those of `raylr train`. --storage must be an absolute path or a URI that every node reaches.

    \b
    raylr submit --address http://127.0.0.1:8265 -- --workers 4 --name first --storage /shared/runs
    """
    from raylr.running.submit import submit as run

    return run(arguments, address, submission_id, working_dir.resolve(), partial(click.echo, nl=False))
