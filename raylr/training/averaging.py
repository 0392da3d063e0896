"""An average of the weights beside the plain ones, which it leaves as they are.

`ema(d)`: after update n the average is that of all weights so far, those of k updates ago with weight d^k, over the sum of
these weights (the bias correction of Adam, Kingma and Ba 2015, arXiv 1412.6980), so it does not remember the initialisation.
`last(w)`: the mean of the weights at the last five multiples of w / 5 (LAWA, Kaddour 2022, arXiv 2209.14981). Both follow from
the updates alone, so they are equal on all ranks and at every world size.

BatchNorm's statistics belong to the weights that made them: those of the average are computed anew before each test, by forward
passes over the first micro-batches of the training stream, as in SWA (Izmailov et al. 2018, arXiv 1803.05407, section 3.2).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raylr.planning.averaging import COLUMNS, SAMPLES
from raylr.planning.plan import AveragePlan
from raylr.training.group import Group
from raylr.training.probe import untouched
from raylr.training.reduce import micro_batches_of
from raylr.training.scores import Scores
from raylr.training.seeding import seed_generators
from raylr.training.stream import examples_at, micro_batch_seed

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer

PASSES = 32  # micro-batches over which BatchNorm's statistics are taken

Weights = dict[str, Tensor]


class Average:
    """The average of a model's parameters. Its state is part of the run's state."""

    def __init__(self, plan: AveragePlan, model: nn.Module) -> None:
        self.plan = plan
        self.parameters: Weights = dict(model.named_parameters())
        self.begin()

    def begin(self) -> None:
        """Begin anew, with nothing averaged."""
        self.rest = 1.0  # d^n after n updates
        self.parts: list[Weights] = []
        self.statistics: dict[str, Any] = {}

    @torch.no_grad()
    def take(self, before: int, position: int) -> None:
        """Take in the weights after the update that went from the position `before` to `position`."""
        decay, every = self.plan.decay, self.plan.every
        if decay is None:
            if position // every > before // every:
                self.parts = [*self.parts, self._copy(self.parameters)][-SAMPLES:]
            return
        if not self.parts:
            self.parts = [self._copy(self.parameters)]
        self.rest *= decay
        weight = (1 - decay) / (1 - self.rest)
        torch._foreach_lerp_(list(self.parts[0].values()), list(self.parameters.values()), weight)

    def state(self) -> dict[str, Any]:
        """The average as tensors and plain data that later updates leave alone."""
        parts = [self._copy(part) for part in self.parts] if self.plan.decay is not None else self.parts
        average = {"text": self.plan.text, "rest": self.rest, "parts": parts}
        return {"average": average, "average_statistics": self.statistics}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave. A state without an average, or with another kind of one, lets it begin here."""
        self.begin()
        found = state.get("average", {})
        if found.get("text") != self.plan.text:
            return
        self.rest, self.statistics = found["rest"], state["average_statistics"]
        self.parts = [
            {name: part[name].detach().clone().to(one.device) for name, one in self.parameters.items()}
            for part in found["parts"]
        ]

    @contextmanager
    def in_place(self, trainer: "Trainer", group: Group) -> Iterator[None]:
        """Have the average in the trainer's model inside, in evaluation mode. Raises GroupBroken when a peer is gone."""
        with untouched(trainer):
            if self.parts:
                with torch.no_grad():
                    torch._foreach_copy_(list(self.parameters.values()), list(mean_of(self.parts).values()))
                statistics_anew(trainer, group)
            self.statistics = {"position": trainer.position, "values": statistics_in(trainer)}
            trainer.model.eval()
            yield

    @staticmethod
    def _copy(weights: Mapping[str, Tensor]) -> Weights:
        return {name: one.detach().clone() for name, one in weights.items()}


@torch.no_grad()
def mean_of(parts: Sequence[Mapping[str, Tensor]]) -> Weights:
    """The mean of several weights by name, one after another."""
    mean = Average._copy(parts[0])
    for number, part in enumerate(parts[1:], 2):
        torch._foreach_lerp_(list(mean.values()), [part[name] for name in mean], 1 / number)
    return mean


def statistics_in(trainer: "Trainer") -> dict[str, Tensor]:
    """A copy of BatchNorm's statistics that are in the model, by name."""
    buffers = {id(buffer) for buffer in trainer.statistics.buffers()}
    return {name: one.clone() for name, one in trainer.model.named_buffers() if id(one) in buffers}


def statistics_anew(trainer: "Trainer", group: Group) -> None:
    """Put BatchNorm's statistics of the weights into the modules: means over fixed micro-batches, dealt to the ranks."""
    if not trainer.statistics.length:
        return
    plan = trainer.plan
    count = max(1, min(PASSES, plan.num_train // plan.micro_size))
    table = torch.zeros(count, trainer.statistics.length, device=trainer.device)
    trainer.to_training(trainer.model)
    for index in micro_batches_of(group.group_rank, group.size, count):
        seed_generators(trainer.device, micro_batch_seed(plan.seed, 0, index))
        examples = examples_at(plan.seed, index * plan.micro_size, plan.micro_size, plan.num_train)
        table[index] = trainer.statistics_of(*examples)
    group.all_reduce(table)()
    group.check()
    buffers = trainer.statistics.buffers()
    for buffer, value in zip(buffers, table.mean(0).split([one.numel() for one in buffers]), strict=True):
        buffer.copy_(value)


def averaged(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The average in a checkpoint as a model takes it; None where there is none, or none that was tested there."""
    if "average" not in state or state["average_statistics"].get("position") != state["position"]:
        return None
    parts = state["average"]["parts"]
    return {**state["model"], **(mean_of(parts) if parts else {}), **state["average_statistics"]["values"]}


def beside(plain: Scores, average: Scores) -> Scores:
    """The scores of the plain weights, and as further columns those of their average."""
    found = {"loss": average.loss, "accuracy": average.accuracy}
    found |= {name.removeprefix("test_"): value for name, value in average.own.items()}
    own = {f"{COLUMNS}{name}": value for name, value in found.items() if value is not None}
    return replace(plain, own={**plain.own, **own})
