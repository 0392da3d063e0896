"""`raylr train` as it is, with a watch on its events. Takes its flags.

Prints `images_per_s` after the first fifth of the run, as the driver sees it, `stamps` (seconds from the command to its
landmarks) and `run_dir`.
"""

import json
import sys
import time
from typing import Any

from benchmarks.common import images_per_s, since_start
from raylr.cli import main as raylr
from raylr.reporting import progress

marks: list[tuple[float, int]] = []
stamps: dict[str, float] = {}
told: dict[str, Any] = {}


class Watched(progress.Display):
    """The display of `raylr train`, which also notes when what came."""

    def __call__(self, event: dict[str, Any]) -> None:
        now = since_start()
        if event["kind"] == "progress":
            marks.append((time.perf_counter(), event["position"]))
            told.update(total=event["total"])
        landmark = {"plan": "driver", "starting": "cluster", "progress": "update", "finished": "end"}.get(event["kind"])
        if event["kind"] == "event" and event["row"]["kind"] == "start":
            landmark = "workers"
        if landmark:
            stamps.setdefault(landmark, now)
        told.update(run_dir=event.get("run_dir", told.get("run_dir")))
        super().__call__(event)


def main() -> int:
    progress.Display = Watched  # type: ignore[misc]
    code = raylr(["train", *sys.argv[1:]])
    skip = told["total"] // 5
    steady = marks[0][1] < marks[-1][1] and marks[-1][1] > skip
    rate = images_per_s(marks, skip) if steady else None
    print(json.dumps({"images_per_s": rate, "stamps": stamps, "run_dir": told["run_dir"]}))
    return code


if __name__ == "__main__":
    sys.exit(main())
