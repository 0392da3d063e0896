"""Successive halving of curves: trials are tried over a short length, and the best of each rung over the next, longer one.

A trial's curve is a warmup, a hold, and a fall to its end. Over a longer length it has the same warmup and a longer hold, so
its updates are the same up to the shorter one's fall; so are those of trials that differ in their falls alone. To meet more
often, base LRs are rounded to a grid, and warmup and hold to whole intervals: at the end of one a trial is kept in a
checkpoint, which another one can begin with. What two policies share, `shared` finds from their LRs alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.lr.bounds import Bounds
from raylr.lr.family import Member

LENGTH = "examples"  # a trial's length, among its settings where there is more than one rung
STEP = math.sqrt(2)  # between base LRs
LEAST = 2  # intervals of the shortest trials: one of them can be shared


@dataclass(frozen=True)
class Rungs:
    """How many trials there are at each rung, and over how many examples; `interval` is in examples too."""

    counts: tuple[int, ...]
    lengths: tuple[int, ...]
    interval: int

    @classmethod
    def of(cls, trials: int, rungs: int, factor: float, total: int, interval: int) -> "Rungs":
        """Rungs that end with the whole run; each has 1 / factor of the trials before. Raises ConfigError for too many."""
        counts, lengths = [trials], [total]
        for number in range(1, rungs):
            counts.append(max(1, int(counts[-1] / factor)))
            lengths.insert(0, round(total / factor**number / interval) * interval)
        if rungs > 1 and (lengths[0] < LEAST * interval or sorted(set(lengths)) != lengths):
            raise ConfigError(
                f"rungs={rungs} leave the shortest trials {lengths[0] // interval} of the run's {total // interval} "
                f"intervals, and each rung needs more than the one before, the first {LEAST}; use fewer --rungs, a shorter "
                "--interval or a smaller --reduction-factor"
            )
        return cls(tuple(counts), tuple(lengths), interval)

    @property
    def num_trials(self) -> int:
        """Trials of all rungs."""
        return sum(self.counts)

    @property
    def planned(self) -> tuple[tuple[int, int], ...]:
        """How many trials train over how many examples, by rung."""
        return tuple(zip(self.counts, self.lengths, strict=True))

    def rung(self, index: int) -> int:
        """The rung of trial number `index`."""
        return next(rung for rung in range(len(self.counts)) if index < sum(self.counts[: rung + 1]))

    def turn(self, names: Sequence[str], begun: int, most: int) -> Sequence[str]:
        """The names of those that train next, once `begun` have had their turn: all of one rung."""
        if begun == len(names):
            return ()
        return names[begun : min(begun + most, sum(self.counts[: self.rung(begun) + 1]))]

    def first(self, settings: Mapping[str, float], base: str, bounds: Bounds) -> dict[str, float]:
        """Settings of the first rung: with their length, and the setting `base` on the grid, inside its bounds."""
        if len(self.counts) == 1:
            return dict(settings)
        on_grid = bounds.clamped(STEP ** round(math.log(settings[base], STEP)))
        return {**settings, base: on_grid, LENGTH: float(self.lengths[0])}

    def places(self, member: Member, total: int) -> tuple[int, int]:
        """The end of a curve's warmup and the start of its fall, in examples."""
        if len(self.counts) == 1:
            return member.warmup_examples(total), member.start(total)
        rise = round(member.warmup * self.lengths[0] / self.interval) * self.interval
        hold = round(member.hold * (total - rise) / self.interval) * self.interval
        return rise, min(rise + hold, total - self.interval)


@dataclass(frozen=True)
class Start:
    """What a trial begins with: the donor's checkpoint at `position`."""

    donor: str
    position: int


def shared(one: Policy, other: Policy, batch_at: Callable[[int], int]) -> int:
    """The first position at which an update of the two has another LR or momentum; the shorter's end, if none has."""
    position = 0
    while (batch := batch_at(position)) and position + batch <= min(one.total_examples, other.total_examples):
        for name in one.optimizers:
            of_each = [
                (policy.lr(position, batch, name), policy.momentum(position, batch, name)) for policy in (one, other)
            ]
            if of_each[0] != of_each[1]:
                return position
        position += batch
    return position


def without_length(changes: Mapping[str, object]) -> dict[str, object]:
    """What changes a trial's updates beside its policy."""
    return {name: value for name, value in changes.items() if name != "total_examples"}
