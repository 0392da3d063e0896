"""Import the user's objects by name (`package.module:name` or `FILE.py:name`) and call them; a failure is one line.

Modules are looked for where Python looks and in the current folder, as `python -m` does.
"""

import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from raylr.config.own_sources import imported_as
from raylr.errors import ConfigError


def import_object(text: str, field: str) -> Any:
    """Return the object that `text` names. ConfigError, naming `field`, when it cannot be imported or does not exist."""
    source, _, name = text.rpartition(":")
    if not source or not name.isidentifier():
        raise ConfigError(f"{field}={text} names no object; write package.module:name or FILE.py:name")
    try:
        module = _module_of_file(Path(source)) if source.endswith(".py") else _module(source)
    except ConfigError as error:
        raise ConfigError(f"{field}={text}, {error}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{field}={text}, {source} does not import: {told(error)}") from error
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), n=1)
        advice = f"did you mean {close[0]}?" if close else "define it there"
        raise ConfigError(f"{field}={text}, {source} has no {name}; {advice}")
    return getattr(module, name)


def call_with(function: Callable[..., Any], offered: Mapping[str, object], field: str) -> Any:
    """Call `function` with the offered arguments that it takes, by name, and return its result.

    `field` is `name=value`, for the ConfigError when it needs another argument, or raises.
    """
    arguments = dict(offered) if (taken := parameters(function)) is None else _chosen(taken, offered, field)
    try:
        return function(**arguments)
    except Exception as error:
        raise ConfigError(f"{field} failed: {told(error)}") from error


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Return True if the function has a parameter of this name."""
    return (taken := parameters(function)) is None or name in taken


def required(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that a call must give. Raises TypeError or ValueError where the signature is unknown.

    >>> [one.name for one in required(lambda step, *rest, scale=1.0, **more: step)]
    ['step']
    """
    collecting = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    taken = inspect.signature(function).parameters.values()
    return [one for one in taken if one.default is one.empty and one.kind not in collecting]


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the parameters by name; None if the function takes any name, or its signature is unknown."""
    try:
        taken = dict(inspect.signature(function).parameters)
    except ValueError:
        return None
    return None if any(one.kind is one.VAR_KEYWORD for one in taken.values()) else taken


def _chosen(taken: Mapping[str, inspect.Parameter], offered: Mapping[str, object], field: str) -> dict[str, object]:
    for name, one in taken.items():
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL and name not in offered:
            gets = f"it is given {', '.join(offered)} by name" if offered else "it is called without any"
            raise ConfigError(f"{field} needs an argument {name}, but {gets}; give {name} a default")
    return {name: value for name, value in offered.items() if name in taken}


def _module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return import_module(name)


def _module_of_file(path: Path) -> ModuleType:
    """Import the file as a module of its own; modules in its folder can be imported, as from a script."""
    path = path.expanduser().resolve()
    spec = spec_from_file_location(imported_as(path.name), path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no file; give the path of a Python file")
    module = sys.modules[spec.name] = module_from_spec(spec)  # where dataclasses look for their module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def told(error: BaseException) -> str:
    """Return the error in one line, with the place where it was raised unless that is this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
