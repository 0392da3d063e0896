"""Find the files of the user's own modules that a config names, and of what these import, by reading them alone."""

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from raylr.config.own_sources import INSTALLED, MAX_MODULES
from raylr.errors import ConfigError

_MODULE, _FILE = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*", r"[^,\s]+\.py"
OBJECT = re.compile(rf"({_FILE}|{_MODULE}):[^\W\d]\w*")  # as raylr.config.user_code imports it


def own_files(values: Any, here: Path) -> dict[Path, Path]:
    """Return the files of own modules that texts in `values` name, `package.module:name` or `FILE.py:name`.

    Each is listed by its path below the folder that Python imports from, a FILE.py of `here` by its path there. Own is
    what lies in `here` or on Python's path and is not installed. Nothing is run. Raises ConfigError for what is no Python.
    """
    found = dict[Path, Path]()
    for source in sorted({match[1] for text in _texts(values) for match in OBJECT.finditer(text)}):
        if source.endswith(".py"):
            path = Path(os.path.abspath(here / source))
            if path.is_file():
                base = path.parents[len(place_of(source, here).parts) - 1]
                found |= {one.relative_to(base): one for one in _used([path], path.parent)}
        elif (root := _root(source.partition(".")[0], here)) is not None:
            found |= {one.relative_to(root): one for one in _used(_files(source, root), root)}
    return found


def place_of(source: str, here: Path) -> Path:
    """Return where a FILE.py lies below the folder that is sent: as below `here`, or by its name alone from elsewhere."""
    path = Path(os.path.abspath(here / source))
    return path.relative_to(here) if path.is_relative_to(here) else Path(path.name)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            yield from (text for one in value.values() for text in _texts(one))
        case list() | tuple():
            yield from (text for one in value for text in _texts(one))


def _root(package: str, here: Path) -> Path | None:
    """Return the folder that holds a package of one's own; None for one that is installed, or that is not found."""
    if package in sys.stdlib_module_names or package == "raylr":
        return None
    spec = PathFinder.find_spec(package, [str(here)]) or PathFinder.find_spec(package)
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])] if spec else []
    root = Path(places[0]).absolute().parent if places else None
    return None if root is None or INSTALLED & set(root.parts) else root


def _used(first: list[Path], root: Path) -> list[Path]:
    """Return these files and all below `root` that they import, in functions too."""
    waiting, found = list(first), dict[Path, None]()
    while waiting and len(found) < MAX_MODULES:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [one for name in _imports(path, root) for one in _files(name, root)]
    return list(found)


def _imports(path: Path, root: Path) -> Iterator[str]:
    """Yield the full names of what a file imports; of `from a import b` both a and a.b, which may be a module."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Python: {error}; mend it") from None
    package = path.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" if name else alias.name for alias in node.names)


def _files(name: str, root: Path) -> list[Path]:
    """Return the files of a module below `root` and of the packages above it; none of raylr, or where it is not there."""
    parts = [part for part in name.split(".") if part]
    if parts[:1] == ["raylr"]:
        return []
    packages = [root.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1)]
    module = root.joinpath(*parts).with_suffix(".py") if parts else root
    return [one for one in [*packages, module] if one.is_file() and not INSTALLED & set(one.relative_to(root).parts)]
