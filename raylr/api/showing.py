"""Who shows a job of `raylr.train` and `raylr.explore`: nobody in a script, a bar in a terminal, a cell in a notebook."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from raylr.reporting.notebook import NotebookDisplay, is_notebook, lacks_ipython
from raylr.reporting.notebook_population import NotebookPopulation
from raylr.reporting.population import PopulationDisplay
from raylr.reporting.progress import Display

NO_IPYTHON = (
    "progress: this notebook has no IPython to draw with, so lines are printed; pip install ipython, or progress=False"
)


Shower = AbstractContextManager[Callable[[Any], None] | None]


def shown(progress: bool | None) -> Shower:
    """Return what shows a run: where somebody looks, a terminal or a notebook, or everywhere with True; nothing with False."""
    return _shown(progress, NotebookDisplay, Display)


def population_shown(progress: bool | None) -> Shower:
    """Return what shows a population, as `shown` does."""
    return _shown(progress, NotebookPopulation, PopulationDisplay)


def _shown(progress: bool | None, notebook: Callable[[], Shower], terminal: Callable[[], Shower]) -> Shower:
    if progress is False:
        return contextlib.nullcontext()
    if is_notebook():
        return notebook()
    return terminal() if _is_wanted(progress) else contextlib.nullcontext()


def _is_wanted(progress: bool | None) -> bool:
    if lacks_ipython():
        print(NO_IPYTHON, file=sys.stderr)
        return True
    return progress is True or sys.stdout.isatty()
