"""What `raylr train` would do, without doing it."""

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from raylr.config import Config
from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy
from raylr.planning.facts import local_hardware
from raylr.planning.lr import GivenPolicy, Part, parts_of, refuse_lr_beside
from raylr.planning.plan import Plan, Reason
from raylr.planning.resolve import resolve
from raylr.running.ray_internals.features import features
from raylr.training.own_parts import look_at_own_parts
from raylr.training.source import describe


def plan(config: Config | Mapping[str, Any] | str | PathLike[str]) -> tuple[Plan, Policy]:
    """The resolved numbers and the LR policy of a run on this machine; nothing is started.

    Of data, a URI is fetched and a dataset of one's own decoded, once: nothing else tells how many examples they hold.

    `config` may also be a dict, nested or with dotted keys, or the path of a YAML file. A model or a loss of one's own is
    tried on one micro-batch. Raises ConfigError for a config that `raylr train` would refuse.
    """
    config, offered = config_of(config), features()
    made, policy = resolve(config, describe(config), local_hardware(), features=offered)
    return look_at_own_parts(made), policy


def plan_imported(
    config: Config,
    scheduler: str,
    step_unit: Literal["epoch", "update", "fraction"] | None = None,
    for_drive: bool = False,
) -> tuple[Plan, Policy]:
    """The same under the LR of a scheduler, `FILE.py:OBJECT` or `FILE.yaml`, over the config's own length and largest batch.

    `step_unit` says after what a loop steps it; by default what its class is documented for. A scheduler of another
    optimizer than the run's is refused, but `for_drive`: then the plan tells of the policy alone, and a loop of one's
    own may follow it with `raylr.drive`. A function or a list drives the run's optimizers. Imports torch.
    """
    from raylr.torch_lr.importing import import_policy

    for field, given in (("policy", config.policy), ("stretch", config.stretch)):
        if given:
            raise ConfigError(
                f"{field} beside import={scheduler}, which makes a policy of its own; drop one of the two"
            )
    if config.batch.ramp is not None:
        raise ConfigError(
            f"batch.ramp={config.batch.ramp} beside import={scheduler}, whose steps have one size; --save the policy at one "
            "batch.global_size, and give it as --policy with the ramp"
        )
    offered = features()
    dataset, hardware = describe(config), local_hardware()
    made, _ = resolve(config, dataset, hardware, features=offered)
    look_at_own_parts(made)
    clock = Clock(made.num_train, made.total_examples, made.batch_at(made.workers[1]))
    parts = parts_of(config)
    with warnings.catch_warnings(record=True) as caught:
        policy = import_policy(scheduler, clock, step_unit, [(part.name, part.match) for part in parts])
    doubts = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    if is_for_drive(policy, parts):
        if not for_drive:
            raise ConfigError(
                f"import={scheduler} {_whose(policy, parts)}; give the optimizers that it was made for, or --save the "
                "policy for raylr.drive"
            )
        made = _for_drive(made, policy, parts, scheduler)
    else:
        made, policy = resolve(config, dataset, hardware, GivenPolicy(f"import={scheduler}", policy), offered)
    return made.model_copy(update={"warnings": (*made.warnings, *doubts)}), policy


def is_for_drive(policy: Policy, parts: list[Part]) -> bool:
    """Whether the policy is that of other optimizers than a run of these parts has."""
    return sorted(policy.optimizers) != sorted(part.name for part in parts)


def _whose(policy: Policy, parts: list[Part]) -> str:
    return f"sets the LR of {', '.join(policy.optimizers)} but the run has {', '.join(part.name for part in parts)}"


def _for_drive(made: Plan, policy: Policy, parts: list[Part], scheduler: str) -> Plan:
    """The plan's numbers with the story of the policy alone."""
    origin = f"import={scheduler}"
    refuse_lr_beside(parts, origin)
    story = [Reason(what="LR", value=f"policy {policy.sha256[:12]}", why=origin)]
    for name, schedule in policy.schedules:
        shape = schedule.shape.brief(made.num_train)
        story.append(Reason(what=f"{name} lr.shape", value=f"{schedule.base_lr:g} x {shape}", why=origin))
    warning = f"it {_whose(policy, parts)}: for raylr.drive in a loop of your own, and not for this run"
    return made.model_copy(update={"story": tuple(story), "warnings": (warning,)})


def save_policy(policy: Policy, path: Path) -> Path:
    """Write the policy as JSON that `policy=FILE` reads, and return the path."""
    try:
        path.write_text(policy.to_json(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"save={path} cannot be written ({error.strerror}); give another file") from None
    return path
