"""Turn durations as users write them (`5ep`, `0.3dur`, `20000ex`, `400st`) into integer examples, once.

Independent of shapes, policies and training.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from raylr.errors import ConfigError

_DURATION = re.compile(r"([+-]?)(\d{1,99}\.?\d{0,99}|\.\d{1,99})(e[+-]?\d{1,3})?\s*([a-z]*)")
_UNITS = "ep (epochs), st (updates), ex (examples) or dur (fraction of the run)"


@dataclass(frozen=True)
class Clock:
    """The lengths of an epoch, a run and an update in examples; global_batch is the planned (largest) one."""

    examples_per_epoch: int
    total_examples: int
    global_batch: int

    def __post_init__(self) -> None:
        for name in ("examples_per_epoch", "total_examples", "global_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1 example")


def interval(text: str, clock: Clock, field: str, advice: str = "use 1st for every update, or 1ep") -> int:
    """Return the duration `text` in integer examples, 1 or more. ConfigError, naming `field`, for less."""
    count = examples(text, clock, field)
    if count < 1:
        raise ConfigError(f"{field}={text} is no interval; {advice}")
    return count


def examples(text: str, clock: Clock, field: str) -> int:
    """Return the duration `text` in integer examples: value x unit, exact, rounded half up.

    >>> examples("0.5ep", Clock(examples_per_epoch=101, total_examples=1010, global_batch=10), "lr.warmup")
    51

    Raises ConfigError, naming `field`, for a bare number, an unknown unit or a negative duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{field}={text}, not a duration; write a number and a unit, such as 5ep, 400st or 0.3dur")
    sign, digits, exponent, unit = match.groups()
    if not unit:
        raise ConfigError(
            f"{field}={text}, a duration carries its unit; use {text}ep (epochs), {text}st (updates), "
            f"{text}ex (examples) or a fraction of the run such as 0.05dur"
        )
    number = digits + (exponent or "")
    if sign == "-":
        raise ConfigError(f"{field}={text}, a duration cannot be negative; use {number}{unit}")
    unit_examples = {
        "ep": clock.examples_per_epoch,
        "dur": clock.total_examples,
        "ex": 1,
        "st": clock.global_batch,
    }.get(unit)
    if unit_examples is None:
        raise ConfigError(f"{field}={text}, unknown unit {unit}; the units are {_UNITS}")
    exact = Fraction(number) * unit_examples
    return rounded_half_up(exact.numerator, exact.denominator)


def rounded_half_up(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded half up, in integers only.

    >>> rounded_half_up(5, 2)
    3
    """
    return (2 * numerator + denominator) // (2 * denominator)


def duration_text(num_examples: int, examples_per_epoch: int | None = None) -> str:
    """Return a duration as text that `examples` reads back exactly: in epochs where that is a short number.

    >>> duration_text(75, examples_per_epoch=50), duration_text(75)
    ('1.5ep', '75ex')
    """
    if examples_per_epoch and num_examples * 100 % examples_per_epoch == 0:
        hundredths = num_examples * 100 // examples_per_epoch
        return f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".") + "ep"
    return f"{num_examples}ex"
