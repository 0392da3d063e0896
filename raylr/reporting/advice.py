"""Advice on a warmup in words: the answer, what was tried, the LR that the start bears, and what the Hessian says beside it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from raylr.lr.stability import BEARABLE, LIMIT


class BoundFacts(Protocol):
    """What the sharpness says of an update."""

    @property
    def step(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def eigenvalue(self) -> float | None: ...
    @property
    def edge(self) -> float | None: ...


class ArmFacts(Protocol):
    """A warmup that was tried."""

    @property
    def warmup(self) -> int: ...
    @property
    def start(self) -> str: ...
    @property
    def headrooms(self) -> Sequence[float | None]: ...
    @property
    def losses(self) -> Sequence[float | None]: ...
    @property
    def bounds(self) -> Sequence[BoundFacts]: ...
    @property
    def highest(self) -> float: ...
    @property
    def is_calm(self) -> bool: ...


class Facts(Protocol):
    """What is told of an advice."""

    @property
    def arms(self) -> Sequence[ArmFacts]: ...
    @property
    def batch(self) -> int: ...
    @property
    def seeds(self) -> int: ...
    @property
    def peaks(self) -> Mapping[str, float]: ...
    @property
    def planned(self) -> int: ...
    @property
    def changes(self) -> Mapping[str, str]: ...
    @property
    def needed(self) -> bool: ...
    @property
    def chosen(self) -> ArmFacts | None: ...
    @property
    def critical_lr(self) -> Mapping[str, float] | None: ...
    @property
    def bearable(self) -> Mapping[str, float] | None: ...


def lines(found: Facts, products: int) -> Iterator[str]:
    """The advice with its evidence; `products` is what an eigenvalue was given at most."""
    yield _answer(found)
    yield _changes(found)
    yield f"evidence, {found.seeds} seeds at a batch of {found.batch}:"
    for arm in found.arms:
        yield f"  {_arm(arm)}"
    if (first := found.arms[0].headrooms[0]) is not None and found.critical_lr and found.bearable:
        for name, peak in found.peaks.items():
            yield (
                f"  first update of {name}: the critical LR is {found.critical_lr[name]:.3g}, and the peak of {peak:.3g} is "
                f"{first:.2g} of it; good runs began with {found.bearable[name]:.3g} ({BEARABLE:g} of it) at most"
            )
    for arm in found.arms:
        for bound in arm.bounds:
            yield f"  {_bound(arm, bound, products)}"


def _answer(found: Facts) -> str:
    if not found.needed:
        return f"no warmup is needed: without one the headroom stays at {found.arms[0].highest:.2g}, and {LIMIT:g} is too high"
    if found.chosen is None:
        return (
            f"a warmup is needed, and {found.arms[-1].warmup} updates of it are not enough: use more --updates, or a lower LR "
            "(`raylr find-lr`)"
        )
    arm = found.chosen
    start = "the base LR" if arm.start == "base" else "zero"
    return f"a warmup of {arm.warmup} updates = {arm.warmup * found.batch:,} examples is needed, from {start}"


def _changes(found: Facts) -> str:
    has = "no warmup" if found.planned == 0 else f"a warmup of {found.planned} updates"
    if found.chosen is None:
        return f"would change nothing: the config has {has}"
    if not found.changes:
        return f"would change nothing: the config has {has} already"
    return f"would change {', '.join(f'{key}={value}' for key, value in found.changes.items())}: the config has {has}"


def _arm(arm: ArmFacts) -> str:
    name = f"warmup of {arm.warmup} updates" if arm.warmup else "no warmup"
    if math.isinf(arm.highest):
        place = next(step for step, loss in enumerate(arm.headrooms) if loss is None)
        return f"{name}: the loss is no number from update {place} on"
    verdict = "" if arm.is_calm else ", too high"
    ends = [loss for loss in (arm.losses[0], arm.losses[-1]) if loss is not None]
    return (
        f"{name}: headroom of up to {arm.highest:.2g}{verdict}; the loss goes from {ends[0]:.3g} to {ends[-1]:.3g} in "
        f"{len(arm.losses)} updates"
    )


def _bound(arm: ArmFacts, bound: BoundFacts, products: int) -> str:
    place = f"Hessian, {f'warmup of {arm.warmup}' if arm.warmup else 'no warmup'}, update {bound.step}"
    if bound.eigenvalue is None:
        more = f"--instruments.sharpness-products {2 * products}"
        return f"{place}: no eigenvalue has converged in {products} products; use {more}"
    if bound.edge is None:
        return f"{place}: largest eigenvalue {bound.eigenvalue:.3g}; no bound is known for it"
    return (
        f"{place}: largest eigenvalue {bound.eigenvalue:.3g}, so a quadratic bears {bound.edge:.3g}; the LR is "
        f"{bound.lr:.3g}, {bound.lr / bound.edge:.2g} of it"
    )
