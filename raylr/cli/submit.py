"""The verbs `raylr submit` and `raylr jobs`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raylr.cli.answers import Answer, json_flag
from raylr.cli.options import ConfigCommand, FieldOption, Location
from raylr.config import Config

if TYPE_CHECKING:
    from raylr.running.packing import Asked

VERBS = ("train", "explore")
ADDRESS = click.option(
    "--address", help="of the job server, such as http://127.0.0.1:8265 [RAY_API_SERVER_ADDRESS, RAY_ADDRESS]"
)
CLUSTER = click.option("--cluster", metavar="NAME", help="or the name of one of `raylr cluster up`, with its token")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@ADDRESS
@CLUSTER
@click.option("--submission-id", help="name of the job in Ray [a random one]")
@click.option("--wait/--no-wait", default=True, help="follow its log to its end [wait]")
@click.option("--include", type=Location(path_type=Path), multiple=True, help="a file or folder that travels too")
@click.option(
    "--working-dir", type=Location(path_type=Path, exists=True, file_okay=False), help="travels whole, instead [off]"
)
@json_flag
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(
    address: str | None,
    cluster: str | None,
    submission_id: str | None,
    wait: bool,
    include: tuple[Path, ...],
    working_dir: Path | None,
    as_json: bool,
    arguments: tuple[str, ...],
) -> int:
    """Submit a training job to a Ray cluster, follow its log and pass on its exit code.

    ARGUMENTS, after --, are those of `raylr train`, checked here before anything is sent; with `explore` first, those of
    `raylr explore`. raylr travels with the job, and so do modules and files of your own that the config names.
    --storage must be an absolute path or a URI that every node reaches.

    \b
    raylr submit --cluster local -- --workers 2
    raylr submit --address http://127.0.0.1:8265 -- --workers 4 --name first --storage /shared/runs
    """
    with contextlib.chdir(working_dir or "."):  # where the job finds its config
        asked, config = _asked(arguments, click.get_current_context().find_root().command)
    from raylr.api.submit import Where, send

    sent = send(
        asked,
        config,
        Where(address, cluster),
        partial(_say, error=as_json),
        submission_id=submission_id,
        working_dir=working_dir.resolve() if working_dir else None,
        includes=include,
        wait=wait,
        live=partial(_say, error=True) if sys.stderr.isatty() else lambda text: None,
    )
    if as_json:
        click.echo(json.dumps({"job": sent.job, "run": sent.run, "exit_code": sent.exit_code}))
    return sent.exit_code or 0


@click.command()
@ADDRESS
@CLUSTER
@click.option("--logs", metavar="JOB", help="show the log of this one")
@click.option("--follow", is_flag=True, help="with --logs: to its end, and pass on its exit code")
@click.option("--stop", metavar="JOB", help="stop this one with a checkpoint")
@json_flag
def jobs(
    address: str | None, cluster: str | None, logs: str | None, follow: bool, stop: str | None, as_json: bool
) -> int:
    """List the jobs of a cluster with the runs that they train, show the log of one, or stop one.

    \b
    raylr jobs --cluster local
    raylr jobs --cluster local --logs raysubmit_Xe7cvjyGJCyuCvm2
    """
    from raylr.api.submit import Where
    from raylr.reporting.jobs import job_table
    from raylr.running import jobs as found
    from raylr.running.submit import follow as follow_job

    server, answer = Where(address, cluster).server(partial(_say, error=True), "no answer"), Answer(as_json)
    if stop:
        found.stop(server, stop)
        answer.lay_out({"job": stop}, f"job {stop} is asked to stop; the same submission goes on from its checkpoint")
    elif logs and follow:
        found.status(server, logs)  # refuses one that is not there
        return follow_job(server, logs, _say)
    elif logs:
        click.echo(found.log(server, logs), nl=False)
    else:
        rows = [row.row() for row in found.jobs(server)]
        answer.lay_out({"jobs": rows}, job_table(rows) if rows else "no jobs were submitted to this cluster yet")
    return 0


def _say(text: str, error: bool = False) -> None:
    click.echo(text, nl=False, err=error)


def _asked(arguments: Sequence[str], program: click.Command) -> tuple[Asked, Config]:
    """Read the arguments of the verb of `program` that the job runs, as that verb does."""
    from raylr.running.packing import Asked

    verb, *words = arguments if arguments and arguments[0] in VERBS else (VERBS[0], *arguments)
    assert isinstance(program, click.Group)
    command = program.commands[verb]
    assert isinstance(command, ConfigCommand)
    read: list[Config] = []
    command.action = _keeper(read)
    context = command.make_context(f"raylr {verb}", list(words))
    command.invoke(context)
    given = command.given(dict(context.params))
    others = [word for param in command.params for word in _words(param, context)]
    return Asked(verb, context.params.get("config"), given, tuple(others)), read[0]


def _keeper(read: list[Config]) -> Callable[..., int]:
    def keep(config: Config, **_: Any) -> int:
        read.append(config)
        return 0

    return keep


def _words(param: click.Parameter, context: click.Context) -> list[str]:
    """An option that is no field of the config, where it was given."""
    source = context.get_parameter_source(str(param.name))
    if not isinstance(param, click.Option) or isinstance(param, FieldOption) or param.name not in context.params:
        return []
    if source is not click.core.ParameterSource.COMMANDLINE:
        return []
    value = context.params[str(param.name)]
    if isinstance(value, bool):
        return [(param.opts if value else param.secondary_opts)[0]]
    return [param.opts[0], str(value)]
