"""Write policies as JSON and read them back. Every field is written and required, so no typo passes for a default."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from raylr.errors import ConfigError
from raylr.lr.fields import Argument, arguments, nearest
from raylr.lr.shapes import SHAPES, Shape

T = TypeVar("T")
MAX_DIGITS = 15  # of a whole number: what a float holds exactly


def encoded(value: Any) -> Any:
    """Return a dataclass of this package as plain JSON data; a shape carries its name."""
    if isinstance(value, tuple):
        return [encoded(item) for item in value]
    if not is_dataclass(value):
        return value
    data = {a.name: encoded(getattr(value, a.name)) for a in arguments(type(value))}
    return {"name": value.name} | data if isinstance(value, Shape) else data


def decoded(cls: type[T], data: Any, path: str) -> T:
    """Return the instance of `cls` that `encoded` made `data` from, or raise ConfigError naming the field."""
    wanted = as_object(data, path)
    concrete: Any = _named_shape(wanted, path) if issubclass(cls, Shape) else cls
    known = {a.name: a for a in arguments(concrete)}
    require_keys(wanted, known, path)
    values = {key: _decoded_value(known[key], item, f"{path}.{key}") for key, item in wanted.items()}
    try:
        return concrete(**values)  # type: ignore[no-any-return]
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from None


def _named_shape(data: dict[str, Any], path: str) -> type[Shape]:
    name = data.pop("name", None)
    if not isinstance(name, str) or name not in SHAPES:
        raise ConfigError(f"{path}.name={name} is no shape; use {nearest(str(name), SHAPES)}")
    return SHAPES[name]


def _decoded_value(argument: Argument, data: Any, path: str) -> Any:
    if not is_dataclass(argument.type) or (data is None and argument.optional):
        return data
    if not argument.many:
        return decoded(argument.type, data, path)
    return tuple(decoded(argument.type, item, f"{path}[{index}]") for index, item in enumerate(as_list(data, path)))


def require_keys(data: Mapping[str, Any], known: Iterable[str], path: str) -> None:
    """Raise ConfigError that names the first unknown or missing key of `data`."""
    names = list(known)
    for key in data:
        if key not in names:
            raise ConfigError(f"{path}.{key} is not a field; use {nearest(key, names)}")
    for name in names:
        if name not in data:
            raise ConfigError(f"{path}.{name} is missing; every field is needed: {', '.join(names)}")


def as_object(data: Any, path: str) -> dict[str, Any]:
    """Return `data` as a new dict, or raise ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path}={data!r} must be an object with named fields")
    return dict(data)


def as_list(data: Any, path: str) -> list[Any]:
    """Return `data` as a list, or raise ConfigError."""
    if not isinstance(data, list):
        raise ConfigError(f"{path}={data!r} must be a list")
    return data


def parsed(text: str, path: str) -> Any:
    """Return JSON text as data, or raise ConfigError naming the line that is not JSON."""
    try:
        return json.loads(text, parse_int=lambda digits: _whole(digits, path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise ConfigError(f"{path} is no JSON of ours: it is nested too deeply") from None


def _whole(digits: str, path: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ConfigError(f"{path} has the number {digits[:9]}... of {len(digits)} digits; use at most {MAX_DIGITS}")
    return int(digits)
