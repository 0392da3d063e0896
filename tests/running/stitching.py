"""The rows that a trial's weights lived through, put together from the ledgers of its donors."""

from collections.abc import Mapping, Sequence
from typing import Any

from raylr.running.population.lineage import Segment


def stitched(
    segments: Sequence[Segment], ledgers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    """The rows of the ledgers (by trial) that the weights of these segments lived through."""
    return [
        row
        for segment in segments
        for row in ledgers[segment.trial]
        if segment.start <= row["position"] and (segment.end is None or row["position"] < segment.end)
    ]
