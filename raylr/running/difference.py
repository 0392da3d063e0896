"""What makes a request another run than the one in a folder, in the words of whoever asked."""

from typing import Any

from raylr.config import Config
from raylr.config.fields import settings
from raylr.config.free import is_free
from raylr.errors import ConfigError
from raylr.reporting.rows import leaves
from raylr.storage import Folder


class AnotherRun(ConfigError):
    """A name that is another run's."""


def differences(config: Config, folder: Folder) -> list[str]:
    """The fields that were other ones when the folder's config.json was written: `epochs was 30 and is 12`."""
    if not folder.exists("config.json"):
        return []
    old, new = leaves(folder.read_json("config.json")), leaves(config.record())
    defaults = {setting.key: setting.default for setting in settings(type(config))}
    changed = [key for key in dict.fromkeys((*old, *new)) if not is_free(key)]
    told = [(key, _told(old.get(key), defaults.get(key)), _told(new.get(key), defaults.get(key))) for key in changed]
    return [f"{key} was {before} and is {now}" for key, before, now in told if before != now]


def _told(value: Any, default: str | None) -> str:
    """A value as the user writes it; a field that an older version did not know has had its default."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else _plain(value)
    if value is None or text == default:
        return f"the default ({default})" if default else "not given"
    return text


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
