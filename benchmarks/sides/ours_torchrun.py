"""raylr's loop in the ranks of torchrun, without Ray. Takes the flags of `raylr train`, each as --FLAG=VALUE.

Prints `images_per_s` and `bytes_per_update` (of all ranks together, as the loopback device counts them) after the first
fifth of the run, and `weights_sha256`.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.common import images_per_s
from raylr.resolve import local_hardware, resolve
from raylr.settings import load_config
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.ddp import trainer_for
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.seat import Plain


class Stopwatch(Plain):
    """A place in torchrun's group that notes when the loop tells of its progress."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self.marks: list[tuple[float, int]] = []
        self.loopback: list[int] = []

    def publish(self, event: dict[str, Any]) -> None:
        if event["kind"] == "progress":
            self.marks.append((time.perf_counter(), event["position"]))
            self.loopback.append(loopback_bytes())


def loopback_bytes() -> int:
    """Bytes that this machine has sent to itself."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])


def fields(flags: Sequence[str]) -> dict[str, str]:
    """The config's fields behind flags such as --batch.global-size=512."""
    pairs = (flag.removeprefix("--").split("=", 1) for flag in flags)
    return {name.replace("-", "_"): value for name, value in pairs}


def main() -> None:
    config = load_config(None, fields(sys.argv[1:]))
    plan, policy = resolve(config, prepare(config.data), local_hardware())
    dist.init_process_group("gloo")
    seat = Stopwatch(Group(dist.group.WORLD, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])))
    trainer = trainer_for(plan)(plan, policy, load(config.data))
    with tempfile.TemporaryDirectory() as storage:
        folder = run_folder(storage, "run")
        folder.create()
        result = Loop(trainer, seat, folder).run()
    dist.destroy_process_group()
    if not seat.marks:
        return
    skip, batch = plan.total_examples // 5, plan.batch_at(plan.workers[1])
    first = next(index for index, (_, position) in enumerate(seat.marks) if position >= skip)
    num_updates = (seat.marks[-1][1] - seat.marks[first][1]) // batch
    row = {
        "images_per_s": images_per_s(seat.marks, skip),
        "bytes_per_update": (seat.loopback[-1] - seat.loopback[first]) / num_updates,
        "weights_sha256": result["weights_sha256"],
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
