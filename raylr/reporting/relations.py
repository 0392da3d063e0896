"""What a run is to others: a trial of a population, or a fork of another run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylr.reporting.rows import DAMAGE
from raylr.storage import POPULATION_RESULT, Folder, population_of


@dataclass(frozen=True)
class Trial:
    """What a population's result says about one of its trials; None where it has no score."""

    population: str
    score_name: str
    score: float | None
    is_best: bool
    base: float | None = None  # factors on the LR: with which it began
    factor: float | None = None  # and that an exploit has given it


@dataclass(frozen=True)
class Parent:
    """Where a fork left which run, and what it changed."""

    run: str
    epoch: float
    step: int
    changes: tuple[str, ...]


def trial_of(folder: Folder) -> Trial | None:
    """What the population of a trial says about it; None for a run."""
    population = population_of(folder)
    if population is None:
        return None
    try:
        result = population.read_json(POPULATION_RESULT) if population.exists(POPULATION_RESULT) else {}
        own: dict[str, Any] = next((row for row in result.get("trials", []) if row.get("trial") == folder.name), {})
        score, settings = own.get("score"), own.get("settings") or {}
        told = (settings.get("base"), settings.get("lr"))
        name = str(result.get("score", "score"))
        return Trial(population.name, name, score, result.get("best") == folder.name, *told)
    except DAMAGE:
        return Trial(population.name, "score", None, False)


def parent_of(plan: Mapping[str, Any], examples_per_epoch: float) -> Parent | None:
    """Of a fork, from its plan; None for another run. Raises one of DAMAGE for a plan that does not tell it."""
    found = plan.get("parent")
    if not isinstance(found, dict):
        return None
    changes = tuple(map(str, found.get("changes") or ()))
    return Parent(str(found["run"]), float(found["position"]) / examples_per_epoch, int(found["step"]), changes)
