"""One training function of Ray Train in two forms, and Tune's PBT over it as Ray documents that.

`raylr_loop` has the calls of `raylr.loop`, for `raylr explore --loop`. `ray_loop` reports and checkpoints by Ray Train. As a
program this module puts the latter into the documented pattern: a function trainable that starts a TorchTrainer, whose
reports `TuneReportCallback` hands to Tune. Both write down when they begin, and how long each interval's updates took.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.sides.restart_pbt import NotedPBT, note

CLASSES, INPUTS = 10, 64


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES))


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points around the corners of a random polytope, and whose they are."""
    corners = torch.randn(CLASSES, INPUTS, generator=torch.Generator().manual_seed(7))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=random)
    return corners[labels] + 2.5 * torch.randn(count, INPUTS, generator=random), labels


def batches(config: dict[str, Any], data: tuple[Tensor, Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(config["examples"], generator=torch.Generator().manual_seed(epoch))
    for ids in order.split(config["batch"]):
        yield data[0][ids], data[1][ids]


def accuracy(model: nn.Module) -> float:
    inputs, labels = examples(1000, seed=1)
    with torch.no_grad():
        return float((model(inputs).argmax(1) == labels).float().mean())


def raylr_loop(config: dict[str, Any]) -> None:
    import raylr.loop

    torch.set_num_threads(1)
    model, data = network(), examples(config["examples"], seed=0)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = raylr.loop.policy(
        0.05,
        examples_per_epoch=config["examples"],
        epochs=config["epochs"],
        reference_batch=config["batch"],
        shape="constant",
    )
    loop = raylr.loop.attach(model=model, optimizers=optimizer, policy=policy, global_batch=config["batch"])
    trial = Path(loop.run_dir or "").name
    note(config["log"], "trains", trial)
    for epoch in loop.epochs():
        began = time.perf_counter()
        for inputs, labels in loop.rest(batches(config, data, epoch)):
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            loop.before_step()
            optimizer.step()
        note(config["log"], "trained", trial, train_s=time.perf_counter() - began)
        loop.report(test_accuracy=accuracy(model))


def ray_loop(config: dict[str, Any]) -> None:
    import ray.train
    from ray.train import Checkpoint

    torch.set_num_threads(1)
    model, data, trial = network(), examples(config["examples"], seed=0), config["trial"]
    optimizer = SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    start = 0
    if (given := ray.train.get_checkpoint()) is not None:
        with given.as_directory() as where:
            state = torch.load(Path(where) / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        optimizer.param_groups[0]["lr"] = config["lr"]
        start = state["epoch"] + 1
        note(config["log"], "loaded", trial)
    note(config["log"], "trains", trial)
    for epoch in range(start, config["epochs"]):
        began = time.perf_counter()
        for inputs, labels in batches(config, data, epoch):
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        note(config["log"], "trained", trial, train_s=time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as where:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, Path(where) / "state.pt")
            ray.train.report({"accuracy": accuracy(model)}, checkpoint=Checkpoint.from_directory(where))


def train_driver(config: dict[str, Any]) -> None:
    """The function trainable of Ray's guide on tuning a Ray Train loop."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trial = tune.get_context().get_trial_id()
    TorchTrainer(
        ray_loop,
        train_loop_config={**config, "trial": trial},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=f"train-{trial}", storage_path=config["folder"], callbacks=[TuneReportCallback()]),
    ).fit()


class Skips(logging.Handler):
    """Counts the exploits that PBT says it skips."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Skip exploit" in record.getMessage()


def main() -> None:
    import ray
    from ray import tune

    parser = argparse.ArgumentParser()
    for name in ("trials", "epochs", "examples", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    logging.getLogger("ray.tune.schedulers.pbt").addHandler(skips := Skips())
    ray.init(num_cpus=2 * given.trials + 2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log.jsonl"
        scheduler = NotedPBT(
            log,
            time_attr="training_iteration",
            metric="accuracy",
            mode="max",
            perturbation_interval=1,
            quantile_fraction=0.25,
            hyperparam_mutations={"lr": tune.loguniform(0.001, 1.0)},
        )
        own = {**vars(given), "folder": folder, "log": log, "lr": tune.loguniform(0.001, 1.0)}
        tune.Tuner(
            tune.with_resources(train_driver, {"CPU": 0.01}),
            param_space=own,
            tune_config=tune.TuneConfig(scheduler=scheduler, num_samples=given.trials),
            run_config=tune.RunConfig(name="pbt", storage_path=folder, verbose=0),
        ).fit()
        notes = [json.loads(line) for line in Path(log).read_text().splitlines()]
    ray.shutdown()
    print(json.dumps({"notes": notes, "skipped": skips.count}), flush=True)


if __name__ == "__main__":
    main()
