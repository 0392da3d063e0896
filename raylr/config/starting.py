"""The text of a config to start from: the fields that were given, the most used others at their defaults in comments.

And a model to start from, where one of the user's own is named that is not there yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raylr.config.fields import Setting, settings
from raylr.config.own_task import task_settings
from raylr.config.run import Config
from raylr.errors import ConfigError

USED_MOST = (
    "name", "epochs", "seed", "workers", "storage", "data.source", "data.flip", "data.crop_padding", "model.name",
    "batch.global_size", "batch.micro_size", "optimizer.name", "optimizer.momentum", "optimizer.nesterov",
    "optimizer.weight_decay", "lr.base", "lr.reference_batch", "lr.scaling", "lr.warmup", "lr.shape",
    "loss.label_smoothing", "eval.every", "checkpoint.every", "precision", "trackers",
)  # fmt: skip
MEANING_AT = 30  # the column at which what a field means begins
HEAD = """\
# raylr plan {path}     tells what it does, and starts nothing
# raylr train {path}    trains; the same command again goes on
# A field behind a # has its default, or what stands in brackets. `raylr fields` lists all fields.
# Flags go before this file: --epochs 3
"""
MODEL = '''\
"""A network of one's own, a small one to start from: `raylr train --model.name {module}:{factory}` trains it."""

from torch import nn


def {factory}(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return a new network. It takes float images (batch, channels, height, width) and gives logits (batch, num_classes)."""
    channels = image_shape[2]
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )
'''


def write_start(config: Config, path: Path) -> tuple[Path, Path | None]:
    """Write `path`, and the model's file where it is one's own and not there; returns both. ConfigError where it is."""
    if path.exists():
        raise ConfigError(f"out={path} is there already; give another file with --out, or remove it")
    model = _model_file(config.model.name)
    try:
        if model is not None:
            model[0].parent.mkdir(parents=True, exist_ok=True)
            model[0].write_text(model[1], encoding="utf-8")
        path.write_text(config_text(config, path), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"out={path} cannot be written ({error.strerror}); give another file") from None
    return path, None if model is None else model[0]


def config_text(config: Config, path: Path | str = "config.yaml") -> str:
    """The commented YAML of a config; what was given stands uncommented."""
    given = config.model_dump(mode="json", exclude_unset=True)
    groups = given.pop("optimizers", None)
    own = task_settings(config.task.name) if config.task.name is not None else []
    known = [setting for setting in [*settings(type(config)), *own] if not setting.key.startswith("optimizers.")]
    shown = [setting for setting in known if setting.key in USED_MOST or _value(given, setting.key) is not None]
    if config.task.name is not None:  # which has its own model, examples and loss
        others = ("data", "model", "loss")
        shown = [one for one in shown if one.section not in others or _value(given, one.key) is not None]
    if groups:
        shown = [setting for setting in shown if setting.section not in ("optimizer", "lr")]
    blocks = [HEAD.format(path=path), *_sections(shown, given, type(config)().model_dump(mode="json"))]
    if groups:
        blocks.append(yaml.safe_dump({"optimizers": groups}, sort_keys=False))
    return "\n".join(blocks)


def _sections(shown: Sequence[Setting], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for section in dict.fromkeys(setting.section for setting in shown):
        lines, indent = ([f"{section}:"], "  ") if section else ([], "")
        for setting in shown:
            if setting.section == section:
                lines.append(indent + _line(setting, _value(given, setting.key), _value(defaults, setting.key)))
        yield "\n".join(lines) + "\n"


def _line(setting: Setting, value: Any, default: Any) -> str:
    """A field with its value, or as a comment with its default, and what it means."""
    name = setting.key.rpartition(".")[2]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None:
        text = yaml.safe_dump({name: value}, width=1000).strip()
        if isinstance(value, dict):
            text = f"{name}: {yaml.safe_dump(value, width=1000, default_flow_style=True).strip()}"
        return f"{text:<{MEANING_AT}} # {setting.description}"
    if default is not None:
        return f"{f'# {name}: {setting.default}':<{MEANING_AT}} # {setting.description}"
    return f"{f'# {name}:':<{MEANING_AT}} # {setting.description} [{setting.default}]"


def _value(tree: Mapping[str, Any], key: str) -> Any:
    found: Any = tree
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _model_file(name: str) -> tuple[Path, str] | None:
    """The file of a model of one's own that is not there, and its text."""
    module, _, factory = name.partition(":")
    path = Path(*module.split(".")).with_suffix(".py") if factory else None
    if path is None or path.exists() or Path(*module.split("."), "__init__.py").exists():
        return None
    return path, MODEL.format(module=module, factory=factory)
