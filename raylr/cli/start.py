"""The verb `raylr init`: a config and a model to start from."""

from collections.abc import Sequence
from pathlib import Path

import click

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import ConfigCommand, Location
from raylr.config import Config

OUT = click.Option(["--out"], type=Location(path_type=Path), default="config.yaml", help="the file [config.yaml]")


def _init(config: Config, out: Path, as_json: bool) -> int:
    """Write a commented config to start from, with the fields that are given, and a model's file.

    The others that are used most stand in it as comments, with their defaults. A model of one's own that is not there yet,
    --model.name package.module:factory, is written too, as a small network to change.

    \b
    raylr init --data.source photos.tar --lr.base 0.1 --lr.reference-batch 128
    raylr init --model.name my_model:make_model --out first.yaml
    """
    from raylr.config.starting import write_start

    path, model = write_start(config, out)
    lines = [f"config: {path}", *([f"model: {model}, a small network to change"] if model is not None else [])]
    lines += [f"next: raylr plan {path}", f"      raylr train {path}"]
    Answer(as_json).say({"config": str(path), "model_file": None if model is None else str(model)}, *lines)
    return 0


def init_command(arguments: Sequence[str]) -> click.Command:
    return ConfigCommand("init", _init, arguments, own=[OUT, json_option()])
