"""Tell by its text what kind of source `data.source` names: built in, a URI, an object of one's own, or a path."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from raylr.config.own_files import OBJECT
from raylr.errors import ConfigError
from raylr.storage import is_uri

OPTION = re.compile(r"\s*([^\W\d]\w*)\s*=(.*)", re.DOTALL)
BUILT_IN = ("auto", "cifar10", "synthetic")
FILE = "file://"


def is_own(source: str) -> bool:
    """Return True for a dataset of one's own, `package.module:name` or `FILE.py:name`."""
    return not is_uri(source) and OBJECT.fullmatch(source) is not None


def is_remote(source: str) -> bool:
    """Return True for a URI, whose files are fetched. ConfigError for one with a password, which a run's files would keep."""
    if not is_uri(source) or source.startswith(FILE):
        return False
    if urlsplit(source).password:
        scheme, _, rest = source.partition("://")
        raise ConfigError(
            f"data.source={scheme}://***@{rest.rpartition('@')[2]} holds a password, which the run's files would keep; "
            "put it where the store's own tools look (AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, ~/.netrc)"
        )
    return True


def is_path(source: str) -> bool:
    """Return True for a file, a folder or a pattern of files that each node is to have."""
    return source not in BUILT_IN and not is_own(source) and not is_remote(source)


def anywhere(source: str) -> str:
    """Return the source as it holds in any working directory: paths are made absolute."""
    if is_own(source):
        module, _, name = source.rpartition(":")
        return f"{Path(module).expanduser().resolve()}:{name}" if module.endswith(".py") else source
    return str(Path(source.removeprefix(FILE)).expanduser().resolve()) if is_path(source) else source


def options_text(options: Any) -> Any:
    """Return options as one text: a mapping as JSON, a text as it is, once it can be read. Raises ValueError otherwise."""
    if isinstance(options, Mapping):
        return json.dumps(options) if options else None
    if isinstance(options, str):
        options_of(options)
    return options


def options_of(text: str | None) -> dict[str, Any]:
    """Return the options of a text such as `fold=2, names=[a, b]`, or of a YAML or JSON mapping. Raises ValueError.

    >>> options_of("fold=2, names=[a, b], kind=fine")
    {'fold': 2, 'names': ['a', 'b'], 'kind': 'fine'}
    """
    try:
        if (text or "").lstrip().startswith("{"):
            return dict(yaml.safe_load(text or "").items())
        named = [OPTION.fullmatch(part) for part in split_at_commas(text or "")]
        if all(named):
            return {one[1]: yaml.safe_load(one[2]) for one in named if one is not None}
    except yaml.YAMLError:
        pass
    raise ValueError("must be name=value, by commas, such as fold=2, kind=fine")


def split_at_commas(text: str) -> list[str]:
    """Return the parts between the commas that stand in no bracket and no quotes.

    >>> split_at_commas("a=[1, 2], b=(3, 4), c='x, y'")
    ['a=[1, 2]', ' b=(3, 4)', " c='x, y'"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "([{") - (character in ")]}") if not quote else 0
        if character == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]
