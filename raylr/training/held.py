"""Parameters that are held from a place in the run on: their optimizer's `until` has come, and they get no gradient any more.

Which are held follows from the position alone, so it is the same on all ranks, after a rollback and after a resume. What comes
before the first layer that still trains is not passed backwards, which is what holding it saves.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from raylr.planning.plan import OptimizerPlan


class Held:
    """The names of the optimizers whose parameters are held `now`, since the last call of `hold`."""

    def __init__(self, plans: Mapping[str, OptimizerPlan], optimizers: Mapping[str, Optimizer]) -> None:
        self.until = {name: plan.until for name, plan in plans.items() if plan.until is not None}
        self.parameters = {
            name: [one for group in optimizers[name].param_groups for one in group["params"]] for name in self.until
        }
        self.now: tuple[str, ...] = ()

    def at(self, position: int) -> tuple[str, ...]:
        """The names of the optimizers that are done at `position`."""
        return tuple(name for name, until in self.until.items() if position >= until)

    def hold(self, position: int) -> None:
        """Let those be held that are in the update at `position`, and all others train."""
        if (names := self.at(position)) == self.now:
            return
        self.now = names
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(name not in names)


def split_trained(parameters: list[Tensor], views: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The parameters that train, the views of those, and the views of the ones that are held."""
    trained = [(one, view) for one, view in zip(parameters, views, strict=True) if one.requires_grad]
    held = [view for one, view in zip(parameters, views, strict=True) if not one.requires_grad]
    return [one for one, _ in trained], [view for _, view in trained], held
