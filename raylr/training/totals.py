"""What a run has counted: sums since the last evaluation, times, what was done where. Part of the state."""

import math
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Self

from raylr.storage import finite
from raylr.training.headroom import Reading
from raylr.training.noise import Noise
from raylr.training.scores import Scores
from raylr.training.trainer import Update

AVERAGED_READINGS = 5


@dataclass(frozen=True)
class Totals:
    """Counts at a position. Each method gives the totals after something was done."""

    evaluated_at: int = 0
    checkpointed_at: int = 0
    loss: float = 0.0  # sums over the examples since the last evaluation
    num_correct: float = 0  # NaN where a task counts none
    num_examples: int = 0
    train_s: float = 0.0
    total_train_s: float = 0.0
    wall_s: float = 0.0
    test_loss: float | None = None
    test_accuracy: float | None = None
    train_own: dict[str, float] = field(default_factory=dict)  # other sums of a task, by name
    score: float | None = None  # a task's, of the last test, turned so that more is better
    test_own: dict[str, float] = field(default_factory=dict)  # of the plan's metrics, by column
    best: float | None = None  # value of the metric of `stop`, and where it was reached
    best_at: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)  # what is remembered of tests for `lr.plateau`
    norm_average: float = 0.0  # of the gradient, for `lr.grad_norm`, and over how many updates
    norm_count: int = 0
    angle_factor: float = 1.0  # of `lr.hypergradient`, moved with each update
    gain: float = 1.0  # of `lr.scaling=adascale`, what it was set from since, and all gains so far
    gain_square: float = 0.0
    gain_variance: float = 0.0
    gain_count: int = 0
    tau: float = 0.0
    last_order: int = 0  # number of the youngest order that was carried out
    world_size: int = 0  # of the last group
    corruptions: dict[str, int] = field(default_factory=dict)  # wrong results, by process
    disputes: dict[str, list[str]] = field(default_factory=dict)  # who contradicted a process, where nobody could tell
    lr: dict[str, float] = field(default_factory=dict)  # of the last update, by optimizer
    logged_at: int = 0
    logged_loss: float = 0.0  # sums over the examples since the last point
    logged_examples: int = 0
    headrooms: list[float] = field(default_factory=list)  # the last readings
    noise_square: float = 0.0  # sums over the updates since the last reading of the noise
    noise_variance: float = 0.0
    noise_count: int = 0
    noise_scale: float | None = None  # of the last reading

    def updated(self, update: Update, seconds: float) -> Self:
        """After an update; one that the guard took back counts its time alone."""
        timed = replace(
            self,
            train_s=self.train_s + seconds,
            total_train_s=self.total_train_s + seconds,
            wall_s=self.wall_s + seconds,
            lr=update.lr,
            headrooms=self._headrooms_with(update),
        )
        if update.rolled_back:
            return timed
        return replace(
            timed,
            loss=self.loss + update.loss * update.global_batch,
            num_correct=self.num_correct + update.num_correct,
            num_examples=self.num_examples + update.global_batch,
            train_own={name: self.train_own.get(name, 0.0) + value for name, value in update.own.items()},
            logged_loss=self.logged_loss + update.loss * update.global_batch,
            logged_examples=self.logged_examples + update.global_batch,
        )

    def with_noise(self, noise: Noise) -> Self:
        """With what one more update says of the noise."""
        square, variance = self.noise_square + noise.square, self.noise_variance + noise.variance
        return replace(self, noise_square=square, noise_variance=variance, noise_count=self.noise_count + 1)

    def noise_read(self) -> Self:
        """With the noise scale of the updates since the last reading: None where their mean square is not above 0."""
        scale = self.noise_variance / self.noise_square if self.noise_square > 0 < self.noise_variance else None
        return replace(self, noise_scale=scale, noise_square=0.0, noise_variance=0.0, noise_count=0)

    def _headrooms_with(self, update: Update) -> list[float]:
        if not isinstance(update.reading, Reading):
            return self.headrooms
        return [*self.headrooms, update.reading.headroom][-AVERAGED_READINGS:]

    @property
    def headroom(self) -> float | None:
        """The geometric mean of the last readings; None before the first."""
        return math.exp(fmean(map(math.log, self.headrooms))) if self.headrooms else None

    def logged(self, position: int) -> Self:
        return replace(self, logged_at=position, logged_loss=0.0, logged_examples=0)

    def evaluated(self, position: int, tested: Scores, seconds: float) -> Self:
        """After a test at a position."""
        return replace(
            self,
            evaluated_at=position,
            loss=0.0,
            num_correct=0,
            num_examples=0,
            train_own={},
            train_s=0.0,
            wall_s=self.wall_s + seconds,
            test_loss=tested.loss,
            test_accuracy=tested.accuracy,
            test_own=dict(tested.own),
            score=tested.score,
        )

    def with_best(self, value: float) -> Self:
        """With the value of the last test as the best one."""
        return replace(self, best=value, best_at=self.evaluated_at)

    def own_averages(self) -> dict[str, float]:
        """A task's other means over the training examples since the last evaluation, by column."""
        return {f"train_{name}": value / max(1, self.num_examples) for name, value in self.train_own.items()}

    def averages(self) -> dict[str, Any]:
        """Training loss, accuracy and examples/s since the last evaluation."""
        count = max(1, self.num_examples)
        return {
            "train_loss": self.loss / count,
            "train_accuracy": finite(self.num_correct / count),
            "images_per_s": self.num_examples / self.train_s if self.train_s else 0.0,
        }
