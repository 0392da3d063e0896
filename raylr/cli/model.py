"""The verbs about a run's weights: `raylr evaluate` and `raylr export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from raylr.cli.answers import Answer, json_flag, json_option
from raylr.cli.options import ConfigCommand, Location
from raylr.config import Config

STORAGE = click.Option(["--storage"], default="runs", help="where RUN is, if it is a name [runs]")
AVERAGE = click.Option(["--average"], is_flag=True, help="the average of the weights that eval.average keeps")
BEST = click.Option(["--best"], is_flag=True, help="the weights of best test accuracy among the checkpoints")


def _evaluate(config: Config, run: str, storage: str, best: bool, average: bool, as_json: bool) -> int:
    """Test the newest weights of RUN (a folder or a name), on its own test images or on others.

    A population stands for its best trial; POP/TRIAL is one of its trials.

    On its own the numbers are those of its result.json. Other data must have the same classes and size of images.
    One line of JSON in a pipe.

    \b
    raylr evaluate one
    raylr evaluate one --data.source other.tar.xz
    """
    from raylr.training.trained import evaluate

    given = config.data.model_dump(include=config.data.model_fields_set)
    found = evaluate(run, given, storage, best, average)
    what = "average of the weights" if average else "weights"
    Answer(as_json).say(
        found.row(),
        f"{_told(found)} on {found.num_test:,} examples of {found.data_source}",
        f"{what} of {found.run} after {found.position:,} examples, SHA-256 {found.weights_sha256[:12]}",
    )
    return 0


def _told(found: Any) -> str:
    """The numbers of an evaluation; of a task of one's own also its other metrics."""
    accuracy = [] if found.test_accuracy is None else [f"test accuracy {found.test_accuracy:.2%}"]
    own = [f"{name.removeprefix('test_')} {value:.4g}" for name, value in found.own.items()]
    return ", ".join([*accuracy, f"test loss {found.test_loss:.4f}", *own])


@click.command()
@click.argument("run")
@click.option("--out", type=Location(path_type=Path), metavar="FILE", help="the weights [NAME.safetensors]")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@click.option("--best", is_flag=True, help="the weights of best test accuracy among the checkpoints")
@click.option("--average", is_flag=True, help="the average of the weights that eval.average keeps")
@json_flag
def export(run: str, out: Path | None, storage: str, best: bool, average: bool, as_json: bool) -> int:
    """Write the newest weights of RUN as safetensors, with all that belongs to them as JSON in a file beside.

    A population stands for its best trial; POP/TRIAL is one of its trials.
    """
    from raylr.training.trained import export

    path = export(run, out, storage, best, average)
    Answer(as_json).lay_out({"weights": str(path), "beside": str(path.with_suffix(".json"))}, str(path))
    return 0


def evaluate_command(arguments: Sequence[str]) -> click.Command:
    return ConfigCommand(
        "evaluate", _evaluate, arguments, ["data"], [click.Argument(["run"]), BEST, AVERAGE, STORAGE, json_option()]
    )
