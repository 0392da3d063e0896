"""A training loop of one's own under a policy: alone, under torchrun, or inside Ray Train.

>>> import tempfile
>>> import torch
>>> import raylr.loop
>>> policy = raylr.loop.policy(0.1, examples_per_epoch=1000, epochs=2, reference_batch=100, shape="cosine")
>>> model = torch.nn.Linear(4, 2)
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
>>> storage = tempfile.mkdtemp()  # of the run's folder; "runs" by default
>>> loop = raylr.loop.attach(
...     model=model, optimizers=optimizer, policy=policy, global_batch=100, name="first", storage=storage
... )
>>> for epoch in loop.epochs():
...     for inputs in loop.rest(torch.ones(10, 100, 4)):
...         loss = model(inputs).square().mean()
...         optimizer.zero_grad()
...         loss.backward()
...         loop.before_step()  # writes the LR of this update, and its row into the ledger
...         optimizer.step()
...     loop.report(loss=loss)  # keeps the metric and a checkpoint, and carries out orders
>>> loop.position, loop.step
(2000, 20)

There is no promise of equal bits here: how losses and gradients come about is the loop's own. What holds is the LR at every
position, whatever the number of ranks, and all that is read from the run's folder.
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylr.errors import ConfigError
from raylr.lr import Policy, Ramp

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from raylr.training.attached.loop import OwnLoop
    from raylr.training.attached.state import HasState
    from raylr.training.attached.surroundings import Surroundings

__all__ = ["attach", "policy"]


def attach(
    *,
    model: "nn.Module | Mapping[str, nn.Module]",
    optimizers: "Optimizer | Mapping[str, Optimizer]",
    policy: Policy | str | os.PathLike[str],
    global_batch: int | Ramp | None = None,
    per_worker_batch: int | None = None,
    others: "Mapping[str, HasState] | None" = None,
    name: str | None = None,
    storage: str | os.PathLike[str] = "runs",
    fresh: bool = False,
    keep: int = 3,
    rewarm: str = "1ep",
    fork: str | None = None,
    fork_at: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> "OwnLoop":
    """Let `policy` drive these optimizers, and return the loop, at the position where the run of this name stands.

    `model` and `optimizers` are one each, or dicts by name; several optimizers have the names of the policy's. A model may be
    wrapped by DistributedDataParallel or torch.compile. `others` are further things with a state, such as a GradScaler.

    `global_batch` is the examples of an update over all ranks, the clock of the policy: with it another number of ranks gets
    the same LR. `per_worker_batch` makes it follow the number of ranks, and the LR by the policy's scaling rule; after a
    growth the LR rises over `rewarm`.

    The run's folder is `storage`/`name` [the classes' names]; the newest `keep` checkpoints stay. `settings` are kept in its
    config.json. `fork` names another run of a loop, with whose state this one begins: its newest checkpoint, or the newest
    at or before `fork_at`, such as 3ep. From there it goes on under its own policy.

    Call it on every rank, once torch's process group is formed. Raises ConfigError, on every rank, for what cannot be
    attached.
    """
    from raylr.training.attached.begin import Wish, begin

    where = os.fspath(storage)
    wish = Wish(
        policy, global_batch, per_worker_batch, name, where, fresh, keep, rewarm, fork, fork_at, dict(settings or {})
    )
    return begin(model, optimizers, others or {}, wish, _surroundings())


def policy(
    base_lr: float,
    *,
    examples_per_epoch: int,
    epochs: float,
    reference_batch: int,
    shape: str = "cosine",
    warmup: str = "0ep",
    scaling: str = "none",
    optimizer: str = "optimizer",
) -> Policy:
    """Return the policy of one optimizer: base LR at the reference batch, warmup, shape, and the rule for other batches.

    `shape` and `warmup` are as `--lr.shape` and `--lr.warmup` have them; `scaling` is none, linear, sqrt, legw or sde.

    >>> policy(0.1, examples_per_epoch=1000, epochs=2, reference_batch=100, scaling="linear").lr(0, global_batch=200)
    0.2
    """
    from raylr.lr import Clock, Schedule, Warmup, examples, parse_shape
    from raylr.planning.lr import run_length

    if epochs <= 0:
        raise ConfigError(f"epochs={epochs} must be more than 0")
    clock = Clock(examples_per_epoch, run_length(epochs, examples_per_epoch), reference_batch)
    rise = Warmup(examples(warmup, clock, "warmup"))
    schedule = Schedule(base_lr, reference_batch, scaling, rise, parse_shape(shape, clock, "shape"))  # type: ignore[arg-type]
    return Policy(clock.examples_per_epoch, clock.total_examples, ((optimizer, schedule),))


def _surroundings() -> "Surroundings":
    """What the loop runs in: Ray Train where this process is one of its workers, else torch's group or nothing."""
    from raylr.training.attached.surroundings import Plain, given

    if (known := given()) is not None:
        return known
    if "ray.train" in sys.modules:
        from raylr.running.own_loop import InRayTrain, is_train_worker

        if is_train_worker():
            return InRayTrain()
    return Plain()
