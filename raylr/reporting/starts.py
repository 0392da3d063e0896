"""Ways to find a starting LR as people see them: one table, the best way first."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.table import Table

from raylr.reporting.tables import plain_table


class WayFacts(Protocol):
    """A way, its LR, and what its search took."""

    @property
    def name(self) -> str: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def spent(self) -> int: ...


class StartFacts(Protocol):
    """How a way did."""

    @property
    def way(self) -> WayFacts: ...
    @property
    def factor(self) -> float | None: ...
    @property
    def examples(self) -> int: ...
    @property
    def accuracies(self) -> Sequence[float | None]: ...
    @property
    def mean(self) -> float | None: ...


class Facts(Protocol):
    """What is told of a comparison of starts."""

    @property
    def starts(self) -> Sequence[StartFacts]: ...
    @property
    def best_lr(self) -> float: ...
    @property
    def reference_batch(self) -> int: ...


def lines(found: Facts) -> Iterator[Table | str]:
    """The table, and what the sweep found."""
    table = plain_table(
        "way", "validation accuracy", "LR", "from the best", "examples to find it", "then trained",
        drops=("then trained", "examples to find it"),
    )  # fmt: skip
    table.columns[0].justify = "left"
    for one in found.starts:
        table.add_row(
            one.way.name,
            "failed" if one.mean is None else f"{one.mean:.2%}",
            "its own" if one.way.lr is None else f"{one.way.lr:.3g}",
            "" if one.factor is None else f"x {one.factor:.2f}",
            f"{one.way.spent:,}",
            f"{one.examples:,}",
        )
    yield table
    yield f"best LR of the sweep: {found.best_lr:.3g} at a batch of {found.reference_batch}"
