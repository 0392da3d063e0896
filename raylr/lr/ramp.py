"""The global batch as a function of the position: `128 for 2ep, 256 for 4ep, 512` or `128 to 1024 by 2x every 3ep`.

An update has the batch of the position at which it starts, so one that starts just before a step reaches over it. Nothing
here depends on the number of workers. Independent of torch, of Ray and of the optimizers.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Self

from raylr.errors import ConfigError
from raylr.lr.durations import Clock, examples
from raylr.lr.policy import Policy
from raylr.lr.shapes import Seesaw

EXAMPLE = '"128 for 2ep, 256 for 4ep, 512" or "128 to 1024 by 2x every 3ep"'
MAX_STEPS = 64
_FOR = re.compile(r"(\d{1,9})\s+for\s+(\S.*)")
_BY = re.compile(r"(\d{1,9})\s+to\s+(\d{1,9})\s+by\s+(\d{1,9}\.?\d{0,9})\s*x\s+every\s+(\S.*)")


@dataclass(frozen=True)
class Stretch:
    """Updates of one size in a row: the first one's position, the size, and how many there are."""

    position: int
    batch: int
    count: int


@dataclass(frozen=True)
class Ramp:
    """Pairs of a position and the global batch from there on; the first position is 0, and they grow."""

    phases: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.phases]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)) or min(size for _, size in self.phases) < 1:
            raise ConfigError(
                f"batch.ramp={list(self.phases)} must begin at position 0 and grow in position; use {EXAMPLE}"
            )

    @classmethod
    def of(cls, batch: "int | Ramp") -> "Ramp":
        """The ramp itself, or that of a batch which never changes."""
        return batch if isinstance(batch, Ramp) else Ramp(((0, batch),))

    @classmethod
    def parse(cls, text: str, policy: Policy) -> Self:
        """The ramp that `text` describes, over the length of a policy; ConfigError for one that does not fit into it.

        >>> from raylr.lr import SHAPES, Policy, Schedule, Warmup
        >>> policy = Policy(1000, 8000, (("sgd", Schedule(0.1, 128, "sqrt", Warmup(), SHAPES["cosine"]())),))
        >>> Ramp.parse("100 for 2ep, 200", policy)
        Ramp(phases=((0, 100), (2000, 200)))
        """
        return cls(parse_ramp(text).laid_out(policy.examples_per_epoch, policy.total_examples).phases)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The global batches in their order."""
        return tuple(size for _, size in self.phases)

    def batch_at(self, position: int) -> int:
        """The global batch of the update that starts at `position`.

        >>> ramp = Ramp(((0, 128), (1000, 256)))
        >>> ramp.batch_at(999), ramp.batch_at(1000)
        (128, 256)
        """
        return self.phases[bisect_right(self.phases, (position, float("inf"))) - 1][1]

    def after(self, position: int, updates: int) -> int:
        """The position after so many updates from another one on, however long the run.

        >>> Ramp(((0, 4), (10, 8))).after(4, updates=3)
        20
        """
        ends = [start for start, _ in self.phases[1:]]
        for (_, size), end in zip(self.phases, ends, strict=False):
            within = min(
                updates, max(0, -(-(end - position) // size))
            )  # the last one may reach over the end of its phase
            position, updates = position + within * size, updates - within
        return position + updates * self.phases[-1][1]

    def stretches(self, total: int) -> Iterator[Stretch]:
        """The updates of a run of `total` examples: those of one size in a row at a time, none where one has no update.

        >>> list(Ramp(((0, 4), (10, 8))).stretches(30))
        [Stretch(position=0, batch=4, count=3), Stretch(position=12, batch=8, count=2)]
        """
        position = 0
        ends = [start for start, _ in self.phases[1:]] + [total]
        for (_, size), end in zip(self.phases, ends, strict=True):
            wanted = -(-(end - position) // size)  # the last one may reach over the end of its phase
            count = max(0, min(wanted, (total - position) // size))
            if count:
                yield Stretch(position, size, count)
            position += count * size
            if count < wanted:
                return

    def num_updates(self, total: int) -> int:
        """How many updates a run of `total` examples has."""
        return sum(stretch.count for stretch in self.stretches(total))

    def positions(self, total: int, updates: Iterable[int]) -> list[int]:
        """The positions of these updates, 0-based, of a run of `total` examples."""
        stretches = list(self.stretches(total))
        firsts = [0, *accumulate(stretch.count for stretch in stretches)]
        found = []
        for update in updates:
            stretch = stretches[which := bisect_right(firsts, update) - 1]
            found.append(stretch.position + (update - firsts[which]) * stretch.batch)
        return found

    def joined(self, position: int, following: "int | Ramp") -> Self:
        """This ramp up to `position`, and `following` from there on, as of a fork that goes on with another batch."""
        after = Ramp.of(following)
        tail = [(start, size) for start, size in after.phases if start > position]
        head = [(start, size) for start, size in self.phases if start < position]
        kept: list[tuple[int, int]] = []
        for start, size in [*head, (position, after.batch_at(position)), *tail]:
            if not kept or kept[-1][1] != size:
                kept.append((start, size))
        return replace(self, phases=tuple(kept))


def ramp_of_policy(policy: Policy, first: int, field: str = "lr.shape") -> Ramp | None:
    """The ramp of a policy whose shape is a seesaw, from a first batch on; None for others.

    Raises ConfigError where a seesaw is a part of another shape, where several do not double together, and where a scaling
    rule would raise the LR with the batch.
    """
    found = []
    for name, schedule in policy.schedules:
        if isinstance(schedule.shape, Seesaw):
            starts = schedule.shape.starts(schedule.effective_warmup(first), policy.total_examples)
            found.append((name, tuple((start, first << doublings) for start, doublings in starts)))
        elif any(isinstance(part, Seesaw) for part in schedule.shape.walk()):
            raise ConfigError(f"{field}={schedule.shape.brief()}, a seesaw is no part of another shape; put it around")
        if found and schedule.scaling != "none":
            raise ConfigError(
                f"{field}=seesaw of {name} beside scaling {schedule.scaling}, which would raise the LR; use none"
            )
    if found and (len(found) < len(policy.schedules) or len({phases for _, phases in found}) > 1):
        names = ", ".join(policy.optimizers)
        raise ConfigError(f"{field}=seesaw doubles the batch that {names} share; give each the same seesaw and warmup")
    return Ramp(found[0][1]) if found else None


@dataclass(frozen=True)
class RampText:
    """A ramp as written: sizes, each with its duration but for the last one, which holds to the end."""

    text: str
    sizes: tuple[int, ...]
    durations: tuple[str, ...]

    def laid_out(self, examples_per_epoch: int, total_examples: int, field: str = "batch.ramp") -> Ramp:
        """The ramp in a run of this length; `st` in it counts updates of the size that it stands with.

        Raises ConfigError for a step that comes when the run has ended.
        """
        phases, start = [], 0
        for index, size in enumerate(self.sizes):
            phases.append((start, size))
            if index < len(self.durations):
                length = examples(self.durations[index], Clock(examples_per_epoch, total_examples, size), field)
                if length < 1:
                    raise ConfigError(
                        f"{field}={self.text}, {self.durations[index]} is no length; use 1st for one update"
                    )
                start += length
        ramp = Ramp(tuple(phases))
        *_, last = [*ramp.stretches(total_examples)] or [Stretch(0, self.sizes[0], 1)]
        newest = last.position + (last.count - 1) * last.batch  # where the last update starts
        if unreached := [phase for phase in phases if phase[0] > newest]:
            begin, size = unreached[0]
            raise ConfigError(
                f"{field}={self.text} comes to a batch of {size} at epoch {begin / examples_per_epoch:g}, and the run has no "
                f"update of it before it ends at epoch {total_examples / examples_per_epoch:g}; shorten the ramp, or use more "
                "epochs"
            )
        return ramp


def parse_ramp(text: str, field: str = "batch.ramp") -> RampText:
    """The ramp that `text` describes, without its lengths in examples.

    >>> parse_ramp("128 to 512 by 2x every 3ep").sizes
    (128, 256, 512)

    Raises ConfigError, naming `field`, for what is no ramp.
    """
    if by := _BY.fullmatch(text.strip()):
        sizes = _steps(int(by[1]), int(by[2]), Fraction(by[3]), text, field)
        return RampText(text, sizes, (by[4].strip(),) * (len(sizes) - 1))
    parts = [part.strip() for part in text.split(",")]
    phases = [_FOR.fullmatch(part) for part in parts[:-1]]
    if not re.fullmatch(r"\d{1,9}", parts[-1]) or None in phases:
        raise ConfigError(f"{field}={text}, not a ramp; write {EXAMPLE}")
    sizes = (*(int(phase[1]) for phase in phases if phase), int(parts[-1]))
    if min(sizes) < 1:
        raise ConfigError(f"{field}={text}, a batch has at least 1 example; write {EXAMPLE}")
    for before, after in pairwise(sizes):
        if before == after:
            raise ConfigError(f"{field}={text} goes from {before} to {after}, which is no step; give it once")
    return RampText(text, sizes, tuple(phase[2] for phase in phases if phase))


def _steps(first: int, last: int, factor: Fraction, text: str, field: str) -> tuple[int, ...]:
    """The sizes from `first` to `last`, each `factor` times the one before."""
    if first < 1 or last <= first or factor <= 1:
        raise ConfigError(f"{field}={text} does not grow; write A to B by 2x every 3ep, with A below B")
    sizes = [Fraction(first)]
    while sizes[-1] * factor <= last and len(sizes) <= MAX_STEPS:
        sizes.append(sizes[-1] * factor)
    whole = [int(size) for size in sizes if size.denominator == 1]
    if sizes[-1] != last or len(whole) < len(sizes):
        nearest = (
            f"{first} to {whole[-1]}"
            if len(whole) == len(sizes) and len(whole) > 1
            else f"{first} to {2 * first} by 2x"
        )
        raise ConfigError(f"{field}={text} does not come to {last} by steps of {float(factor):g}x; use {nearest}")
    if len(sizes) > MAX_STEPS:
        raise ConfigError(f"{field}={text} takes more than {MAX_STEPS} steps; use larger ones")
    return tuple(whole)
