"""Make a Config from YAML and flags. Values stay text until pydantic reads them, so refusals are worded alike."""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import yaml

from raylr.config.fields import Setting, settings, shown
from raylr.config.own_task import NAME, SHORT
from raylr.config.run import OF_A_POLICY, ORDERS, Config
from raylr.config.yaml_text import NULL, load_text
from raylr.errors import ConfigError

AnyConfig = TypeVar("AnyConfig", bound=Config)
MAX_DEPTH = 5  # optimizers.NAME.lr.base has 4
OFF = ("off", "all", "none", "no", "0", "0.0", "0ep")  # defaults that null may stand for
EXCLUSIVE = tuple(
    permutations(("batch.global_size", "batch.per_worker_size", "batch.ramp"), 2)
)  # one, and another that it replaces
INSTEAD_OF_NULL = {
    **dict.fromkeys(("scaling", "trackers", "flip"), "none"),
    **dict.fromkeys(("warmup", "rewarm", "hold", "ramp"), "0ep"),
    **dict.fromkeys(("weight_decay", "momentum", "crop_padding", "max_failures", "max_rollbacks"), "0"),
    **dict.fromkeys(("nesterov", "enabled"), "no"),
    "shape": "constant",
    "gpu": "auto, yes or no",
    "precision": "auto, fp32 or bf16",
    "mode": "continue or restart",
}


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    model: type[AnyConfig] = Config,  # type: ignore[assignment]
) -> AnyConfig:
    """Return the config of a YAML file (nested or dotted keys), with dotted `overrides` such as {"batch.global_size": "256"}.

    Paths: ~ and $VARIABLES are expanded, and $$ is a plain $. Top-level keys that begin with x- are ignored; they can
    hold values to merge elsewhere (`<<: *name`). The config.json of a run folder is read as a record: the orders of the
    start that wrote it (fresh, address, stretch) are dropped, and paths are not expanded again.

    Raises ConfigError, one line that names the file or the field, for a file that cannot be read.
    """
    paths = {setting.key for setting in settings(model) if setting.unit == "path"}
    given = _expanded(overrides or {}, paths)
    if path is None:
        return model(**_nested(given))
    path = Path(path)
    values = _record(path, given) if _is_record(path) else _expanded(_of_file(path, model), paths)
    return model(**_nested({**_not_replaced(values, given), **given}))


def config_of_record(record: Mapping[str, Any], overrides: Mapping[str, str] | None = None) -> Config:
    """Return the config that a run has left in its config.json, without its orders, under dotted `overrides`.

    Of fields that exclude each other the one that `overrides` gives holds.
    """
    paths = {setting.key for setting in settings(Config) if setting.unit == "path"}
    given = _expanded(overrides or {}, paths)
    values = {key: value for key, value in leaves(record) if value is not None and key not in ORDERS}
    return Config(**_nested({**_not_replaced(values, given), **given}))


def _not_replaced(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without the fields that one which is `given` excludes: flags take precedence over a file."""
    others = {other for one, other in EXCLUSIVE if one in given}
    if "policy" in given:
        others |= {key for key in values if _is_of_a_policy(key)}
        others |= set() if "stretch" in {**values, **given} else {"epochs"}
    mappings = tuple(f"{key}." for key in given if key.endswith("optimizer.options"))
    return {key: value for key, value in values.items() if key not in others and not key.startswith(mappings)}


def _is_of_a_policy(key: str) -> bool:
    """Whether a field, of one optimizer or of one of several, says what a policy would."""
    section, _, last = key.rpartition(".")
    return section.rpartition(".")[2] == "lr" and last in OF_A_POLICY


def config_of(
    given: Config | Mapping[str, Any] | str | os.PathLike[str],
    model: type[AnyConfig] = Config,  # type: ignore[assignment]
) -> Config | AnyConfig:
    """Return a Config as it is, or what a dict (nested or with dotted keys, as in YAML) or the path of a YAML file says.

    Raises ConfigError for anything else, and for what `load_config` refuses.
    """
    if isinstance(given, Config):
        return given
    if isinstance(given, str | os.PathLike):
        return load_config(Path(given), model=model)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"config={shown(repr(given))} is a {type(given).__name__}; give a raylr.Config, a dict, or a YAML file's path"
        )
    paths = {setting.key for setting in settings(model) if setting.unit == "path"}
    values = {
        key: str(value) if isinstance(value, Path) else value for key, value in _of_tree(given, "", model).items()
    }
    return model(**_nested(_expanded(values, paths)))


def _of_file(path: Path, model: type[Config]) -> dict[str, Any]:
    """Return the values of a file by dotted key, without nulls that mean "off"."""
    return _of_tree(_read(path), f" {path}", model)


def _of_tree(tree: Mapping[Any, Any], name: str, model: type[Config]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = {setting.key: setting for setting in settings(model)}
    tree = {key: value for key, value in tree.items() if not str(key).startswith("x-")}
    for key, value in leaves(tree):
        if key in values:
            raise ConfigError(f"config{name}: {key} is given twice, with dots and in its section; give it once")
        values[key] = value
    return {
        key: value
        for key, value in values.items()
        if not ((value is None or value is NULL) and _is_off(key, value, known))
    }


def _is_off(key: str, value: str | None, known: Mapping[str, Setting]) -> bool:
    """Return True for a null that means "off", or an empty section. ConfigError where the default is a choice."""
    listed = re.sub(r"^optimizers\.[^.]+\.", "optimizers.NAME.", key)
    setting = known.get(listed)
    if setting is None:
        if not any(field.startswith(f"{listed}.") for field in known):
            return False  # not a field
        if value is None or key == "optimizers":
            return True
        raise ConfigError(f"{key}=null is a section, not a value; leave it out, or set its fields")
    if setting.default in OFF and key != "seed":
        return True
    instead = INSTEAD_OF_NULL.get(key.rpartition(".")[2], "a value")
    default = f", or leave it out for the default ({setting.default})" if setting.default else ""
    raise ConfigError(f"{key}=null is no value, and does not mean none; use {instead}{default}")


def _expanded(values: Mapping[str, Any], paths: set[str]) -> dict[str, Any]:
    """Replace ~ and variables in the values that are paths."""
    return {
        key: _expanded_path(key, value) if key in paths and isinstance(value, str) else value
        for key, value in values.items()
    }


def _expanded_path(key: str, value: str) -> str:
    template = Template(value)
    for name in template.get_identifiers():
        if not os.environ.get(name):
            raise ConfigError(
                f"{key}={shown(value)}, the variable {name} is not set; set it, or write $$ for a plain $"
            )
    if not template.is_valid():
        raise ConfigError(f"{key}={shown(value)}, $ begins no name of a variable; write $$ for a plain $")
    path = template.substitute(os.environ)
    if path.startswith("~") and (path := os.path.expanduser(whole := path)) == whole:
        raise ConfigError(
            f"{key}={shown(value)}, no home folder is known for {whole.partition('/')[0]}; give the whole path"
        )
    return path


def _is_record(path: Path) -> bool:
    """Return True for the config.json that a run or a population wrote into its folder."""
    return path.name == "config.json" and any(
        (path.parent / name).is_file() for name in ("plan.json", "policy.json", "space.json")
    )


def _record(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run's own config.json without its orders; only `given` holds orders.

    The policy of a finished start fits its length, stretched or not, and stretching changes nothing on a policy that fits.
    So stretch is set, unless `given` changes the policy, the length or the data.
    """
    try:
        values = dict(leaves(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ConfigError(f"config {path} is not what a run has written; give the path of a YAML file") from None
    if ordered := [f"{name}={values[name]}" for name in ("fresh", "address") if values.get(name)]:
        warnings.warn(
            f"config {path}: {' and '.join(ordered)} was for the start that wrote it and is left out; give it as a flag",
            stacklevel=4,
        )
    is_changed = any(key in ("policy", "epochs", "stretch") or key.startswith("data.") for key in given)
    stretch = {"stretch": True} if values.get("policy") and not is_changed else {}
    return {key: value for key, value in values.items() if value is not None and key not in ORDERS} | stretch


def _read(path: Path) -> dict[Any, Any]:
    try:
        content = load_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path} is not text; give the path of a YAML file") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config {path}{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"config {path} is nested too deeply; fields lie at most {MAX_DEPTH} deep") from None
    except ValueError:  # of a path with a null byte
        raise ConfigError(f"config {shown(str(path))} is no path; give the path of a YAML file") from None
    if content is None or content is NULL:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} holds no fields; write lines such as `epochs: 8`")
    return content


def leaves(tree: Mapping[Any, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value and depth < MAX_DEPTH:
            yield from leaves(value, f"{prefix}{key}.", depth + 1)
        elif value != {}:
            yield f"{prefix}{key}", value


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, last = (NAME if key == SHORT and not isinstance(value, dict) else key).split(".")
        section = tree
        for depth, name in enumerate(sections):
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise _beside(".".join(sections[: depth + 1]), section, key)
        if isinstance(section.get(last), dict):
            raise _beside(key, value, next(other for other in leaves if other.startswith(f"{key}.")))
        section[last] = value
    return tree


def _beside(parent: str, value: object, key: str) -> ConfigError:
    return ConfigError(f"{parent}={shown(value)} beside {key}; drop one of the two")
