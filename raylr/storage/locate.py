"""The folder that a path, a URI or the name of a run means."""

import os
from pathlib import Path

from raylr.errors import ConfigError
from raylr.storage.folder import Folder
from raylr.storage.local import LocalFolder

RUN, POPULATION = "policy.json", "space.json"  # the file by which the folder of each is known
MAX_NAME = 255  # bytes of a file's name that a system takes


def is_uri(storage: str) -> bool:
    """True for the URI of an object store, False for a path."""
    return "://" in storage


def run_folder(storage: str, name: str) -> Folder:
    """The folder of the run `name` under `storage`, a path or a URI. Raises ConfigError for a URI that nothing serves."""
    if is_uri(storage):
        from raylr.storage.objects import object_folder

        return object_folder(storage, name)
    return LocalFolder(_local(storage, "storage").resolve() / _local(name, "run"))


def folder_at(location: str) -> Folder:
    """The folder that calls itself `location`, a path or a URI."""
    storage, _, name = location.rstrip("/").rpartition("/")
    return run_folder(storage, name) if is_uri(storage) else LocalFolder(_local(location, "run").resolve())


def _local(text: str, field: str) -> Path:
    """The path that a text names, ~ expanded. Raises ConfigError for what no system takes as one."""
    if "\0" in text or any(len(os.fsencode(part)) > MAX_NAME for part in text.split("/")):
        cut = repr(text if len(text) < 80 else f"{text[:80]}...")
        raise ConfigError(f"{field}={cut} is no path; the names in one have no null byte and at most {MAX_NAME} bytes")
    path = os.path.expanduser(text)
    if path == text and text.startswith("~"):
        raise ConfigError(f"{field}={text}, no home folder is known for {text.partition('/')[0]}; give the whole path")
    return Path(path)


def runs_under(storage: str, *markers: str) -> list[Folder]:
    """The folders under `storage` that hold one of the files `markers`, by name."""
    folders = [run_folder(storage, name) for name in folder_at(storage).names()]
    return [one for one in folders if any(one.exists(marker) for marker in markers or (RUN,))]


def open_run(run: str | Path, storage: str = "runs", *markers: str) -> Folder:
    """The folder of a run, given by its path, its URI or its name under `storage`; it holds one of `markers` [policy.json].

    Raises ConfigError, which lists the runs that there are, when there is none.
    """
    for folder in (folder_at(str(run)), run_folder(storage, str(run))):
        if any(folder.exists(marker) for marker in markers or (RUN,)):
            return folder
    names = [folder.name for folder in runs_under(storage, *markers)]
    there = f"; there are {', '.join(names)}" if names else f"; `raylr runs --storage {storage}` lists them"
    raise ConfigError(f"run={run} is no run folder, nor the name of one in {storage}{there}")
