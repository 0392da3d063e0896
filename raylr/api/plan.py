"""What `raylr train` would do, without doing it."""

from pathlib import Path
from typing import Literal

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy
from raylr.planning.facts import local_hardware
from raylr.planning.lr import GivenPolicy
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.ray_internals.features import features
from raylr.training.data import describe


def plan(config: Config) -> tuple[Plan, Policy]:
    """The resolved numbers and the LR policy of a run on this machine; nothing is downloaded, decoded or started.

    Raises ConfigError for a config that `raylr train` would refuse.
    """
    offered = features()
    return resolve(config, describe(config.data), local_hardware(), features=offered)


def plan_imported(
    config: Config, scheduler: str, step_unit: Literal["epoch", "update"] | None = None
) -> tuple[Plan, Policy]:
    """The same under the LR of a torch scheduler, `FILE.py:OBJECT`, over the config's own length and largest batch.

    `step_unit` says after what a loop steps it; by default what its class is documented for. Imports torch.
    """
    from raylr.torch_lr.importing import import_policy

    for field, given in (("policy", config.policy), ("stretch", config.stretch)):
        if given:
            raise ConfigError(
                f"{field} beside import={scheduler}, which makes a policy of its own; drop one of the two"
            )
    offered = features()
    dataset, hardware = describe(config.data), local_hardware()
    made, _ = resolve(config, dataset, hardware, features=offered)
    clock = Clock(made.num_train, made.total_examples, made.batch_at(made.workers[1]))
    policy = import_policy(scheduler, clock, step_unit)
    return resolve(config, dataset, hardware, GivenPolicy(f"import={scheduler}", policy), offered)


def save_policy(policy: Policy, path: Path) -> Path:
    """Write the policy as JSON that `policy=FILE` reads, and return the path."""
    try:
        path.write_text(policy.to_json(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"save={path} cannot be written ({error.strerror}); give another file") from None
    return path
