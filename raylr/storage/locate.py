"""The folder that a path, a URI or the name of a run means."""

import os
from collections.abc import Iterator
from pathlib import Path

from raylr.errors import ConfigError
from raylr.storage.folder import Folder
from raylr.storage.local import LocalFolder

RUN, POPULATION = "policy.json", "space.json"  # the file by which the folder of each is known
RUN_RESULT, POPULATION_RESULT = "result.json", "explore.json"  # how each ended
TRIALS = "trials"  # in the folder of a population
PICTURES = "pictures"  # that a task made of its model in tests, in the folder of a run
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
    """The folder that `run` means: of a run, a population or a trial, by its path, its URI or its name under `storage`.

    A trial is POP/TRIAL, with the folder `trials` between or not. The folder holds one of `markers` [policy.json]; where
    that is a run's, a population stands for its best trial. Raises ConfigError, which lists what there is, when there is none.
    """
    wanted, text = markers or (RUN,), str(run)
    for folder in _candidates(text, storage):
        if any(folder.exists(marker) for marker in wanted):
            return folder
        if folder.exists(POPULATION):
            return best_trial(folder)
    raise ConfigError(f"run={run} is no run folder, nor the name of one in {storage}{_there(text, storage, wanted)}")


def trials_of(population: Folder) -> list[Folder]:
    """The folders of a population's trials that have begun, by name."""
    return runs_under(f"{population}/{TRIALS}")


def best_trial(population: Folder) -> Folder:
    """The folder of a population's best trial. Raises ConfigError as long as no trial has a score."""
    best = population.read_json(POPULATION_RESULT).get("best") if population.exists(POPULATION_RESULT) else None
    if best is None:
        names = [f"{population.name}/{trial.name}" for trial in trials_of(population)]
        instead = f"name one of {', '.join(names)}" if names else "none has begun"
        raise ConfigError(f"run={population} is a population of which no trial has a score yet; {instead}")
    return run_folder(f"{population}/{TRIALS}", str(best))


def population_of(trial: Folder) -> Folder | None:
    """The folder of the population that a trial belongs to; None for a run."""
    above, _, last = trial.storage.rpartition("/")
    if last != TRIALS:
        return None
    folder = folder_at(above)
    return folder if folder.exists(POPULATION) else None


def _candidates(text: str, storage: str) -> Iterator[Folder]:
    """The folders that a text may mean, in the order in which they are looked at."""
    yield folder_at(text)
    yield run_folder(storage, text)
    population, _, trial = text.rstrip("/").rpartition("/")
    if population and trial:
        yield run_folder(f"{population}/{TRIALS}", trial)
        if not is_uri(text):
            yield run_folder(f"{storage}/{population}/{TRIALS}", trial)


def _there(text: str, storage: str, markers: tuple[str, ...]) -> str:
    """What there is instead: the trials where a population was named, else the runs."""
    population = text.rstrip("/").rpartition("/")[0]
    if population:
        for folder in _candidates(population, storage):
            if folder.exists(POPULATION):
                return (
                    f"; {folder.name} has the trials {', '.join(trial.name for trial in trials_of(folder)) or 'none'}"
                )
    names = [folder.name for folder in runs_under(storage, *markers, POPULATION)]
    return f"; there are {', '.join(names)}" if names else f"; `raylr runs --storage {storage}` lists them"
