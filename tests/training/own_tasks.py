"""Tasks of one's own for tests: a small one as it should be, and others each of which breaks one rule."""

import os
import random
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import raylr
from raylr.training.task import normal


class Sines(raylr.Task):
    """A curve from noisy points, with dropout, BatchNorm and a metric that is no mean."""

    @dataclass(frozen=True)
    class Settings:
        width: int = field(default=8, metadata={"help": "of the hidden layer"})
        dropout: float = 0.25
        noise: Literal["none", "some"] = "some"

    defaults: ClassVar = {
        "batch.global_size": 32,
        "batch.micro_size": 8,
        "lr.base": 0.05,
        "epochs": 2,
        "eval.micro_size": 7,
    }
    score = ("worst", "min")
    sums = ("far",)
    num_train, num_test = 90, 50

    def model(self) -> nn.Module:
        width = self.settings.width
        first = nn.Sequential(nn.Linear(1, width), nn.BatchNorm1d(width), nn.Tanh())
        return nn.Sequential(first, nn.Dropout(self.settings.dropout), nn.Linear(width, 1))

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x = ids[:, None] / self.num_train
        noise = normal(ids, epochs, seed, 1) if self.settings.noise == "some" else 0.0
        return x, torch.sin(6 * x) + 0.1 * noise

    def test_batch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = (ids[:, None] + 0.5) / self.num_test
        return x, torch.sin(6 * x)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        x, y = batch
        found = model(x).float()
        return F.mse_loss(found, y), {"far": ((found - y).abs() > 0.5).sum()}

    def test(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        errors = (model(x).float() - y).square()
        return {"loss": errors.sum(), "thirds": torch.stack([errors[(x // 0.34) == third].sum() for third in range(3)])}

    def metrics(self, sums: Any, num_test: int) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / num_test, "worst": float(sums["thirds"].max()) / num_test}


class Diverges(Sines):
    """In the second epoch one example has no number."""

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x, y = super().batch(ids, epochs, seed)
        return x, torch.where(((ids == 40) & (epochs == 1))[:, None], torch.nan, y)


class FollowsTheRank(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        return super().batch((ids + int(os.environ.get("RANK", "0"))) % self.num_train, epochs, seed)


class AsksForItsRank(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        return super().batch(ids + torch.distributed.get_rank(), epochs, seed)


class DrawsFromNumpy(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x, y = super().batch(ids, epochs, seed)
        return x, y + float(np.random.rand())


class DrawsFromTorch(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x, y = super().batch(ids, epochs, seed)
        return x, y + torch.rand(len(ids), 1)


class RemembersCalls(Sines):
    calls = 0

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        self.calls += 1
        x, y = super().batch(ids, epochs, seed)
        return x, y + self.calls


class NormalisesByItsBatch(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x, y = super().batch(ids, epochs, seed)
        return x, y - y.mean()


class LosesRows(Sines):
    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        x, y = super().batch(ids, epochs, seed)
        return x[1:], y


class SumsItsLoss(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        return F.mse_loss(model(batch[0]), batch[1], reduction="sum")


class HasNoGradient(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        return F.mse_loss(model(batch[0]).detach(), batch[1])


class AveragesItsSum(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        loss, _ = super().loss(model, batch)
        return loss, {"far": loss.detach()}


class GivesAnUnknownSum(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        loss, sums = super().loss(model, batch)
        return loss, {**sums, "close": sums["far"]}


class HasNoNumber(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        loss, sums = super().loss(model, batch)
        return loss * torch.nan, sums


class RollsDice(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        return F.mse_loss(model(batch[0]), batch[1]) * random.random()


class ReducesByItself(Sines):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        loss = F.mse_loss(model(batch[0]), batch[1])
        torch.distributed.all_reduce(loss)
        return loss


class AveragesItsTest(Sines):
    def test(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        found = super().test(model, batch)
        return {**found, "loss": found["loss"] / len(batch[0])}


class HasNoLossInItsTest(Sines):
    def test(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"thirds": super().test(model, batch)["thirds"]}


class HasNoScore(Sines):
    score = ("best", "max")


class HasNoExamples(Sines):
    num_train = 0


class HasAnotherPhase(Sines):
    phases = ("head",)


class Stateful:
    """No task at all."""


def make() -> Sines:
    return Sines(Sines.Settings())
