"""Drive any torch optimizer by a policy, in a training loop of one's own.

The LR is written before every update and never read back, so a resumed loop, another batch or an LR that a loaded
optimizer brought along cannot bend the curve.

>>> import torch
>>> from raylr.lr import Policy, Schedule, Warmup, parse_shape, Clock
>>> clock = Clock(examples_per_epoch=1000, total_examples=3000, global_batch=100)
>>> shape = parse_shape("step(every=1ep, gamma=0.5)", clock)
>>> policy = Policy(1000, 3000, (("sgd", Schedule(0.1, 100, "linear", Warmup(200), shape)),))
>>> model = torch.nn.Linear(4, 2)
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
>>> driven = drive(optimizer, policy, global_batch=100)
>>> lrs = []
>>> for images in torch.zeros(30, 100, 4):
...     optimizer.zero_grad()
...     model(images).sum().backward()
...     driven.before_step()  # in place of scheduler.step(): before each update
...     optimizer.step()
...     lrs.append(optimizer.param_groups[0]["lr"])
>>> lrs[0], lrs[1], lrs[9], lrs[10], lrs[29], driven.position
(0.05, 0.1, 0.1, 0.05, 0.025, 3000)
"""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from raylr.errors import ConfigError
from raylr.lr import Factors, Override, Policy, Ramp, Schedule, ramp_of_policy
from raylr.torch_lr.write import write_lr


def drive(optimizer: Optimizer, policy: Policy, global_batch: int | Ramp, name: str | None = None) -> "Driven":
    """Let `policy` drive `optimizer` from the start of a run of `global_batch` examples per update, over all ranks.

    A `Ramp`, such as `raylr.Ramp.parse("128 for 2ep, 256", policy)`, makes the batch follow the position, and so does a policy
    whose shape is a seesaw, from `global_batch` on: take `driven.global_batch` examples for the next update.

    All param groups get the LR of the policy's one optimizer, or of that called `name`. A policy of as many optimizers
    as there are param groups drives each group by its own, in their order. ConfigError where neither fits, or where the
    policy drives a momentum or betas that the optimizer does not have.
    """
    return Driven(optimizer, policy, global_batch, name)


class Driven:
    """An optimizer whose LR a policy sets. `position` is the number of examples of all updates begun so far.

    `policy` may be replaced at any time, say by `policy.with_overrides(...)`.
    """

    def __init__(self, optimizer: Optimizer, policy: Policy, global_batch: int | Ramp, name: str | None) -> None:
        self.optimizer, self.policy, self.position = optimizer, policy, 0
        self.batches = _batches(policy, global_batch)
        self._names = _names(optimizer, policy, name)
        for schedule, group in zip(map(policy.schedule, self._names), optimizer.param_groups, strict=True):
            _check(schedule, group, type(optimizer).__name__)

    @property
    def global_batch(self) -> int:
        """The examples of the update to come."""
        return self.batches.batch_at(self.position)

    @global_batch.setter
    def global_batch(self, batch: int) -> None:
        self.batches = Ramp.of(batch)

    def before_step(self, global_batch: int | None = None) -> None:
        """Write the LR (and the momentum or betas that the policy drives) of the update to come, and move on.

        `global_batch` is for an update of another size than the usual, such as a smaller last one.
        """
        batch = global_batch or self.global_batch
        self.write(batch)
        self.position += batch

    def write(self, batch: int) -> dict[str, Factors]:
        """Write what the policy drives for an update of `batch` examples here, and return the factors of each LR by name."""
        return {
            name: write_lr(group, self.optimizer.defaults, self.policy, self.position, batch, name)
            for name, group in zip(self._names, self.optimizer.param_groups, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """The position and the overrides: an LR is never saved."""
        overrides = [vars(entry).copy() for entry in self.policy.overrides]
        return {"position": self.position, "overrides": overrides, "policy_sha256": self.policy.sha256}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, before or after the optimizer's own is loaded; ConfigError for another policy."""
        if state["policy_sha256"] != self.policy.sha256:
            raise ConfigError(
                f"policy_sha256={state['policy_sha256'][:12]} of the saved state is not that of this policy, "
                f"{self.policy.sha256[:12]}; drive with the policy that the state was saved with"
            )
        entries = tuple(Override(**entry) for entry in state["overrides"])
        policy = self.policy
        self.policy = Policy(policy.examples_per_epoch, policy.total_examples, policy.schedules, entries)
        self.position = state["position"]


def _batches(policy: Policy, given: int | Ramp) -> Ramp:
    """The batches of a loop. Raises ConfigError where a ramp and a seesaw would both set them."""
    traded = ramp_of_policy(policy, Ramp.of(given).sizes[0])
    if traded is not None and len(Ramp.of(given).sizes) > 1:
        raise ConfigError(
            "global_batch=a ramp beside a policy whose shape is a seesaw, which sets the batch too; give its first"
        )
    return traded or Ramp.of(given)


def _names(optimizer: Optimizer, policy: Policy, name: str | None) -> list[str]:
    """The policy's optimizer for each param group."""
    num_groups = len(optimizer.param_groups)
    if name is not None or len(policy.optimizers) == 1:
        policy.schedule(name)  # refuses a name that is not there
        return [name or policy.optimizers[0]] * num_groups
    if len(policy.optimizers) != num_groups:
        raise ConfigError(
            f"the policy has several optimizers, {', '.join(policy.optimizers)}, and the optimizer to drive "
            f"{num_groups} param groups; name one, or give a param group for each"
        )
    return list(policy.optimizers)


def _check(schedule: Schedule, group: Mapping[str, Any], optimizer: str) -> None:
    if schedule.momentum and "momentum" not in group and "betas" not in group:
        raise ConfigError(
            f"the policy drives a momentum and {optimizer} has none; use a policy without, or SGD or Adam"
        )
    if schedule.scaling == "adascale":
        raise ConfigError("lr.scaling=adascale follows what a run of raylr measures; use linear or sqrt in a loop")
    if schedule.scaling == "sde" and "betas" not in group and "alpha" not in group:
        raise ConfigError(f"lr.scaling=sde changes betas and eps, which {optimizer} does not have; use linear or sqrt")
