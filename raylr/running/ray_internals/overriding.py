"""Methods and attributes of Ray's classes that are replaced must be there: a renamed one would stay without effect."""

from collections.abc import Callable
from typing import Any, TypeVar

from raylr.errors import RaylrError

Class = TypeVar("Class", bound=type)


def overriding(*own: str) -> Callable[[Class], Class]:
    """A decorator of classes: every name of the body but `own` ones must be one of a base class.

    Raises RaylrError when the class is made. A name that Ray's `__init__` assigns is not seen here; `features` has those.
    """

    def checked(made: Class) -> Class:
        names = [name for name in vars(made) if not name.startswith("__") and name not in own]
        lost = [name for name in names if not any(hasattr(base, name) for base in made.__bases__)]
        if lost:
            raise RaylrError(
                f"{_version()} has no {_bases(made)}.{lost[0]}, which raylr replaces; use another version of Ray"
            )
        return made

    return checked


def _bases(made: type) -> str:
    return " or ".join(base.__name__ for base in made.__bases__)


def _version() -> str:
    import ray

    found: Any = ray.__version__
    return f"ray={found}"
