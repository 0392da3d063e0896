"""Find the source files of the user's own parts: their modules, and the modules of their own that these use."""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

CODE, CODE_FOLDER = "code.json", "code"  # where a run keeps what it finds, in its folder
MAX_MODULES = 100
INSTALLED = {"site-packages", "dist-packages"}


def own_sources(parts: Iterable[str]) -> dict[str, Path]:
    """Return the source files by module of imported parts, `package.module:name`; others of `parts` are passed over.

    Of what a part's module uses, those modules count that lie in the same folder as the package, or below, and are not
    installed: the user's own. A module without a source file has none.
    """
    found = dict[str, Path]()
    for name in (part.rpartition(":")[0] for part in parts if ":" in part and not part.startswith("raylr.")):
        module = sys.modules.get(imported_as(name) if name.endswith(".py") else name)
        if module is not None and (path := _source(module)) is not None:
            root = path.parents[module.__name__.count(".") + (path.name == "__init__.py")]
            _follow(module, root, found)
    return found


def imported_as(file: str) -> str:
    """Return the name of the module that a FILE.py is imported as."""
    return f"_imported_{Path(file).stem}"


def digests(sources: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each source file by module; a file that cannot be read any more has an empty one."""
    return {name: _digest(path) for name, path in sources.items()}


def _follow(module: ModuleType, root: Path, found: dict[str, Path]) -> None:
    waiting = [module]
    while waiting and len(found) < MAX_MODULES:
        module = waiting.pop()
        path = _source(module)
        if path is None or module.__name__ in found:
            continue
        found[module.__name__] = path
        waiting.extend(other for other in _used(module) if _is_own(other, root))


def _used(module: ModuleType) -> Iterator[ModuleType]:
    """The modules that the names of a module come from."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and (other := sys.modules.get(name)) is not None:
            yield other


def _is_own(module: ModuleType, root: Path) -> bool:
    if module.__name__.partition(".")[0] == "raylr":  # also where it is trained in raylr's own folder
        return False
    path = _source(module)
    return path is not None and path.is_relative_to(root) and not INSTALLED & set(path.relative_to(root).parts)


def _source(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if isinstance(file, str) and file.endswith(".py") else None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
