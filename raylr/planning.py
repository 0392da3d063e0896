"""What `raylr train` would do, without doing it."""

from raylr.config import Config
from raylr.lr import Policy
from raylr.resolve import local_hardware, resolve
from raylr.run_plan import Plan
from raylr.training.data import describe


def plan(config: Config) -> tuple[Plan, Policy]:
    """The resolved numbers and the LR policy of a run on this machine; nothing is downloaded, decoded or started.

    Raises ConfigError for a config that `raylr train` would refuse.
    """
    return resolve(config, describe(config.data), local_hardware())
