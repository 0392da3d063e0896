"""Short trainings in this process whose LR is judged on training images that were held out, and never on test images."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.common import Row
from raylr.config import Config
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.storage import finite
from raylr.training.data import load, prepare
from raylr.training.data.dataset import Dataset
from raylr.training.evaluate import evaluate
from raylr.training.group import Group
from raylr.training.headroom import Reading
from raylr.training.trainer import Trainer

HELD_OUT = 1000


@dataclass(frozen=True)
class Setting:
    """What is trained, apart from its LR."""

    source: str
    model: str
    optimizer: str
    num_train: int
    epochs: float
    batch: int
    micro: int
    seed: int = 0
    headroom: str | None = None

    def config(self, lr: float, num_train: int | None = None) -> Config:
        """The config of a run at this LR: linear to 0, no warmup, no guard."""
        return Config(
            seed=self.seed,
            epochs=self.epochs,
            workers="1",
            gpu="no",
            data={"source": self.source, "train_examples": num_train or self.num_train},
            model={"name": self.model},
            batch={"global_size": self.batch, "micro_size": self.micro},
            optimizer={"name": self.optimizer},
            lr={"base": lr, "reference_batch": self.batch, "warmup": "0ep", "shape": "linear"},
            guard={"enabled": False},
            instruments={"headroom": self.headroom},
        )


def split(setting: Setting) -> Dataset:
    """So many training images, and HELD_OUT others of the training images in the place of the test images."""
    config = setting.config(1.0, setting.num_train + HELD_OUT)
    prepare(config.data)
    data = load(config.data)
    order = np.random.default_rng(0).permutation(len(data.train_labels))
    own, held = order[: setting.num_train], order[setting.num_train :]
    info = replace(data.info, num_train=len(own), num_test=len(held))
    return replace(
        data,
        info=info,
        train_images=data.train_images[own],
        train_labels=data.train_labels[own],
        test_images=data.train_images[held],
        test_labels=data.train_labels[held],
    )


def train(setting: Setting, lr: float, data: Dataset) -> Row:
    """Train to the end: the loss of each update, the readings of the headroom, loss and accuracy on the held-out images."""
    plan, policy = resolve(setting.config(lr), data.info, local_hardware())
    trainer, group = Trainer(plan, policy, data), Group()
    losses: list[float | None] = []
    readings: list[tuple[int, float, int]] = []
    while trainer.fits(1):
        update = trainer.update(group)
        losses.append(finite(update.loss))
        if isinstance(update.reading, Reading):
            readings.append((update.step, update.reading.headroom, update.reading.passes))
        if losses[-1] is None:
            return {"losses": losses, "readings": readings, "held_out_loss": None, "accuracy": 0.0}
    scores = evaluate(trainer, group)
    return {"losses": losses, "readings": readings, "held_out_loss": finite(scores.loss), "accuracy": scores.accuracy}
