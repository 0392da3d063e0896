"""What a user may set: the config tree of a run and of a population, and how YAML and flags become one."""

from raylr.config.run import (
    MODELS,
    TRACKERS,
    BatchConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    Duration,
    EvalConfig,
    FailureConfig,
    GroupConfig,
    GuardConfig,
    LossConfig,
    LRConfig,
    ModelConfig,
    OptimizerConfig,
    Scaling,
)

__all__ = [
    "MODELS",
    "TRACKERS",
    "BatchConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "Duration",
    "EvalConfig",
    "FailureConfig",
    "GroupConfig",
    "GuardConfig",
    "LRConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Scaling",
]
