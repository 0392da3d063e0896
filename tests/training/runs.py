"""Small runs in plain processes: a plan, a policy and made-up images, trained by the real loop over real gloo groups."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylr.lr import Clock, Policy, Schedule, Warmup, parse_shape
from raylr.planning.plan import GuardPlan, OptimizerPlan, Plan


@dataclass(frozen=True)
class Images:
    """Random images of 9 x 9 pixels (the smallest that the models take) in three classes that their brightness tells apart."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)


def images(num_train: int, num_test: int, seed: int = 7) -> Images:
    random = np.random.default_rng(seed)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 3, count)
        noise = random.integers(0, 100, (count, 9, 9, 3))
        return (noise + 70 * labels[:, None, None, None]).astype(np.uint8), labels

    return Images(*part(num_train), *part(num_test))


def pictures(folder: Path, classes: str, side: int = 9, seed: int = 0, darkest: int = 0) -> Path:
    """Images of random pixels, 24 to train on and 9 to test on per class."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 24), ("test", 9)):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(darkest, 100 + 70 * number, (side, side, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


OPTIMIZER = OptimizerPlan(
    kind="sgd", match="*", momentum=0.9, nesterov=True, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False,
    weight_decay=5e-4, decay_norms_and_biases=False,
)  # fmt: skip


GUARD = GuardPlan(factor=None, patience=2, cut=0.1, hold=64, ramp=64, snapshot_every=64, max_rollbacks=3)


def plan(**changes: Any) -> Plan:
    """A plan of a few updates: batch 32 in four micro-batches, every kind of randomness on."""
    values: dict[str, Any] = {
        "seed": 0, "device": "cpu", "precision": "fp32", "num_threads": 1, "workers": (1, 4), "cpus_per_worker": 1,
        "model": "cnn-small", "dropout": 0.2, "num_classes": 3, "image_shape": (9, 9, 3), "data_sha256": "",
        "num_train": 90, "num_test": 50,
        "total_examples": 180, "global_batch": 32, "per_worker_size": None, "micro_size": 8, "reduce": "tree",
        "eval_every": 90, "eval_micro_size": 7, "checkpoint_every": 90, "checkpoint_keep": 3, "rewarm": 90,
        "label_smoothing": 0.1, "clip_norm": 5.0, "flip": "random", "crop_padding": 2, "cutout": 3,
        "optimizers": {"main": OPTIMIZER}, "guard": GUARD, "max_failures": 0, "failure_mode": "restart", "stall_s": 60.0,
    }  # fmt: skip
    return Plan.model_validate({**values, **changes})


def policy(of: Plan, shape: str = "cosine", warmup: int = 32, **changes: Any) -> Policy:
    clock = Clock(of.num_train, of.total_examples, of.batch_at(1))
    schedule = Schedule(
        base_lr=0.05, reference_batch=16, scaling="linear", warmup=Warmup(warmup), shape=parse_shape(shape, clock)
    )
    return Policy(of.num_train, of.total_examples, (("main", replace(schedule, **changes)),))


def train(place: int, size: int, port: int, of: Plan, lr: Policy, data: Images, run_dir: str) -> dict[str, Any]:
    """One rank of a run; what `Loop.run` gives."""
    import torch

    from raylr.storage import LocalFolder
    from raylr.training.ddp import trainer_for
    from raylr.training.group import connect, form_group, listen
    from raylr.training.loop import Loop
    from raylr.training.membership import Plain

    default = of.reduce == "ddp" and size > 1
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0, default)
    folder = LocalFolder(Path(run_dir))
    if place == 0:
        folder.create()
    try:
        return Loop(trainer_for(of)(of, lr, data), Plain(group), folder).run()  # type: ignore[arg-type]
    finally:
        if default:
            torch.distributed.destroy_process_group()


def first_update(
    place: int, size: int, port: int, of: Plan, lr: Policy, data: Images
) -> tuple[float, int, dict[str, list[float]]]:
    """What the first update of one rank gives: the loss, the number of right answers, and the weights after it."""
    import torch

    from raylr.training.ddp import trainer_for
    from raylr.training.group import connect, form_group, listen

    default = of.reduce == "ddp" and size > 1
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0, default)
    try:
        trainer = trainer_for(of)(of, lr, data)  # type: ignore[arg-type]
        update = trainer.update(group)
        weights = {name: value.flatten().tolist() for name, value in trainer.model.named_parameters()}
        return update.loss, update.num_correct, weights
    finally:
        if default:
            torch.distributed.destroy_process_group()
