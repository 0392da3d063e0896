"""A policy as a plain torch LR scheduler, for loops that want one: Lightning, Accelerate, Transformers' Trainer.

>>> import torch
>>> from raylr.lr import Clock, Policy, Schedule, Warmup, parse_shape
>>> clock = Clock(examples_per_epoch=1000, total_examples=3000, global_batch=100)
>>> shape = parse_shape("step(every=1ep, gamma=0.5)", clock)
>>> policy = Policy(1000, 3000, (("sgd", Schedule(0.1, 100, "linear", Warmup(200), shape)),))
>>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.0)
>>> following = scheduler(optimizer, policy, global_batch=100)
>>> lrs = []
>>> for _ in range(30):
...     lrs.append(following.get_last_lr()[0])
...     optimizer.step()
...     following.step()  # after each update
>>> lrs[0], lrs[1], lrs[9], lrs[10], lrs[29], following.position
(0.05, 0.1, 0.1, 0.05, 0.025, 3000)
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from raylr.errors import ConfigError
from raylr.lr import Policy, Ramp
from raylr.torch_lr.drive import Driven


def scheduler(
    optimizer: Optimizer,
    policy: Policy,
    global_batch: int | Ramp,
    name: str | None = None,
    *,
    step_unit: Literal["update", "epoch"] = "update",
    calls_per_update: int = 1,
    last_epoch: int = -1,
) -> "PolicyLR":
    """Return a torch LRScheduler that gives `optimizer` the LR (and momentum) of `policy`.

    `global_batch` is the number of examples of an update over all ranks and accumulated parts, or a `Ramp`; the groups and
    `name` are as in `raylr.drive`. Call `step()` after each update, or with `step_unit="epoch"` after each epoch; then the LR
    holds for one. `calls_per_update` is for loops that call it more often: a scheduler that Accelerate has prepared is
    stepped once per process and update. `last_epoch` is torch's: the count of calls to go on after.
    """
    if calls_per_update < 1:
        raise ConfigError(f"calls_per_update={calls_per_update} must be at least 1")
    if step_unit not in ("update", "epoch"):
        raise ConfigError(f"step_unit={step_unit} is unknown; use update or epoch")
    return PolicyLR(Driven(optimizer, policy, global_batch, name), step_unit, calls_per_update, last_epoch)


class PolicyLR(LRScheduler):
    """Torch's LRScheduler of a policy, as `raylr.scheduler` makes it. Its count is `last_epoch`, as in all of torch's.

    The LR is written with every step and never read back, nor saved: a state has the position and the overrides.
    """

    def __init__(self, driven: Driven, step_unit: str, calls_per_update: int, last_epoch: int) -> None:
        self.driven, self.step_unit, self.calls_per_update = driven, step_unit, calls_per_update
        self._since = (0, 0)  # a count of calls, and the position there
        if last_epoch >= 0:
            for group in driven.optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])  # torch asks for it, and nothing here reads it
        super().__init__(driven.optimizer, last_epoch)

    @property
    def policy(self) -> Policy:
        """The policy, which may be replaced at any time, say by `policy.with_overrides(...)`."""
        return self.driven.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.driven.policy = policy

    @property
    def position(self) -> int:
        """The examples consumed before the update to come, by the count of calls."""
        since, position = self._since
        calls = self.last_epoch - since
        if self.step_unit == "epoch":
            return position + calls * self.policy.examples_per_epoch
        return self.driven.batches.after(position, calls // self.calls_per_update)

    def get_lr(self) -> list[Any]:
        """Write what the policy drives for the update to come, and return the LR of each param group."""
        self.driven.position = self.position
        self.driven.write(self.driven.global_batch)
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        return [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the count, the position, the overrides and the policy's SHA-256, as plain data."""
        self.driven.position = self.position
        return {**self.driven.state_dict(), "last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, also at another batch; writes the LR. ConfigError for another policy."""
        self.driven.load_state_dict(state)
        self.last_epoch, self._step_count = state["last_epoch"], state["_step_count"]
        self._since = (self.last_epoch, self.driven.position)
        self._last_lr = self.get_lr()
