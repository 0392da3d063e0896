"""The one way from YAML and flags to a Config: values stay text until pydantic reads them, so refusals sound alike."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from raylr.config.run import Config
from raylr.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)


class _Text(yaml.BaseLoader):
    """Scalars stay text (YAML would read `1:4` as 64 and `no` as false) but for null; a doubled key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_NULL = "tag:yaml.org,2002:null"
_Text.add_implicit_resolver(_NULL, re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Text.add_constructor(_NULL, lambda loader, node: None)


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    model: type[AnyConfig] = Config,  # type: ignore[assignment]
) -> AnyConfig:
    """The config of a YAML file (nested or dotted keys), with dotted `overrides` such as {"batch.global_size": "256"}.

    Raises ConfigError, one line that names the file or the field, for whatever cannot be read.
    """
    values = dict(_leaves(_read(Path(path)))) if path is not None else {}
    return model(**_nested({**values, **(overrides or {})}))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Text)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path} is not text; give the path of a YAML file") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config {path}{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} holds no fields; write lines such as `epochs: 8`")
    return content


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value != {}:
            yield f"{prefix}{key}", value


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, last = key.split(".")
        section = tree
        for depth, name in enumerate(sections):
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{'.'.join(sections[: depth + 1])}={section} is a section, not a value")
        section[last] = value
    return tree
