"""What travels with a job: raylr itself, the user's own modules, and the files that the config names, in one folder.

The folder is the job's working directory, and Ray puts it on the path of its workers. Own modules are found by reading
them, never by running them, so nothing needs to be installed here that only the cluster has.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from raylr.config import Config
from raylr.config.fields import Setting, settings
from raylr.config.own_files import own_files, place_of
from raylr.config.own_task import NAME, task_settings
from raylr.config.sources import anywhere, is_own, is_path
from raylr.errors import ConfigError
from raylr.storage import is_uri

PACKAGE = Path(__file__).parents[1]
MAX_BYTES = 200 * 2**20  # of one path; Ray takes 500 MB for the whole
RECORD = ("plan.json", "policy.json", "space.json")  # beside the config.json that a run has written
STAYS = {"storage", "data.root", "data.cache_dir"}  # paths of each node
SECRET, SECRET_FILE = "alerts.url", "alerts-url.txt"
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".venv")


@dataclass(frozen=True)
class Asked:
    """The arguments of a verb, read: its config's path, the fields given as flags by their keys, other flags as they are."""

    verb: str
    config_path: str | None
    fields: Mapping[str, str]
    others: tuple[str, ...] = ()

    def arguments(self, model: type[Config]) -> list[str]:
        """Return them as words of a command line."""
        own = task_settings(self.fields[NAME]) if NAME in self.fields else []
        known = {setting.key: setting for setting in [*settings(model), *own]}
        words = [self.verb, *([self.config_path] if self.config_path else []), *self.others]
        for key, value in self.fields.items():
            words += _flag(key, value, known.get(re.sub(r"^optimizers\.[^.]+\.", "optimizers.NAME.", key)))
        return words


def pack(asked: Asked, config: Config, into: Path, includes: Iterable[Path] = (), is_here: bool = False) -> Asked:
    """Fill the folder `into` and return the arguments under which all is found there.

    `is_here`: the cluster is on this machine, so relative paths are made absolute and stay where they are. Raises
    ConfigError for a path that is too large to travel, or not there.
    """
    here = Path.cwd()
    _copy_raylr(into)
    for place, path in own_files(config.model_dump(), here).items():
        _copy(path, into / place, str(path))
    for path in includes:
        _copy(path, into / _place(path, here), f"include={path}")
    fields = dict(asked.fields)
    if is_own(source := config.data.source) and ".py:" in source:
        file, _, name = source.rpartition(":")
        fields["data.source"] = anywhere(source) if is_here else f"{place_of(file, here)}:{name}"
    for key, value in _paths(config):
        if not is_uri(value) and (found := _moved(key, value, here, into, is_here)) is not None:
            fields[key] = found.replace("$", "$$")
    if (url := fields.pop(SECRET, None)) is not None:  # a job's command is shown to all who see the dashboard
        (into / SECRET_FILE).touch(mode=0o600)
        (into / SECRET_FILE).write_text(url + "\n")
        fields[f"{SECRET}_file"] = SECRET_FILE
    return Asked(asked.verb, _packed_config(asked.config_path, here, into), fields, asked.others)


def _flag(key: str, value: str, setting: Setting | None) -> list[str]:
    section, _, leaf = key.replace("_", "-").rpartition(".")
    dotted = f"{section}." if section else ""
    if setting is not None and setting.kind == "yes|no":
        return [f"--{dotted}{leaf}" if value in ("yes", "true", "True") else f"--{dotted}no-{leaf}"]
    return [f"--{dotted}{leaf}={value}"] if value.startswith("-") else [f"--{dotted}{leaf}", value]


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """The fields of the config that are paths and have a value; where they are not given, the default's."""
    own = task_settings(config.task.name) if config.task.name is not None else []
    for setting in [*settings(type(config)), *own]:
        value: Any = config
        if setting.unit != "path" or "NAME" in setting.key:
            continue
        for part in setting.key.split("."):
            value = getattr(value, part)
        if value is not None and (setting.key != "data.source" or is_path(value)):
            yield setting.key, value


def _moved(key: str, value: str, here: Path, into: Path, is_here: bool) -> str | None:
    """The path under which a job finds what is at `value` here; None where its own text is right."""
    path = Path(value).expanduser()
    if is_here:
        return str(here / path)
    if key in STAYS:
        return value if Path(value).is_absolute() else None  # the default cache is in each node's own home
    if path.is_absolute() and (path.is_dir() or key.startswith("data.") or not path.exists()):
        return value  # at one path on every node
    place = _place(path, here)
    _copy(path, into / place, f"{key}={value}")
    return str(place)


def _place(path: Path, here: Path) -> Path:
    """Where a path of this folder is in the job's: at the same place, or by its name for one of elsewhere."""
    whole = (here / path).resolve()
    return whole.relative_to(here.resolve()) if whole.is_relative_to(here.resolve()) else Path(whole.name)


def _packed_config(given: str | None, here: Path, into: Path) -> str | None:
    if given is None:
        return None
    path = Path(given)
    place = _place(path, here)
    _copy(path, into / place, f"config={given}")
    if path.name == "config.json":
        for name in RECORD:
            if (path.parent / name).is_file():
                _copy(path.parent / name, into / place.parent / name, f"config={given}")
    return str(place)


def _copy(path: Path, to: Path, field: str) -> None:
    if not path.exists():
        raise ConfigError(f"{field} is not here; give a path that is, or an absolute one that every node has")
    if (size := _size(path)) > MAX_BYTES:
        raise ConfigError(
            f"{field} has {size / 1e6:,.0f} MB, and at most {MAX_BYTES / 1e6:.0f} MB travel with a job; put it where "
            "every node sees it, and give that absolute path"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to, ignore=SKIPPED, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, to)


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file())


def _copy_raylr(into: Path) -> None:
    """Copy the package that runs here, so that the cluster runs the same, with what tells its version."""
    shutil.copytree(PACKAGE, into / "raylr", ignore=SKIPPED)
    told = metadata.distribution("raylr")
    folder = into / f"raylr-{told.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(told.read_text("METADATA") or "")
