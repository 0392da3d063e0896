"""Where a run's files are: a folder on a path or on an object store."""

from raylr.storage.folder import Appender, Folder, finite
from raylr.storage.local import LocalFolder
from raylr.storage.locate import (
    PICTURES,
    POPULATION,
    POPULATION_RESULT,
    RUN,
    RUN_RESULT,
    TRIALS,
    best_trial,
    folder_at,
    is_uri,
    open_run,
    population_of,
    run_folder,
    runs_under,
    trials_of,
)

__all__ = [
    "PICTURES",
    "POPULATION",
    "POPULATION_RESULT",
    "RUN",
    "RUN_RESULT",
    "TRIALS",
    "Appender",
    "Folder",
    "LocalFolder",
    "best_trial",
    "finite",
    "folder_at",
    "is_uri",
    "open_run",
    "population_of",
    "run_folder",
    "runs_under",
    "trials_of",
]
