"""A comparison in words: after each pair, and at its end."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from raylr.reporting.sequential import Standing


class PairFacts(Protocol):
    """What is told of a pair."""

    @property
    def seed(self) -> int: ...
    @property
    def a(self) -> float: ...
    @property
    def b(self) -> float | None: ...
    @property
    def difference(self) -> float | None: ...


class Facts(Protocol):
    """What is told of a comparison."""

    @property
    def metric(self) -> str: ...
    @property
    def pairs(self) -> Sequence[PairFacts]: ...
    @property
    def standing(self) -> Standing | None: ...
    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def max_pairs(self) -> int: ...
    @property
    def num_saved(self) -> int: ...


def pair_lines(found: Facts) -> Iterator[str]:
    """The newest pair, and what all of them say."""
    pair, metric = found.pairs[-1], found.metric
    told = (
        "B failed" if pair.b is None else f"B {_value(pair.b, metric)}, B better by {_change(pair.difference, metric)}"
    )
    yield f"pair {len(found.pairs)} of {found.max_pairs}, seed {pair.seed}: {metric} A {_value(pair.a, metric)}, {told}"
    if pair.b is not None:
        yield f"  {_standing(found)}: {found.verdict}"


def ending(found: Facts) -> str:
    """The verdict, and what it cost."""
    lines = [f"{found.verdict}: {_why(found)}"]
    if found.num_saved:
        lines.append(f"{found.num_saved} of {found.max_pairs} seeds saved, {2 * found.num_saved} runs")
    if found.standing is not None and found.standing.low is not None:
        lines.append("the runs have no noise but that of the seed, so the interval is that of the seed alone")
    return "\n".join(lines)


def _why(found: Facts) -> str:
    if found.reason:
        return found.reason
    pairs = f"after {len(found.pairs)} {'pair' if len(found.pairs) == 1 else 'pairs'}"
    if found.verdict == "RETEST":
        more = "more seeds" if len(found.pairs) < found.max_pairs else "a higher --max-seeds"
        return f"not decided {pairs}; {_standing(found)}; the same command with {more} goes on"
    is_better = "B is better" if found.verdict == "KEEP" else "B is not better"
    return f"{is_better} {pairs}; {_standing(found)}"


def _standing(found: Facts) -> str:
    standing = found.standing
    assert standing is not None
    mean = f"mean {_change(standing.difference, found.metric)}"
    if standing.low is None or standing.high is None:
        return f"{mean}, no interval before the third pair"
    low, high = (_change(value, found.metric, unit=False) for value in (standing.low, standing.high))
    return f"{mean}, 95 % interval {low} to {high}, p = {standing.p:.2g}"


def _value(value: float, metric: str) -> str:
    return f"{value:.4f}" if metric.endswith("_loss") else f"{value:.2%}"


def _change(value: float | None, metric: str, unit: bool = True) -> str:
    assert value is not None
    if metric.endswith("_loss"):
        return f"{value:+.4f}"
    return f"{100 * value:+.2f}{' points' if unit else ''}"
