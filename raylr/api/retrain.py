"""Schedules trained from scratch against each other, at equal examples: as found, as distilled, and a cosine tuned for it.

Every run is one of `raylr train` with a name of its own, so an interrupted comparison goes on where it was.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylr.api.plan import plan
from raylr.api.seeds import mean, spread
from raylr.api.train import Train
from raylr.config import BESIDE_A_POLICY, Config, LRConfig
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.loop_plan import refuse_loop
from raylr.planning.lr import policy_of_file
from raylr.storage import POPULATION_RESULT, Folder, LocalFolder, open_run

FOUND = ("best_policy.json", "policy.json")  # of a population, of a run


@dataclass(frozen=True)
class Source:
    """A policy's file, and the folder of the population or run that it belongs to."""

    path: Path
    folder: Folder | None

    @property
    def name(self) -> str:
        return self.folder.name if self.folder is not None else self.path.stem

    def config(self) -> Config:
        """The config of the population's trials, or of the run, where it lies now; without a folder the defaults."""
        if self.folder is None:
            return Config()
        refuse_loop(self.folder, "train again")
        values = {**self.folder.read_json("config.json"), "storage": self.folder.storage}
        return Config(**{name: value for name, value in values.items() if name in Config.model_fields})

    def spent(self) -> int | None:
        """The examples that a population trained to find the policy; None where it comes from none."""
        return None if self.folder is None else examples_trained(self.folder)


def examples_trained(folder: Folder) -> int | None:
    """The examples that all trials of a population trained, those that were stopped among them; None where there is none."""
    if not folder.exists("reports.jsonl"):
        return None
    if folder.exists(POPULATION_RESULT):
        result = folder.read_json(POPULATION_RESULT)
        if "trained_examples" in result:
            return int(result["trained_examples"])
    furthest: dict[str, int] = {}
    for row in folder.read_rows("reports.jsonl"):
        furthest[row["trial"]] = max(furthest.get(row["trial"], 0), row["position"])
    return sum(furthest.values())


def source_of(what: str, storage: str) -> Source:
    """The policy that `what` names: a file, or the folder or name of a population or a run under `storage`."""
    path = Path(os.path.expanduser(what))
    if os.path.isfile(path):
        return Source(path, LocalFolder(path.parent) if (path.parent / "config.json").exists() else None)
    try:
        folder = open_run(what, storage, *FOUND)
    except ConfigError:
        raise ConfigError(
            f"policy={what} is neither a file nor a population or run in {storage}; `raylr runs` lists those"
        ) from None
    name = next(name for name in FOUND if folder.exists(name))
    if not isinstance(folder, LocalFolder):
        raise ConfigError(f"policy={what} is on an object store; copy {folder}/{name} to a file and give that")
    return Source(folder.path / name, folder)


@dataclass(frozen=True)
class Standing:
    """How a schedule did: its test accuracy by seed (None: the run failed), and the examples spent on finding it."""

    name: str
    accuracies: tuple[float | None, ...]
    spent: int | None

    def row(self) -> dict[str, Any]:
        """The standing as plain data; what is not known is None."""
        return {**vars(self), "mean": mean(self.accuracies), "sd": spread(self.accuracies)}


def retrain(
    source: Source, config: Config, distilled: Path, num_seeds: int, num_peaks: int, train: Train
) -> list[Standing]:
    """Train the policy, what was distilled of it, and a cosine that was tuned; says how each did.

    The cosine's peak LR is the best of `num_peaks`, each twice the one before, around the config's own: one run each, with
    the config's seed. What is compared are the `num_seeds` seeds after that. All runs have as many examples.
    """
    policy = policy_of_file(str(source.path)).policy
    peaks = {scale: cosine(config, policy, scale) for scale in scales(num_peaks)}
    tried = {
        scale: _score(source, f"cosine-x{scale:g}", one, config.seed, train, chooses=True)
        for scale, one in peaks.items()
    }
    best = max(tried, key=lambda scale: tried[scale] or 0.0)
    entrants = {
        "raw": under(config, source.path),
        "distilled": under(config, distilled),
        f"cosine-x{best:g}": peaks[best],
    }
    found: dict[str, list[float | None]] = {short: [] for short in entrants}
    for seed in range(config.seed + 1, config.seed + 1 + num_seeds):
        for short, one in entrants.items():
            found[short].append(_score(source, short, one, seed, train))
    search, tuning = source.spent(), num_peaks * policy.total_examples
    return [
        Standing(short, tuple(scores), search if short in ("raw", "distilled") else tuning)
        for short, scores in found.items()
    ]


def scales(count: int) -> list[float]:
    """Multiples of a base LR: so many, a factor of 2 apart, around 1.

    >>> scales(5)
    [0.25, 0.5, 1.0, 2.0, 4.0]
    """
    return [2.0 ** (index - (count - 1) // 2) for index in range(count)]


def under(config: Config, policy: Path) -> Config:
    """The config with its LR and its length from a policy's file; what says nothing of the curve stays."""
    kept = BESIDE_A_POLICY
    return _changed(
        config, lambda lr: LRConfig(**{name: getattr(lr, name) for name in kept}), policy=str(policy), epochs=None
    )


def cosine(config: Config, policy: Policy, scale: float) -> Config:
    """The config with a cosine as long as `policy`, from its own base LRs x scale, after its own warmup."""
    flat = {"shape": "cosine", "momentum_low": None, "momentum_high": None}
    epochs = policy.total_examples / policy.examples_per_epoch
    plain = _changed(config, lambda lr: lr.model_copy(update=flat), policy=None, epochs=epochs)
    bases = iter([schedule.base_lr * scale for _, schedule in plan(plain)[1].schedules])
    return _changed(plain, lambda lr: lr.model_copy(update={"base": next(bases)}))


def _changed(config: Config, lr: Callable[[LRConfig], LRConfig], **fields: Any) -> Config:
    """The config with other fields, and what `lr` makes of the LR section of each of its optimizers."""
    groups = {name: group.model_copy(update={"lr": lr(group.lr)}) for name, group in config.optimizers.items()}
    parts: dict[str, Any] = {"optimizers": groups} if groups else {"lr": lr(config.lr)}
    return config.model_copy(update={"stretch": False, "fresh": False, **parts, **fields})


def _score(source: Source, short: str, config: Config, seed: int, train: Train, chooses: bool = False) -> float | None:
    """The test accuracy of a run; None of one that failed. What `chooses` looks at the validation split, if there is one."""
    result = train(config.model_copy(update={"name": f"{source.name}-{short}-seed{seed}", "seed": seed}))
    if result.status == "stopped":
        raise KeyboardInterrupt  # the same command goes on from here
    if result.status != "complete":
        return None
    held_out = result.model_dump().get("validation_accuracy") if chooses else None
    return result.test_accuracy if held_out is None else held_out
