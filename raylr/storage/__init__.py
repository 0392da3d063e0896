"""Where a run's files are: a folder on a path or on an object store."""

from raylr.storage.folder import Appender, Folder
from raylr.storage.locate import folder_at, run_folder

__all__ = ["Appender", "Folder", "folder_at", "run_folder"]
