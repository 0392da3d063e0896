"""A Lightning module under a policy: the Trainer trains, a callback has the LR, the ledger, checkpoints and orders.

    python -m jobs.examples.lightning_loop

The same command goes on where it was. In another shell: `raylr ctl lightning-loop lr --factor 0.5`.
"""

import argparse
from typing import Any

import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

import raylr
import raylr.loop
from jobs.examples.own_loop import BATCH, EXAMPLES, spirals


class FollowPolicy(lightning.Callback):
    """Lets a policy drive the module's optimizer from the position where the run stands, until its length."""

    def __init__(self, policy: raylr.Policy, global_batch: int, **where: Any) -> None:
        self.policy, self.global_batch, self.where = policy, global_batch, where

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.loop = raylr.loop.attach(
            model=module,
            optimizers=trainer.optimizers[0],
            policy=self.policy,
            global_batch=self.global_batch,
            **self.where,
        )

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        self.loop.before_step()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        trainer.should_stop = self.loop.is_over  # at the policy's length, or by an order

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.loop.report(**trainer.callback_metrics)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.loop.finish()


class Spirals(lightning.LightningModule):
    """A small network; nothing in it is raylr's."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = F.cross_entropy(self.network(inputs), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        accuracy = (self.network(inputs).argmax(1) == targets).float().mean()
        self.log("test_accuracy", accuracy)

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.1, momentum=0.9)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--name", default="lightning-loop")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    policy = raylr.loop.policy(
        0.1, examples_per_epoch=EXAMPLES, epochs=given.epochs, reference_batch=BATCH, warmup="0.5ep"
    )
    callback = FollowPolicy(policy, BATCH, name=given.name, storage=given.storage)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=-1, accelerator="cpu", callbacks=[callback], **quiet)
    train = DataLoader(spirals(EXAMPLES, seed=0), batch_size=BATCH, shuffle=True)
    trainer.fit(Spirals(), train, DataLoader(spirals(512, seed=1), batch_size=512))


if __name__ == "__main__":
    main()
