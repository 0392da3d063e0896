"""Where a run's files are: a folder on a path or on an object store."""

from raylr.storage.folder import Appender, Folder
from raylr.storage.local import LocalFolder
from raylr.storage.locate import POPULATION, RUN, folder_at, is_uri, open_run, run_folder, runs_under

__all__ = [
    "POPULATION",
    "RUN",
    "Appender",
    "Folder",
    "LocalFolder",
    "folder_at",
    "is_uri",
    "open_run",
    "run_folder",
    "runs_under",
]
