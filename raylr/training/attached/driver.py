"""All optimizers of a loop of one's own under one policy, on one clock."""

from collections.abc import Mapping

from torch.optim import Optimizer

from raylr.errors import ConfigError
from raylr.lr import Factors, Policy, Ramp
from raylr.torch_lr.drive import Driven, drive


class Driver:
    """Writes the LR of each update into all optimizers."""

    def __init__(self, optimizers: Mapping[str, Optimizer], policy: Policy, batches: int | Ramp) -> None:
        self._driven = {name: _driven(name, one, policy, batches, len(optimizers)) for name, one in optimizers.items()}
        self._policy = policy

    @property
    def policy(self) -> Policy:
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policy
        for driven in self._driven.values():
            driven.policy = policy

    @property
    def batches(self) -> Ramp:
        """The global batches over the run."""
        return next(iter(self._driven.values())).batches

    def batch_at(self, position: int) -> int:
        return self.batches.batch_at(position)

    def write(self, position: int, batch: int) -> dict[str, Factors]:
        """Write what the policy drives for the update at `position`, and return the factors of each LR by optimizer."""
        found: dict[str, Factors] = {}
        for driven in self._driven.values():
            driven.position = position
            found |= driven.write(batch)
        return found


def _driven(name: str, optimizer: Optimizer, policy: Policy, batches: int | Ramp, count: int) -> Driven:
    """One optimizer by the policy's of its name; one alone by what `raylr.drive` gives it."""
    if name in policy.optimizers:
        return drive(optimizer, policy, batches, name)
    if count > 1 and len(policy.optimizers) > 1:
        raise ConfigError(
            f"optimizers={name} is not in the policy, which has {', '.join(policy.optimizers)}; attach them as a dict by those "
            "names"
        )
    return drive(optimizer, policy, batches)
