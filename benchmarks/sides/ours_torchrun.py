"""raylr's loop in the ranks of torchrun, without Ray. Takes the flags of `raylr train`, each as --FLAG=VALUE.

Prints `bytes_per_update` (of all ranks together, as the loopback device counts them) after the first fifth of the run, and
`weights_sha256`.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from benchmarks.common import mark
from raylr.config.load import load_config
from raylr.events import News, Progress
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.storage import run_folder
from raylr.training import loop
from raylr.training.data import load, prepare
from raylr.training.ddp import trainer_for
from raylr.training.group import Group
from raylr.training.membership import Plain


class Stopwatch(Plain):
    """Membership of torchrun's group that notes when the loop tells of its progress."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self.sent: list[tuple[int, int]] = []  # position, bytes so far

    def publish(self, news: News) -> None:
        if isinstance(news, Progress):
            mark(news.position)
            self.sent.append((news.position, loopback_bytes()))


def loopback_bytes() -> int:
    """Bytes that this machine has sent to itself."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])


def fields(flags: Sequence[str]) -> dict[str, str]:
    """The config's fields behind flags such as --batch.global-size=512."""
    pairs = (flag.removeprefix("--").split("=", 1) for flag in flags)
    return {name.replace("-", "_"): value for name, value in pairs}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no folder behind
    loop.PROGRESS_INTERVAL_S = 0.0  # tell of each update: a run that counts bytes has ten
    config = load_config(None, fields(sys.argv[1:]))
    plan, policy = resolve(config, prepare(config.data), local_hardware())
    dist.init_process_group("gloo")
    membership = Stopwatch(Group(dist.group.WORLD, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])))
    trainer = trainer_for(plan)(plan, policy, load(config.data))
    with tempfile.TemporaryDirectory() as storage:
        folder = run_folder(storage, "run")
        folder.create()
        result = loop.Loop(trainer, membership, folder).run()
    dist.destroy_process_group()
    if not membership.sent:
        return
    (begin, before), *_ = (one for one in membership.sent if one[0] >= plan.total_examples // 5)
    end, after = membership.sent[-1]
    row = {
        "bytes_per_update": (after - before) / ((end - begin) // plan.batch_at(plan.workers[1])),
        "weights_sha256": result["weights_sha256"],
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
