"""Read the section of a task of one's own: `task.name` names its class, and the fields of its Settings stand beside it.

The class is imported here and only looked at: what it must be to train, `raylr.training.task` says. Settings is a dataclass;
its types, defaults and `metadata={"help": ...}` make the flags, the YAML keys and the messages, as those of raylr's own fields.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from raylr.config.fields import Setting, refusal, settings
from raylr.config.user_code import import_object
from raylr.config.yaml_text import load_text
from raylr.errors import ConfigError

NAME, SHORT = "task.name", "task"  # the second is short for the first, in files and flags
KINDS = (int, float, str, bool, Path)
SIZES = frozenset({"batch.global_size", "batch.per_worker_size", "batch.ramp"})  # of which one is given
STRICT = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


def task_class(name: str) -> Any:
    """Return the class that `name` names. ConfigError where it cannot be imported, or is none."""
    source = Path(name.rpartition(":")[0])
    written = source.stat().st_mtime_ns if source.suffix == ".py" and source.is_file() else 0
    return _imported(name, os.getcwd(), written)


@lru_cache(maxsize=8)  # a file that is imported twice would give two classes
def _imported(name: str, folder: str, written: int) -> Any:
    found = import_object(name, SHORT)
    if not isinstance(found, type):
        raise ConfigError(f"task={name} is a {type(found).__name__}; name a class, a subclass of raylr.Task")
    return found


def task_named(arguments: Sequence[str]) -> str | None:
    """Return the task that flags name, or else the config file among the arguments; None without any."""
    flags = (f"--{SHORT}", f"--{NAME}")
    for index, argument in enumerate(arguments):
        flag, sign, value = argument.partition("=")
        if flag in flags:
            return value if sign else next(iter(arguments[index + 1 :]), None)
    for argument in arguments:
        if argument.endswith((".yaml", ".yml", ".json")) and Path(argument).is_file():
            return _named_in(Path(argument))
    return None


def _named_in(path: Path) -> str | None:
    """Return the task in a file; None too for a file that cannot be read, which is refused where it is loaded."""
    try:
        values = load_text(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    found = values.get(SHORT, values.get(NAME)) if isinstance(values, dict) else None
    found = found.get("name") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


def task_settings(name: str) -> list[Setting]:
    """Return the fields of a task's settings, by their keys in the config, `task.NAME`."""
    return list(settings(_tree(name)))


def made_settings(name: str, values: Mapping[str, Any]) -> Any:
    """Return the task's own Settings with these values; a path has its ~ expanded."""
    cls = _settings_class(task_class(name), name)
    hints = get_type_hints(cls)
    paths = {key for key, hint in hints.items() if hint is Path or Path in get_args(hint)}
    return cls(**{key: Path(value).expanduser() if key in paths and value else value for key, value in values.items()})


def with_task(values: Any) -> Any:
    """Return the values of a config with the task's settings read and typed, and below them what the task has as defaults."""
    if not isinstance(values, dict):
        return values
    given = values.get(SHORT)
    given = given.model_dump() if isinstance(given, BaseModel) else given
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return values
    name, own = given.get("name"), {key: value for key, value in given.items() if key != "name" and value is not None}
    if name is None:
        if own:
            raise ConfigError(f"task.{next(iter(own))} is a setting of a task, and none is given; add --task")
        return values
    tree = _tree(name)
    try:
        read = tree(task=own)
    except ValidationError as error:
        raise refusal(error, tree) from None
    told = {"name": name, **read.task.model_dump()}
    return _over_defaults({**values, SHORT: told}, task_defaults(name))


def _tree(name: str) -> Any:
    """Return a config of nothing but the task's settings."""
    cls = _settings_class(task_class(name), name)
    section = create_model("Task", __config__=STRICT, **{one.name: _field(one, cls, name) for one in _fields(cls)})
    section.__doc__ = f"The settings of {name}."
    return create_model("Config", __config__=STRICT, task=(section, ...))


def _settings_class(cls: Any, name: str) -> Any:
    found = getattr(cls, "Settings", None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"task={name} has no Settings that are a dataclass; make it a subclass of raylr.Task")
    return found


def _fields(cls: Any) -> Iterator["dataclasses.Field[Any]"]:
    yield from (one for one in dataclasses.fields(cls) if one.init)


def _field(one: "dataclasses.Field[Any]", cls: Any, name: str) -> Any:
    """Return the annotation and the default of a field, as pydantic takes them."""
    hint = get_type_hints(cls, include_extras=True)[one.name]
    plain = get_type_hints(cls)[one.name]
    kinds = [part for part in (get_args(plain) or (plain,)) if part is not type(None)]
    if one.name == "name" or (get_origin(plain) is not Literal and (len(kinds) != 1 or kinds[0] not in KINDS)):
        rule = "is the field that names the task" if one.name == "name" else f"is {plain}"
        raise ConfigError(
            f"task={name}: its setting {one.name} {rule}; use another name, and int, float, str, bool or Path"
        )
    is_path = kinds[0] is Path
    if is_path:
        hint = Annotated[str | None, "path"] if get_args(plain) else Annotated[str, "path"]
    default: Any = ...
    if one.default is not dataclasses.MISSING:
        default = str(one.default) if is_path and one.default is not None else one.default
    return hint, Field(default, description=str(one.metadata.get("help", "of the task")))


def task_defaults(name: str) -> dict[str, Any]:
    """Return the fields of the config, by dotted key, that a task has values for."""
    found = getattr(task_class(name), "defaults", {})
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"task={name}: its defaults are a {type(found).__name__}; use fields of the config by dotted key"
        )
    return dict(found)


def _over_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, and of the defaults those that neither they nor anything that excludes them has."""
    tree: dict[str, Any] = _plain(values)
    wanted = {key: value for key, value in defaults.items() if not _is_excluded(key, tree, defaults)}
    for key, value in wanted.items():
        *sections, last = key.split(".")
        section = tree
        for one in sections:
            section = section.setdefault(one, {})
        if section.get(last) is None:
            section[last] = value
    return tree


def _is_excluded(key: str, tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Whether something that is given takes the place of a default."""
    first = key.partition(".")[0]
    if key in SIZES:
        return any((tree.get("batch") or {}).get(one.partition(".")[2]) is not None for one in SIZES)
    if tree.get("policy") is not None and (key == "epochs" or first == "lr" or ".lr." in key):
        return True
    groups = tree.get("optimizers") or {}
    if first in ("optimizer", "lr"):
        return bool(groups)
    known = {other.split(".")[1] for other in defaults if other.startswith("optimizers.")}
    return first == "optimizers" and bool(groups.keys() - known)


def _plain(value: Any) -> Any:
    """Return sections as dicts of what was given, at any depth."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_unset=True))
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value
