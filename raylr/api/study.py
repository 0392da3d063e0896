"""`raylr.study`: the best LR, and the best floor of its decay, against the width of a model and the amount of data.

A grid of runs with seeds, judged by the loss on a validation split, all on one Ray. Each run is named by its content and its
seed: the same call goes on, trains none twice, and takes those of a smaller grid as they are. With `transfers` the rule that
carries an LR over to another width (`model.transfer`) is tried beside none: where it holds, the best LR is the same everywhere.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

from raylr.api.compare import Hold, Runs, one_ray, quietly
from raylr.api.seeds import mean, spread
from raylr.api.sides import Side, side_of
from raylr.api.train import Train
from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr.range_test import parabola_top
from raylr.planning.defaults import tuned_for
from raylr.planning.lr import parts_of
from raylr.storage import finite

NAME = "study"
VALIDATION = 0.2  # of the training images, where the config holds none out
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the LR, where none are given
TRANSFERS = ("none", "completep")


@dataclass(frozen=True)
class Place:
    """One setting of the model and its data: what is trained at it is judged against each other."""

    transfer: str
    width: float
    examples: int | None  # training images; None is as the config has it


@dataclass(frozen=True)
class Cell:
    """One point of the grid: the mean loss and accuracy on the validation split over the seeds, and the loss of each.

    None where a run has failed or its loss is no number.
    """

    place: Place
    lr: float
    decay: float | None  # share of the peak at the end; None is as the config has it
    losses: tuple[float | None, ...]
    accuracies: tuple[float | None, ...]

    @property
    def loss(self) -> float:
        """The mean over the seeds; infinite where one has none."""
        known = mean(self.losses)
        return math.inf if known is None else known

    @property
    def spread(self) -> float | None:
        """The standard deviation of the loss between seeds; None of one seed, or where one has no loss."""
        return spread(self.losses)

    @property
    def accuracy(self) -> float | None:
        """The mean over the seeds."""
        return mean(self.accuracies)

    def row(self) -> dict[str, Any]:
        """The cell as plain data."""
        numbers = {"loss": finite(self.loss), "spread": self.spread, "accuracy": self.accuracy}
        return {**vars(self.place), "lr": self.lr, "decay": self.decay, **numbers, "losses": list(self.losses)}


@dataclass(frozen=True)
class Best:
    """What is best at a place: the cell of the grid, the bottom of a parabola in log LR through it, what the best setting of
    the base width would have cost there, and whether the grid ends at the best LR."""

    cell: Cell
    lr: float
    base_width: float  # 1, or the first of the widths
    regret: float | None  # loss with the best LR and decay of the base width, less the best loss; None at that width
    at_end: bool

    def row(self) -> dict[str, Any]:
        """The best as plain data."""
        found = {"grid_lr": self.cell.lr, "lr": self.lr, "base_width": self.base_width, "regret": self.regret}
        return {**self.cell.row(), **found, "at_end": self.at_end}


@dataclass(frozen=True)
class Found:
    """What was found at a place: its cells, and the best; None where no run has a loss."""

    place: Place
    cells: tuple[Cell, ...]
    best: Best | None


@dataclass(frozen=True)
class Study:
    """The cells of a grid, the reference batch of their LRs, and the runs that gave them."""

    cells: tuple[Cell, ...]
    reference_batch: int
    seeds: int
    runs: tuple[str, ...]
    num_trained: int

    @property
    def places(self) -> tuple[Place, ...]:
        """The places in their order."""
        return tuple(dict.fromkeys(cell.place for cell in self.cells))

    @property
    def answers(self) -> tuple[Found, ...]:
        """What was found at each place."""
        return tuple(Found(place, tuple(self.at(place)), self.best(place)) for place in self.places)

    def at(self, place: Place) -> list[Cell]:
        """The cells of a place."""
        return [cell for cell in self.cells if cell.place == place]

    def best(self, place: Place) -> Best | None:
        """What is best there; None where no run has a loss."""
        cell = min(self.at(place), key=lambda one: one.loss)
        if not math.isfinite(cell.loss):
            return None
        beside = sorted((one for one in self.at(place) if one.decay == cell.decay), key=lambda one: one.lr)
        lr, index = parabola_top([one.lr for one in beside], [one.loss for one in beside]), beside.index(cell)
        others = [one for one in self.places if (one.transfer, one.examples) == (place.transfer, place.examples)]
        base = next((one for one in others if one.width == 1.0), others[0])
        return Best(cell, lr, base.width, self._regret(base, place, cell), index in (0, len(beside) - 1))

    def _regret(self, base: Place, place: Place, best: Cell) -> float | None:
        """What the best setting of the base width costs at a place."""
        if place == base:
            return None
        there = min(self.at(base), key=lambda one: one.loss)
        same = next(one for one in self.at(place) if (one.lr, one.decay) == (there.lr, there.decay))
        return same.loss - best.loss if math.isfinite(same.loss) and math.isfinite(there.loss) else None

    def row(self) -> dict[str, Any]:
        """The study as plain data."""
        return {
            "cells": [cell.row() for cell in self.cells],
            "best": [one.best.row() for one in self.answers if one.best is not None],
            "reference_batch": self.reference_batch,
            "seeds": self.seeds,
            "runs": list(self.runs),
            "runs_trained": self.num_trained,
        }


def study(
    config: Config | None = None,
    widths: Sequence[float] = (1.0,),
    lrs: Sequence[float] = (),
    examples: Sequence[int] = (),
    decays: Sequence[float] = (),
    transfers: Sequence[str] = ("none",),
    seeds: int = 2,
    train: Train | None = None,
    tell: Callable[[Cell], None] | None = None,
    hold: Hold | None = None,
) -> Study:
    """Train a grid of widths (`model.width`), LRs (`lr.base`), amounts of data and floors of a linear decay, with seeds.

    Without `lrs` five around the config's LR, a factor of 2 apart. `examples` are images trained on, beside those held out
    (`data.validation`, a fifth where the config says nothing); a run has the same number of epochs of each. A decay is the
    share of the peak LR at the end of `linear`. At width 1 a rule changes nothing, and its runs are those without it.

    Raises ConfigError for a grid that is none, or that model or data do not take; KeyboardInterrupt where a run was stopped:
    the same call goes on.
    """
    config = judged(config or Config())
    (part, *others) = parts_of(config)
    if others or part.prefix:
        raise ConfigError(
            f"optimizers={', '.join(config.optimizers)}: a study has one LR, lr.base; use optimizer alone"
        )
    if config.policy is not None:
        raise ConfigError(f"policy={config.policy} sets the LR, which a study varies; use lr.shape")
    if config.task.name is not None:
        raise ConfigError(f"task={config.task.name} beside a study, which varies the width of a network for images")
    tuned = tuned_for(part.optimizer.name, part.lr, 1)
    lrs = lrs or tuple(times * (config.lr.base or tuned.base_lr) for times in MULTIPLES)
    _check(widths, lrs, examples, decays, transfers, seeds)
    grid = [
        (Place(transfer, width, count), lr, decay)
        for transfer, count, width, lr, decay in product(
            transfers, examples or (None,), widths, sorted(lrs), decays or (None,)
        )
    ]
    sides = {point: _side(config, *point) for point in grid}
    with ExitStack() as stack:
        every = tuple(sides.values())
        runs = Runs(every, lambda: stack.enter_context((hold or one_ray)(every)), False, train or quietly)
        cells, folders = [], []
        for (place, lr, decay), side in sides.items():
            results = [runs.result(side, seed) for seed in range(config.seed, config.seed + seeds)]
            folders += [result.run_dir for result in results]
            found = [result.model_dump() for result in results]
            losses, accuracies = (
                tuple(_known(one, f"validation_{name}") for one in found) for name in ("loss", "accuracy")
            )
            cells.append(Cell(place, lr, decay, losses, accuracies))
            if tell is not None:
                tell(cells[-1])
    reference = config.lr.reference_batch or tuned.reference_batch
    return Study(tuple(cells), reference, seeds, tuple(dict.fromkeys(folders)), runs.num_trained)


def judged(config: Config) -> Config:
    """The config with the validation split that runs are judged by. ConfigError where it has none."""
    if config.data.validation == 0:
        raise ConfigError("data.validation=0 leaves nothing to judge by but test images; use 0.2, or leave it out")
    return config.held_out(VALIDATION)


def _known(result: dict[str, Any], name: str) -> float | None:
    return finite(result.get(name)) if result["status"] == "complete" else None


def _check(
    widths: Sequence[float], lrs: Sequence[float], examples: Sequence[int], decays: Sequence[float],
    transfers: Sequence[str], seeds: int,
) -> None:  # fmt: skip
    for name, values, good, advice in _rules(widths, lrs, examples, decays):
        if (wrong := next((one for one in values if not good(one)), None)) is not None:
            raise ConfigError(f"{name}={wrong:g} {advice}")
        if len(set(values)) < len(values):
            raise ConfigError(f"{name}={','.join(f'{one:g}' for one in values)} has one twice; give each once")
    if not widths:
        raise ConfigError("widths= names none; use 0.5,1,2")
    if unknown := next((one for one in transfers if one not in TRANSFERS), None):
        raise ConfigError(f"transfer={unknown} is not known; use {' or '.join(TRANSFERS)}")
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} must be 1 or more; use 2")


def _rules(
    widths: Sequence[float], lrs: Sequence[float], examples: Sequence[int], decays: Sequence[float]
) -> Iterator[tuple[str, Sequence[float], Callable[[float], bool], str]]:
    yield "widths", widths, lambda one: 0 < one <= 16, "is no width; use from above 0 to 16, such as 0.5,1,2"
    yield "lrs", lrs, lambda one: 0 < one < math.inf, "is no LR; use numbers above 0, such as 0.1,0.2,0.4"
    yield "examples", examples, lambda one: one > 0, "is no number of images; use 1000,5000"
    yield "decays", decays, lambda one: 0 <= one <= 1, "is no share of the peak; use 0 to 1, such as 0,0.1"


def _side(config: Config, place: Place, lr: float, decay: float | None) -> Side:
    """The run of a point of the grid, whose seed is left to choose."""
    given = config.model_dump(exclude_unset=True)
    data = given["data"]
    if place.examples is not None:
        data["train_examples"] = math.ceil(place.examples / (1 - data["validation"]))
    transfer = place.transfer if place.width != 1.0 else "none"
    shape = {} if decay is None else {"shape": "constant" if decay == 1 else f"linear(floor={decay:g})"}
    return side_of(
        NAME,
        NAME,
        Config(
            **{
                **given,
                "name": NAME,
                "data": data,
                "model": {**given.get("model", {}), "width": place.width, "transfer": transfer},
                "lr": {**given.get("lr", {}), "base": lr, **shape},
                "checkpoint": {"every": "1dur", "keep": 1, **given.get("checkpoint", {})},
                "eval": {"every": "1dur", **given.get("eval", {})},
                "trackers": given.get("trackers", "none"),
            }
        ),
    )
