"""What is compared: two runs, configs or policies, each as a config whose seed is the only thing left to choose."""

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raylr.api.plan import plan as planned
from raylr.api.retrain import FOUND, Source, under
from raylr.config import Config
from raylr.config.load import EXCLUSIVE, load_config
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.loop_plan import refuse_loop
from raylr.planning.plan import Plan
from raylr.running.driver import FREE
from raylr.storage import Folder, LocalFolder, open_run, run_folder

PACKAGES = ("raylr", "torch", "torchvision", "numpy")  # other versions may give other bits
KNOWN_LATE = ("data_sha256", "pixel_mean", "pixel_std", "class_names")  # once the data is prepared
NAME_LENGTH = 10


@dataclass(frozen=True)
class Side:
    """One of the two. `content` names what it trains, whatever its seed: equal contents and seeds give equal bits."""

    label: str
    what: str
    config: Config
    plan: Plan
    content: str
    folder: Folder | None  # of the run that was named

    def at(self, seed: int) -> Config:
        """The config of its run with this seed, named by its content."""
        prefix = self.config.name or "compare"
        return self.config.model_copy(
            update={"seed": seed, "name": f"{prefix}-{self.content[:NAME_LENGTH]}-seed{seed}"}
        )

    def folder_at(self, seed: int) -> Folder:
        return run_folder(self.config.storage, str(self.at(seed).name))


@dataclass(frozen=True)
class _Named:
    """What the words of a side mean: a config, of a policy None; the policy's file; the run's folder."""

    config: Config | None
    policy: Path | None
    folder: Folder | None


def sides_of(a: str, b: str, common: Config) -> tuple[Side, Side]:
    """The two sides. What is given in `common` holds for both; a policy is trained under the other side's config.

    Raises ConfigError for what names nothing, and for sides whose seeds or data do not pair.
    """
    named = {label: _named(label, what, common.storage) for label, what in (("A", a), ("B", b))}
    bases = [one.config for one in named.values() if one.config is not None]
    made = []
    for (label, one), what in zip(named.items(), (a, b), strict=True):
        base = one.config or (bases[0] if bases else _config_beside(one))
        config = _over(under(base, one.policy) if one.policy is not None else base, common)
        made.append(side_of(label, what, config, one.folder))
    _refuse_what_does_not_pair(*made)
    return made[0], made[1]


def side_of(label: str, what: str, config: Config, folder: Folder | None = None) -> Side:
    """A config as a side."""
    plan, policy = planned(config)
    return Side(label, what, config, plan, content_of(plan, policy), folder)


def content_of(plan: Plan, policy: Policy, versions: dict[str, str] | None = None) -> str:
    """The SHA-256 of all that decides a run's result but its seed and the data's bytes."""
    kept = plan.model_dump(mode="json", exclude={*FREE, *KNOWN_LATE, "seed"})
    if plan.per_worker_size is not None or plan.reduce == "ddp":
        kept["workers"] = plan.workers
    used = versions or {name: version(name) for name in PACKAGES}
    text = json.dumps([kept, policy.sha256, {name: used.get(name) for name in PACKAGES}], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def content_of_run(folder: Folder) -> tuple[str, int] | None:
    """The content and the seed of a run that has ended; None where its files do not say."""
    try:
        plan = Plan.model_validate(folder.read_json("plan.json"))
        policy = Policy.from_json(folder.read_bytes("policy.json").decode())
        return content_of(plan, policy, folder.read_json("result.json")["versions"]), plan.seed
    except (OSError, ValueError, KeyError, ConfigError):
        return None


def _named(label: str, what: str, storage: str) -> _Named:
    path = Path(what).expanduser()
    if path.is_file() and path.suffix == ".json" and path.name != "config.json":
        return _Named(None, path, None)
    if path.is_file():
        return _Named(load_config(path), None, None)
    try:
        folder = open_run(what, storage, *FOUND)
    except ConfigError as error:
        raise ConfigError(f"{label}={what} is no config, no policy and no run: {error}") from None
    refuse_loop(folder, "compare")
    if folder.exists(FOUND[0]) or Source(path, folder).config().policy is not None:
        name = next(name for name in FOUND if folder.exists(name))
        if not isinstance(folder, LocalFolder):
            raise ConfigError(f"{label}={what} is on an object store; copy {folder}/{name} to a file and give that")
        is_run = name != FOUND[0]
        return _Named(Source(path, folder).config() if is_run else None, folder.path / name, folder if is_run else None)
    return _Named(Source(path, folder).config(), None, folder)


def _config_beside(named: _Named) -> Config:
    """The config of the population or run in whose folder a policy lies; without one the defaults."""
    assert named.policy is not None
    beside = LocalFolder(named.policy.parent.resolve())
    return Source(named.policy, beside if beside.exists("config.json") else None).config()


def _over(base: Config, common: Config) -> Config:
    """The base with what was given for both sides, and the storage and the name of the comparison."""
    given = common.model_dump(exclude_unset=True)
    below = base.model_dump(exclude_unset=True)
    for one, other in EXCLUSIVE:
        if one.partition(".")[2] in given.get("batch", {}):
            below.get("batch", {}).pop(other.partition(".")[2], None)
    merged = _merged(below, given)
    for name in ("storage", "name", "fresh", "address"):
        merged[name] = getattr(common, name)
    return Config(**merged)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def _refuse_what_does_not_pair(a: Side, b: Side) -> None:
    if a.config.seed != b.config.seed:
        raise ConfigError(
            f"seed={a.config.seed} of A={a.what} beside seed={b.config.seed} of B={b.what} do not pair; give --seed for both"
        )
    for field in ("source", "train_examples", "test_examples", "validation"):
        ours, theirs = getattr(a.config.data, field), getattr(b.config.data, field)
        if ours != theirs:
            flag = f"--data.{field.replace('_', '-')}"
            raise ConfigError(f"data.{field}={ours} of A and {theirs} of B do not pair; give {flag} for both")
    refuse_other_data(*(one.folder.read_json("plan.json").get("data_sha256") if one.folder else "" for one in (a, b)))


def refuse_other_data(a: str | None, b: str | None) -> None:
    """Raise ConfigError where the data of two runs, by their SHA-256 where it is known, are not the same."""
    if a and b and a != b:
        raise ConfigError(
            f"data_sha256={a[:12]} of A and {b[:12]} of B: the data have changed between them; train both on the same data"
        )
