"""What a test finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scores:
    """Mean loss and share of right answers (0..1) on the test examples, and other metrics by column.

    The accuracy is None for a task of one's own that has none; its score is turned so that more is better.
    """

    loss: float
    accuracy: float | None
    own: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
