"""The folder that a path or a URI names."""

from pathlib import Path

from raylr.storage.folder import Folder


def run_folder(storage: str, name: str) -> Folder:
    """The folder of the run `name` under `storage`, a path or a URI. Raises ConfigError for a URI that nothing serves."""
    if "://" in storage:
        from raylr.storage.objects import object_folder

        return object_folder(storage, name)
    return Folder(Path(storage).expanduser().resolve() / name)


def folder_at(location: str) -> Folder:
    """The folder that calls itself `location`, a path or a URI."""
    storage, _, name = location.rpartition("/")
    return run_folder(storage, name) if "://" in storage else Folder(Path(location).expanduser().resolve())
