"""Distributed training on Ray whose learning rate and result depend on the policy, never on the cluster.

`import raylr` loads nothing else; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylr.config import Config
    from raylr.errors import ConfigError, RaylrError
    from raylr.lr import Policy
    from raylr.planning import plan
    from raylr.running.driver import RunResult, train
    from raylr.settings import load_config
    from raylr.training.checkpoint import load

_HOMES = {
    "Config": "raylr.config",
    "ConfigError": "raylr.errors",
    "Policy": "raylr.lr",
    "RaylrError": "raylr.errors",
    "RunResult": "raylr.running.driver",
    "load": "raylr.training.checkpoint",
    "load_config": "raylr.settings",
    "plan": "raylr.planning",
    "train": "raylr.running.driver",
}

__all__ = [
    "Config",
    "ConfigError",
    "Policy",
    "RaylrError",
    "RunResult",
    "load",
    "load_config",
    "plan",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raylr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
