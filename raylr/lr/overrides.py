"""Factors set on the LR from outside while a run goes on, each with its cause: PBT, the guard, a user, a resize."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raylr.errors import ConfigError
from raylr.lr.fields import Checked, ExamplesOrNone, NotNegative


@dataclass(frozen=True)
class Override(Checked):
    """From `position` on, the cause's factor moves linearly to `factor` over `ramp_examples` (0: at once).

    `target` is an optimizer's name or "*". A later entry of the same cause and target supersedes, different causes
    multiply. Hold and return are further entries, written at the same time.
    """

    position: ExamplesOrNone
    factor: NotNegative
    ramp_examples: ExamplesOrNone
    target: str
    cause: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target or not self.cause:
            raise ConfigError(f"target={self.target!r}, cause={self.cause!r}: an override needs both")


class Chain:
    """All entries of one cause and target: their factor at any position."""

    def __init__(self, entries: Sequence[Override]) -> None:
        self.cause, self.target = entries[0].cause, entries[0].target
        self._entries = entries
        self._positions = [entry.position for entry in entries]
        self._starts: list[float] = []
        value = 1.0
        for index, entry in enumerate(entries):
            if index:
                value = _ramped(entries[index - 1], self._starts[-1], entry.position)
            self._starts.append(value)

    def entry(self, position: int) -> Override | None:
        """Return the entry at work at `position`, None before the first."""
        index = bisect_right(self._positions, position)
        return self._entries[index - 1] if index else None

    def factor(self, position: int) -> float:
        """Return the factor at `position`: 1 before the first entry."""
        index = bisect_right(self._positions, position)
        return _ramped(self._entries[index - 1], self._starts[index - 1], position) if index else 1.0


def _ramped(entry: Override, start: float, position: int) -> float:
    done = position - entry.position
    if done >= entry.ramp_examples:
        return entry.factor
    return start + (entry.factor - start) * done / entry.ramp_examples


def chains(entries: Iterable[Override]) -> tuple[Chain, ...]:
    """Return one chain for each cause and target, sorted by them."""
    grouped: dict[tuple[str, str], list[Override]] = {}
    for entry in entries:
        grouped.setdefault((entry.cause, entry.target), []).append(entry)
    return tuple(Chain(grouped[key]) for key in sorted(grouped))


def superseded(old: Sequence[Override], new: Sequence[Override]) -> tuple[Override, ...]:
    """Return all entries sorted by position, without the old ones that a new one of their cause and target overtakes.

    An old entry that still lies ahead of the first new one (the return of an earlier hold, say) is dropped.
    """
    first: dict[tuple[str, str], int] = {}
    for entry in new:
        key = (entry.cause, entry.target)
        first[key] = min(entry.position, first.get(key, entry.position))
    kept = [e for e in old if (e.cause, e.target) not in first or e.position <= first[e.cause, e.target]]
    return tuple(sorted([*kept, *new], key=lambda entry: entry.position))
