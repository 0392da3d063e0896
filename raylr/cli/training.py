"""How a verb trains the runs that its answer needs: each on the screen by its name and its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raylr.config import Config

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.running.driver import RunResult
    from raylr.running.forking import ForkOrder


def forking_on(screen: Console) -> Callable[[ForkOrder], RunResult]:
    """The same for a fork."""
    from raylr.api.fork import follow

    return lambda order: _shown(screen, (order.changes or {}).get("name"), follow, order)


def training_on(screen: Console) -> Callable[[Config], RunResult]:
    """What trains a run and shows it on `screen`, without its plan and its end: those of many runs would hide the answer."""
    from raylr.api.train import train

    return lambda config: _shown(screen, config.name, train, config)


def _shown(screen: Console, name: object, train: Callable[..., RunResult], what: Any) -> RunResult:
    from raylr.events import Finished, Planned
    from raylr.reporting.progress import Display

    screen.print(f"training {name}", soft_wrap=True)
    with Display(screen) as display:
        return train(what, lambda news: None if isinstance(news, Planned | Finished) else display(news), progress=False)
