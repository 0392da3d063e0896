"""Runs of the real loop in this process, one worker and no Ray: a stand-in for `raylr.train` where there are many short ones.

The bits are those of `raylr.train`, and so are the files that are left: plan, policy, ledger, tests, result.
"""

from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from raylr.api.sides import PACKAGES, Side
from raylr.config import Config, DataConfig
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.running.driver import RunResult
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.data.dataset import Dataset
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.trainer import Trainer

_loaded: dict[str, Dataset] = {}


def dataset(config: DataConfig) -> Dataset:
    """The data, loaded once."""
    key = config.model_dump_json()
    if key not in _loaded:
        prepare(config)
        _loaded[key] = load(config)
    return _loaded[key]


def train(config: Config) -> RunResult:
    """Train to the end, or go on."""
    config = config.model_copy(update={"gpu": "no"})
    data = dataset(config.data)
    plan, policy = resolve(config, data.info, local_hardware())
    folder = run_folder(config.storage, str(config.name))
    folder.create()
    folder.write_json("plan.json", plan.model_dump(mode="json"))
    folder.write_bytes("policy.json", policy.to_json().encode())
    found = Loop(Trainer(plan, policy, data), Plain(Group()), folder).run()
    versions = {name: version(name) for name in PACKAGES}
    result: dict[str, Any] = {**found, "versions": versions, "data_sha256": plan.data_sha256}
    folder.write_json("result.json", result)
    print(f"{config.name}: {result['status']}", flush=True)
    return RunResult(run_dir=str(folder), **result)


def hold(sides: tuple[Side, ...]) -> Any:
    """In place of one Ray for all runs: none."""
    return nullcontext()
