"""`lr *= 0.1` under `if epoch == 15` inside the batch loop, beside multistep(at=15ep, gamma=0.1), on the same updates.

The left side is the loop of the tutorials over a real torch optimizer; it never calls the model, as the LR does not
depend on it. The right side is the ledger of a real run of raylr, in this process, over a small synthetic data set.

    python -m benchmarks.batch_loop_story
"""

import json
import tempfile
from typing import Any

import torch

from benchmarks import common
from raylr.config.load import load_config
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.trainer import Trainer

EPOCHS, NUM_TRAIN, BATCH = 17, 160, 32
SHOWN = range(73, 83)  # updates; epoch 15 is updates 75 to 79


def tutorial(batches_per_epoch: int) -> list[float]:
    """The LR of each update, as tutorials drop it: by a statement in the wrong loop."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    used = []
    for epoch in range(EPOCHS):
        for _ in range(batches_per_epoch):
            if epoch == 15:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.1
            optimizer.step()
            used.append(optimizer.param_groups[0]["lr"])
    return used


def ledger() -> list[dict[str, Any]]:
    """The ledger of a run with the policy that was meant."""
    fields = {
        "data.source": "synthetic",
        "data.train_examples": str(NUM_TRAIN),
        "data.test_examples": "10",
        "batch.global_size": str(BATCH),
        "batch.micro_size": str(BATCH),
        "epochs": str(EPOCHS),
        "workers": "1",
        "gpu": "no",
        "lr.base": "0.1",
        "lr.reference_batch": str(BATCH),
        "lr.warmup": "0ep",
        "lr.shape": "multistep(at=15ep, gamma=0.1)",
    }
    config = load_config(None, fields)
    plan, policy = resolve(config, prepare(config.data), local_hardware())
    with tempfile.TemporaryDirectory() as storage:
        folder = run_folder(storage, "story")
        folder.create()
        Loop(Trainer(plan, policy, load(config.data)), Plain(), folder).run()
        return folder.read_rows("ledger.jsonl")


def main() -> None:
    rows = ledger()
    shown = [
        [f"{row['step']}", f"{row['epoch']:.1f}", f"{wrong:.0e}", f"{row['lr']['sgd']:g}"]
        for row, wrong in zip(rows, tutorial(NUM_TRAIN // BATCH), strict=True)
        if row["step"] in SHOWN
    ]
    print(common.table(["update", "epoch", "lr *= 0.1 in the batch loop", "raylr's ledger"], shown))
    print(f"\nThe ledger's line of update 75: {json.dumps(rows[75])}")
    print(f"With the 98 batches an epoch of CIFAR-10, batch 512, the loop ends at {tutorial(98)[-1]:.0e}.")


if __name__ == "__main__":
    main()
