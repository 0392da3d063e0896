"""Distributed training on Ray whose learning rate and result depend on the policy, never on the cluster.

`import raylr` loads nothing else; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylr.api.advise import advise
    from raylr.api.batch_study import batch_study
    from raylr.api.compare import compare
    from raylr.api.compare_start import compare_start
    from raylr.api.explore import explore
    from raylr.api.find_lr import find_lr
    from raylr.api.fork import extend, fork
    from raylr.api.look import explain, report
    from raylr.api.plan import plan
    from raylr.api.race import race
    from raylr.api.refine import refine
    from raylr.api.study import study
    from raylr.api.train import train
    from raylr.config import Config
    from raylr.config.load import load_config
    from raylr.config.population import PopulationConfig
    from raylr.errors import ConfigError, RaylrError
    from raylr.lr import Policy, Ramp
    from raylr.running.driver import RunResult
    from raylr.running.population.driver import PopulationResult
    from raylr.running.verify import Verified, verify
    from raylr.torch_lr.drive import drive
    from raylr.torch_lr.importing import policy_from_scheduler
    from raylr.torch_lr.scheduler import scheduler
    from raylr.training.task import Task
    from raylr.training.trained import Evaluation, evaluate, export, load

    __version__: str

_HOMES = {
    "Config": "raylr.config",
    "ConfigError": "raylr.errors",
    "Evaluation": "raylr.training.trained",
    "Policy": "raylr.lr",
    "Ramp": "raylr.lr",
    "PopulationConfig": "raylr.config.population",
    "PopulationResult": "raylr.running.population.driver",
    "RaylrError": "raylr.errors",
    "RunResult": "raylr.running.driver",
    "Task": "raylr.training.task",
    "Verified": "raylr.running.verify",
    "batch_study": "raylr.api.batch_study",
    "compare": "raylr.api.compare",
    "drive": "raylr.torch_lr.drive",
    "evaluate": "raylr.training.trained",
    "explain": "raylr.api.look",
    "explore": "raylr.api.explore",
    "export": "raylr.training.trained",
    "extend": "raylr.api.fork",
    "advise": "raylr.api.advise",
    "find_lr": "raylr.api.find_lr",
    "fork": "raylr.api.fork",
    "load": "raylr.training.trained",
    "load_config": "raylr.config.load",
    "plan": "raylr.api.plan",
    "policy_from_scheduler": "raylr.torch_lr.importing",
    "race": "raylr.api.race",
    "refine": "raylr.api.refine",
    "report": "raylr.api.look",
    "scheduler": "raylr.torch_lr.scheduler",
    "compare_start": "raylr.api.compare_start",
    "study": "raylr.api.study",
    "train": "raylr.api.train",
    "verify": "raylr.running.verify",
}

__all__ = [
    "Config",
    "ConfigError",
    "Evaluation",
    "Policy",
    "PopulationConfig",
    "PopulationResult",
    "Ramp",
    "RaylrError",
    "RunResult",
    "Task",
    "Verified",
    "advise",
    "batch_study",
    "compare",
    "compare_start",
    "drive",
    "evaluate",
    "explain",
    "explore",
    "export",
    "extend",
    "find_lr",
    "fork",
    "load",
    "load_config",
    "plan",
    "policy_from_scheduler",
    "race",
    "refine",
    "report",
    "scheduler",
    "study",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("raylr")
    if name not in _HOMES:
        raise AttributeError(f"module 'raylr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
