"""PBT with Ray's stock parts: each trial of Tune's PBT is a Ray Train run of its own, which an exploit ends and starts anew.

As in Ray's documentation (a TorchTrainer in each trial, `PopulationBasedTraining`), with the smallest repair that makes it
exploit: the documented function trainable never gives Tune a checkpoint, so PBT skips every exploit. Here a trial is a
class Trainable that hands on the reports of its run, saves the checkpoint of the last one, and starts its run from the
checkpoint that PBT restores. Prints `notes`, rows of what happened when: decided, loaded, trains, trained.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from ray.train.v2.api.callback import UserCallback
from ray.tune.schedulers import PopulationBasedTraining
from ray.util.queue import Empty, Queue

from raylr.training.models import build


def note(log: str, kind: str, trial: str, **fields: Any) -> None:
    with open(log, "a") as file:
        file.write(json.dumps({"kind": kind, "trial": trial, "time": time.time(), **fields}) + "\n")


def train_func(config: dict[str, Any]) -> None:
    """An ordinary training function of Ray Train that reports a checkpoint after every epoch."""
    import torch

    torch.set_num_threads(1)
    folder, trial, batch = Path(config["images"]), config["trial"], config["batch"]
    images, labels = (np.load(folder / f"train_{what}.npy", mmap_mode="r") for what in ("images", "labels"))
    model = prepare_model(build("cnn-small", 10, (32, 32, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9, nesterov=True, weight_decay=5e-4)
    start = 0
    given = ray.train.get_checkpoint() or (Checkpoint(config["checkpoint"]) if config["checkpoint"] else None)
    if given is not None:
        with given.as_directory() as where:
            state = torch.load(Path(where) / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        optimizer.param_groups[0]["lr"] = config["lr"]
        start = state["epoch"] + 1
        note(config["log"], "loaded", trial)
    note(config["log"], "trains", trial)
    for epoch in range(start, config["epochs"]):
        order, began = np.random.default_rng(epoch).permutation(config["examples"]), time.perf_counter()
        for first in range(0, len(order) - batch + 1, batch):
            if Path(config["stop"]).exists():
                return
            ids = np.sort(order[first : first + batch])
            inputs = torch.from_numpy(images[ids]).permute(0, 3, 1, 2).float().div_(255)
            loss = torch.nn.functional.cross_entropy(model(inputs), torch.from_numpy(labels[ids]).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        note(config["log"], "trained", trial, train_s=time.perf_counter() - began)
        accuracy = evaluate(model, folder)
        with tempfile.TemporaryDirectory() as where:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, Path(where) / "state.pt")
            ray.train.report({"accuracy": accuracy, "epoch": epoch}, checkpoint=Checkpoint.from_directory(where))


def evaluate(model: Any, folder: Path) -> float:
    """The accuracy on 500 test images."""
    import torch

    images = torch.from_numpy(np.load(folder / "test_images.npy", mmap_mode="r")[:500].copy())
    labels = torch.from_numpy(np.load(folder / "test_labels.npy", mmap_mode="r")[:500].copy())
    model.eval()
    with torch.no_grad():
        right = model(images.permute(0, 3, 1, 2).float().div_(255)).argmax(dim=1) == labels
    model.train()
    return float(right.float().mean())


class HandOn(UserCallback):
    """Puts every report of a run into the queue of its trial."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self.queue.put({**metrics[0], "path": checkpoint.path})


class RunTrial(tune.Trainable):
    """A trial that starts a Ray Train run and hands on its reports, one a step."""

    def setup(self, config: dict[str, Any]) -> None:
        self.settings, self.checkpoint, self.thread = config, "", None
        self.queue = Queue(actor_options={"num_cpus": 0})
        self.last: dict[str, Any] = {}

    def step(self) -> dict[str, Any]:
        if self.thread is None:
            self._start()
        while True:
            try:
                self.last = self.queue.get(timeout=1.0)
                return {"accuracy": self.last["accuracy"], "done": self.last["epoch"] == self.settings["epochs"] - 1}
            except Empty:
                if not self.thread.is_alive():
                    raise RuntimeError("the run of this trial has ended") from None

    def _start(self) -> None:
        name = f"{self.trial_id}-{uuid.uuid4().hex[:8]}"
        self.stop_path = Path(self.settings["folder"]) / f"{name}.stop"
        own = {"trial": self.trial_id, "checkpoint": self.checkpoint, "stop": str(self.stop_path)}
        trainer = TorchTrainer(
            train_func,
            train_loop_config={**self.settings, **own},
            scaling_config=ScalingConfig(num_workers=self.settings["workers"]),
            run_config=RunConfig(name=name, storage_path=self.settings["folder"], callbacks=[HandOn(self.queue)]),
        )
        self.thread = threading.Thread(target=trainer.fit, daemon=True)
        self.thread.start()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        shutil.copytree(self.last["path"], checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.checkpoint = str(Path(self.settings["folder"]) / f"from-{uuid.uuid4().hex[:8]}")
        shutil.copytree(checkpoint_dir, self.checkpoint)

    def cleanup(self) -> None:
        if self.thread is not None:
            self.stop_path.touch()
            self.thread.join(60)
        self.queue.shutdown()


class NotedPBT(PopulationBasedTraining):
    """Tune's own; notes when it decided an exploit."""

    def __init__(self, log: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.log = log

    def _exploit(self, controller: Any, trial: Any, donor: Any) -> None:
        note(self.log, "decided", trial.trial_id)
        super()._exploit(controller, trial, donor)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=512)
    given = parser.parse_args()
    ray.init(num_cpus=given.trials * given.workers + 2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log.jsonl"
        scheduler = NotedPBT(
            log,
            time_attr="training_iteration",
            metric="accuracy",
            mode="max",
            perturbation_interval=1,
            quantile_fraction=0.25,
            hyperparam_mutations={"lr": tune.loguniform(0.01, 1.0)},
        )
        tuner = tune.Tuner(
            tune.with_resources(RunTrial, {"CPU": 0.01}),
            param_space={**vars(given), "folder": folder, "log": log, "lr": tune.loguniform(0.01, 1.0)},
            tune_config=tune.TuneConfig(scheduler=scheduler, num_samples=given.trials),
            run_config=tune.RunConfig(name="pbt", storage_path=folder, verbose=0),
        )
        tuner.fit()
        notes = [json.loads(line) for line in Path(log).read_text().splitlines()]
    ray.shutdown()
    print(json.dumps({"notes": notes}), flush=True)


if __name__ == "__main__":
    main()
