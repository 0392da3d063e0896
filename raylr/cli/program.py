"""The verbs of `raylr`. No logic: each reads its arguments, calls the library and shows what comes back."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import RenderableType

from raylr.cli.advise import advise_command
from raylr.cli.answers import Answer, json_flag, json_option
from raylr.cli.batch_study import batch_study_command
from raylr.cli.cluster import cluster
from raylr.cli.compare import compare_command
from raylr.cli.compare_start import compare_start_command
from raylr.cli.control import ctl
from raylr.cli.explore import distill, explore
from raylr.cli.find_lr import find_lr_command
from raylr.cli.fork import PlanCommand, extend_command, fork_command, fork_options
from raylr.cli.model import evaluate_command, export
from raylr.cli.options import EXIT_CODES, ConfigCommand, Location
from raylr.cli.race import race_command
from raylr.cli.refine import ranking, refine
from raylr.cli.start import init_command
from raylr.cli.study import study_command
from raylr.cli.submit import jobs, submit
from raylr.cli.verify import verify
from raylr.config import Config
from raylr.config.fields import shown
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError, RaylrError


def train(config: Config, as_json: bool) -> int:
    """Train a model on data-parallel workers.

    Without arguments: a small CNN on CIFAR-10, on two local CPU workers, in a few minutes. Flags go before CONFIG.yaml,
    and that before the defaults, which stand in brackets. The same name again continues that run.

    \b
    raylr train
    raylr train config.yaml --epochs 16 --workers 4
    raylr train --lr.base 0.2 --lr.shape "step(every=4ep, gamma=0.5)" --name steps
    """
    from raylr.api.train import train
    from raylr.reporting.progress import Display

    answer = Answer(as_json)
    with Display(answer.screen) as display:
        result = train(config, display, progress=False)
    answer.say(result.model_dump(mode="json", exclude_unset=True))
    return EXIT_CODES.get(result.status, 1)


def plan(
    config: Config,
    world_sizes: str,
    png: str | None,
    scheduler: str | None,
    step_unit: Literal["epoch", "update", "fraction"] | None,
    save: str | None,
    rank: str | None,
    as_json: bool,
) -> int:
    """Tell what a run would do and its learning rate, and start nothing.

    Prints the plan as a numbered story, the numbers at several world sizes, the LR curve and what is doubtful about it.
    Takes the config and flags of `raylr train`. Exit code 1 when the curve has an error, 2 when the config is refused.

    --import takes every LR scheduler that counts steps and has its LR at each of them: torch's, with chains and
    subclasses, those of transformers and timm, a function of the step (optax), a FILE.yaml that lists an LR for each update
    or epoch. --step-unit says when your loop steps it: after each epoch, after each update, or after each update with
    the epoch as a fraction, scheduler.step(epoch + i / iters). With --save the optimizer may be any, for raylr.drive.

    --rank default puts known shapes in the order of a bound from convex theory, --rank RUN with the gradient norms of a run.

    With --at or --cooldown it takes a run and the flags of `raylr fork`, and shows the LR on both sides of the joint.

    \b
    raylr plan --batch.global-size 2048
    raylr plan --lr.shape "sequence(constant for 5ep, cosine)" --epochs 15 --png lr.png
    raylr plan --import my_schedule.py:make_scheduler --epochs 30 --save policy.json
    raylr plan RUN --at 3ep --lr.base 0.2
    """
    from raylr.api.plan import is_for_drive, plan, plan_imported, save_policy
    from raylr.lr.lint import lint
    from raylr.planning.lr import parts_of
    from raylr.reporting.plots import TextPlot, curves, save_png
    from raylr.reporting.prose import Prose, Story
    from raylr.reporting.sizes import at_sizes, idle
    from raylr.reporting.tables import numbers

    sizes = _world_sizes(world_sizes)
    if step_unit is not None and scheduler is None:
        raise ConfigError(f"step-unit={step_unit} is that of an imported scheduler; give one with --import")
    made, policy = (
        plan(config) if scheduler is None else plan_imported(config, scheduler, step_unit, for_drive=save is not None)
    )
    sizes = sizes or [size for size in sorted({1, 2, 4, 8, *made.workers}) if size <= made.num_micro_batches(size)]
    rows, drawn = at_sizes(made, policy, sizes), curves(made, policy, sizes)
    shown: list[RenderableType] = [
        Story(made.story),
        numbers(rows, policy.optimizers),
        *map(Prose, idle(rows)),
        TextPlot(drawn),
    ]
    shown += [Prose(f"warning: {warning}") for warning in made.warnings]
    if png is not None:
        shown.append(f"LR curve: {save_png(drawn, Path(png))}")
    if save is not None:
        purpose = "raylr.drive" if is_for_drive(policy, parts_of(config)) else "--policy"
        shown.append(f"policy for {purpose}: {save_policy(policy, Path(save))}")
    order: list[dict[str, Any]] | None = None
    if rank is not None:
        order, table = ranking(made, policy, rank)
        shown += table
    told = made.model_dump(mode="json")
    found = {
        "story": told.pop("story"), "warnings": told.pop("warnings"), "plan": told, "sizes": rows,
        "policy": json.loads(policy.to_json()), "policy_sha256": policy.sha256, "png": png, "saved": save, "rank": order,
    }  # fmt: skip
    Answer(as_json).lay_out(found, *shown)
    batches = {made.batches(size) for size in made.workers}
    return int(any(finding.severity == "error" for batch in batches for finding in lint(policy, batch)))


def _world_sizes(text: str) -> list[int]:
    sizes = text.replace(" ", "").split(",") if text else []
    if any(not re.fullmatch("[0-9]{1,9}", size) or int(size) < 1 for size in sizes):
        raise ConfigError(f"world-sizes={text} must be whole numbers from 1, such as 1,2,4,8")
    return sorted({int(size) for size in sizes})


def describe_data(config: Config, as_json: bool) -> int:
    """Tell what a data source holds, decoding or downloading it only where nothing else tells."""
    from raylr.reporting.progress import counting
    from raylr.reporting.tables import console, dataset
    from raylr.training.data import describe

    with counting("decoding images", console(stderr=True)) as report:
        info = describe(config.data, report)
    Answer(as_json).lay_out(asdict(info), dataset(info))
    return 0


def prepare_data(config: Config) -> int:
    """Download and decode the data into this node's cache, as a first run would."""
    from raylr.reporting.progress import counting
    from raylr.reporting.tables import console, dataset
    from raylr.training.data import prepare

    with counting("decoding images") as report:
        info = prepare(config.data, report)
    console().print(dataset(info), soft_wrap=True)
    return 0


def verify_data(config: Config) -> int:
    """Read the whole cache again and compare its checksums."""
    from raylr.training.data import verify as verified

    verified(config.data)
    click.echo("the cache is as it was written")
    return 0


@click.command()
@json_flag
def fields(as_json: bool) -> int:
    """List every field of the config: its type, default, unit and meaning."""
    from raylr.config.fields import settings
    from raylr.reporting.tables import setting_table

    found = list(settings(Config))
    rows = [{**vars(one), "choices": list(one.choices)} for one in found]
    Answer(as_json).lay_out({"fields": rows}, setting_table(found))
    return 0


@click.command()
@click.option("--storage", default="runs", show_default=True, help="where run folders are")
@json_flag
def runs(storage: str, as_json: bool) -> int:
    """List the runs and populations under --storage: how far, how good, how long, and why one failed."""
    from raylr.reporting.listing import listed_under
    from raylr.reporting.run_table import run_list

    found, answer = listed_under(storage), Answer(as_json)
    rows = [one.row() for one in found]
    answer.lay_out({"storage": storage, "runs": rows}, *run_list(found, storage, answer.screen.width))
    return 0


@click.command()
@click.argument("run")
@click.option("--step", type=click.IntRange(min=0), required=True, help="the update to explain; the first is 0")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@json_flag
def explain(run: str, step: int, storage: str, as_json: bool) -> int:
    """Explain the LR of one update of RUN (a folder, a name, or POP/TRIAL of a population): each factor and its cause."""
    from raylr.reporting.runs import explain_step, row_of_step
    from raylr.storage import open_run

    folder = open_run(run, storage)
    text = explain_step(folder, step)
    Answer(as_json).lay_out({"run": str(folder), **row_of_step(folder, step), "explanation": text}, text)
    return 0


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--out", type=Location(path_type=Path), help="the page [report.html]")
@click.option("--png-dir", type=Location(path_type=Path), help="also draw each section into this folder")
@click.option("--live", is_flag=True, help="serve the page on this machine while the runs go on, and write none")
@click.option("--port", type=click.IntRange(min=1, max=65535), help="of --live [one that is free]")
@click.option("--storage", default="runs", show_default=True, help="where runs named by name are")
@json_flag
def report(
    names: tuple[str, ...],
    out: Path | None,
    png_dir: Path | None,
    live: bool,
    port: int | None,
    storage: str,
    as_json: bool,
) -> int:
    """Lay runs over each other in one self-contained HTML page; a population stands for all its trials.

    With --live the page is served on this machine's loopback, keeps itself up to date, and ends by Ctrl-C, or ten minutes
    after the last look once all runs have ended. Its address holds a token: who does not know it sees nothing.
    """
    from raylr.reporting.live import serve
    from raylr.reporting.report import report_on

    if live:
        if out is not None or png_dir is not None:
            raise ConfigError("--live serves the page and writes no files; drop --out and --png-dir")
        lines = "live at {} (Ctrl-C ends it)".format
        serve(names, storage, port or 0, lambda url: Answer(as_json).lay_out({"url": url, "runs": names}, lines(url)))
        return 0
    if port is not None:
        raise ConfigError(f"port={port} is that of --live; add --live")
    page = str(report_on(names, storage, out or Path("report.html"), png_dir))
    found = {"page": page, "runs": list(names), "png_dir": None if png_dir is None else str(png_dir)}
    Answer(as_json).lay_out(found, page)
    return 0


@click.command()
@click.argument("run")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@click.option("--patience", type=click.FloatRange(min=1), default=3600, help="seconds without news to wait for [3600]")
@json_flag
def watch(run: str, storage: str, patience: float, as_json: bool) -> int:
    """Show a run or a population that goes on elsewhere, from its files alone, until it ends.

    RUN may be on an object store, which is asked every ten seconds: there rows come with checkpoints.
    """
    from raylr.reporting.following import Pace
    from raylr.reporting.watch import watch as follow
    from raylr.reporting.watch_population import watch_population
    from raylr.storage import POPULATION, POPULATION_RESULT, RUN, RUN_RESULT, open_run

    folder = open_run(run, storage, RUN, POPULATION)
    answer, is_population = Answer(as_json), folder.exists(POPULATION)
    if is_population:
        status = watch_population(folder, answer.screen, Pace(patience_s=patience))
    else:
        status = follow(folder, answer.screen, patience_s=patience)
    result = folder.read_json(POPULATION_RESULT if is_population else RUN_RESULT)
    answer.say({"run_dir": str(folder), **result})
    return EXIT_CODES.get(status, 1)


class Program(click.Group):
    """Verbs that end with an exit code when they are interrupted.

    Click's own methods, without its empty line after Ctrl-C, which has been answered by a line when it came.
    """

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Read the arguments."""
        try:
            return super().make_context(*arguments, **named)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_CODES["stopped"]) from None

    def invoke(self, ctx: click.Context) -> object:
        """Call the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(EXIT_CODES["stopped"])


def program(arguments: Sequence[str]) -> click.Group:
    """The command `raylr` for these arguments: flags of named optimizers are found in them."""
    purpose = "Training on Ray whose learning rate and result depend on the policy, never on the cluster."
    raylr = click.version_option(package_name="raylr", prog_name="raylr", message="%(prog)s %(version)s")(
        Program("raylr", help=purpose)
    )
    units = click.Choice(["epoch", "update", "fraction"])
    shown = [
        click.Option(["--world-sizes"], default="", metavar="N,N,...", help="numbers of workers to show [1,2,4,8]"),
        click.Option(["--png"], type=Location(), metavar="FILE", help="also draw the LR curve into this file"),
        click.Option(
            ["--import", "scheduler"], metavar="FILE:OBJECT", help="LR of a scheduler, a function, or a FILE.yaml"
        ),
        click.Option(["--step-unit"], type=units, help="when it is stepped [by its class]"),
        click.Option(
            ["--save"], type=Location(), metavar="FILE", help="write the LR policy there, for --policy or raylr.drive"
        ),
        click.Option(
            ["--rank"], metavar="RUN|default", help="rank shapes by the convex bound, with the norms of a run"
        ),
        json_option(),
    ]
    raylr.add_command(init_command(arguments))
    raylr.add_command(ConfigCommand("train", train, arguments, own=[json_option()]))
    raylr.add_command(PlanCommand("plan", plan, arguments, own=[*shown, *fork_options()]))
    raylr.add_command(fork_command(arguments))
    raylr.add_command(extend_command(arguments))
    raylr.add_command(verify)
    raylr.add_command(ConfigCommand("explore", explore, arguments, own=[json_option()], model=PopulationConfig))
    raylr.add_command(distill)
    raylr.add_command(refine)
    raylr.add_command(explain)
    raylr.add_command(compare_command(arguments))
    raylr.add_command(find_lr_command(arguments))
    raylr.add_command(advise_command(arguments))
    raylr.add_command(race_command(arguments))
    raylr.add_command(batch_study_command(arguments))
    raylr.add_command(study_command(arguments))
    raylr.add_command(compare_start_command(arguments))
    data = click.Group("data", help="Look at the data, or prepare it before a run.")
    data.add_command(ConfigCommand("describe", describe_data, arguments, sections=["data"], own=[json_option()]))
    for name, action in (("prepare", prepare_data), ("verify", verify_data)):
        data.add_command(ConfigCommand(name, action, arguments, sections=["data"]))
    for command in (evaluate_command(arguments), export, data, fields, runs, report, watch, ctl, submit, jobs, cluster):
        raylr.add_command(command)
    return raylr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `raylr` with these arguments (those of the process by default) and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error has it: a name that is no text is shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = program(arguments).main(arguments, prog_name="raylr", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except ConfigError as error:
        return _say(str(error), 2)
    except click.UsageError as error:
        return _say(error.format_message(), 2)
    except RaylrError as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_CODES["stopped"]
    except BrokenPipeError:  # the reader has gone, as in `raylr fields | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _say(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {shown(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
