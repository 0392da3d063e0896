"""Functions of the user's that see a run and do not steer it. They get frozen events, never the model or its gradients.

A hook takes the event, and also `run_dir`, the run's folder, if it has a parameter of that name. Hooks of updates and tests are
called on the rank that writes, between two updates; those of the end on the driver. One that raises is named in a warning and
called no more: what only looks must not end a training.
"""

import inspect
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raylr.config.user_code import import_object
from raylr.errors import ConfigError, first_line
from raylr.planning.plan import HooksPlan

Hook = Callable[..., object]


class Hooks:
    """The hooks of one moment: `when` is update, test or end. `warn` hears of the one that fails."""

    def __init__(self, when: str, names: Iterable[str], run_dir: str, warn: Callable[[str], None]) -> None:
        self.when, self.run_dir, self.warn = when, run_dir, warn
        self._hooks = {name: _imported(when, name) for name in names}

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __call__(self, event: Any) -> None:
        """Show each hook the event."""
        for name, hook in list(self._hooks.items()):
            try:
                hook(event, run_dir=self.run_dir) if _takes(hook, run_dir="") else hook(event)
            except (Exception, SystemExit) as error:
                del self._hooks[name]
                self.warn(f"hooks.{self.when}={name} failed and is called no more: {_told(error)}")


def check_hooks(plan: HooksPlan) -> None:
    """Import them all. Raises ConfigError for what is no function of an event."""
    for when, names in plan:
        for name in names:
            _imported(when, name)


def _imported(when: str, name: str) -> Hook:
    field = f"hooks.{when}"
    hook = import_object(name, field)
    if not callable(hook):
        raise ConfigError(f"{field}={name} is a {type(hook).__name__}; name a function that takes the event")
    if not (_takes(hook) or _takes(hook, run_dir="")):
        raise ConfigError(
            f"{field}={name} cannot be called with an event alone; take one argument, and run_dir if you like"
        )
    return hook  # type: ignore[no-any-return]


def _takes(hook: Hook, **named: str) -> bool:
    """Whether it can be called with an event and these; what has no signature is called with the event alone."""
    try:
        inspect.signature(hook).bind(None, **named)
    except TypeError:
        return False
    except ValueError:
        return not named
    return True


def _told(error: BaseException) -> str:
    """The error in one line with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {first_line(error)} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
