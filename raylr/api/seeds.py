"""What the values of several seeds, or tests, come to; nothing where one is missing, since the others alone would flatter."""

from collections.abc import Sequence
from statistics import fmean, stdev


def mean(values: Sequence[float | None]) -> float | None:
    """The mean over the seeds; None where one has no value.

    >>> mean([1.0, 2.0]), mean([1.0, None]), mean([])
    (1.5, None, None)
    """
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def spread(values: Sequence[float | None]) -> float | None:
    """The standard deviation between the seeds; None of one alone, or where one has no value.

    >>> spread([1.0, 3.0, 2.0]), spread([1.0]), spread([1.0, 2.0, None])
    (1.0, None, None)
    """
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) == len(values) > 1 else None
