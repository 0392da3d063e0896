"""The weights that a run with Schedule-Free shows in tests, exports and loads, beside those that its gradients are taken at.

Schedule-Free (Defazio et al. 2024, arXiv 2405.15682) keeps z and trains y = (1 - beta) z + beta x, where x is the average that
is tested. Going to x and back would bend the last bits of y, so x is computed of y and z in a copy, and y stays as it is: tests
change no bit. BatchNorm's statistics belong to the weights that made them: before each test those of x are taken anew, by
forward passes over the first micro-batches of the training stream, as the method's authors ask for.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raylr.planning.plan import Plan
from raylr.training.averaging import statistics_anew, statistics_in
from raylr.training.group import Group
from raylr.training.optimizer_state import State
from raylr.training.probe import untouched

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer

STATISTICS = "shown_statistics"


class Shown:
    """Has the shown weights in a trainer's model while it is tested. Its state is the statistics of the last test."""

    def __init__(self, plan: Plan, model: nn.Module) -> None:
        self.plan, self.parameters = plan, dict(model.named_parameters())
        self.statistics: dict[str, Any] = {}

    @contextmanager
    def in_place(self, trainer: "Trainer", group: Group, optimizers: Mapping[str, State]) -> Iterator[None]:
        """Have the shown weights in the model inside, in evaluation mode. Raises GroupBroken when a peer is gone."""
        with untouched(trainer):
            with torch.no_grad():
                for name, value in shown_weights(self.plan, self.parameters, optimizers).items():
                    self.parameters[name].copy_(value)
            statistics_anew(trainer, group)
            self.statistics = {"position": trainer.position, "values": statistics_in(trainer)}
            trainer.model.eval()
            yield

    def state(self) -> dict[str, Any]:
        return {STATISTICS: self.statistics}

    def load(self, state: Mapping[str, Any]) -> None:
        self.statistics = state.get(STATISTICS, {})


def is_shown(plan: Plan) -> bool:
    """Whether a run of the plan is tested with other weights than it trains."""
    return any(one.kind == "schedule-free" for one in plan.optimizers.values())


@torch.no_grad()
def shown_weights(plan: Plan, weights: Mapping[str, Tensor], optimizers: Mapping[str, State]) -> dict[str, Tensor]:
    """x of each parameter that Schedule-Free has moved, by name: y + (1 - 1 / beta) (z - y)."""
    return {
        name: weights[name].lerp(kept["z"].to(weights[name].device), 1 - 1 / plan.optimizers[key].beta1)
        for key, state in optimizers.items()
        if plan.optimizers[key].kind == "schedule-free"
        for name, kept in state.items()
        if "z" in kept
    }


def taken_over(plan: Plan, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint with which another run may begin: the shown ones, else those in the model."""
    found = shown(plan, state)
    return found or {**state["model"], **shown_weights(plan, state["model"], state["optimizers"])}


def shown(plan: Plan, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The shown weights in a checkpoint as a model takes them; None where BatchNorm's statistics are of a test elsewhere."""
    statistics = state.get(STATISTICS, {})
    values = statistics.get("values", {})
    if values and statistics["position"] != state["position"]:
        return None
    return {**state["model"], **shown_weights(plan, state["model"], state["optimizers"]), **values}
