"""`raylr train` as it is, with a watch on its events. Takes its flags.

Prints `stamps` (seconds from the command to its landmarks) and `run_dir`.
"""

import json
import sys
from typing import Any

from benchmarks.common import mark, since_start
from raylr.cli import main as raylr
from raylr.reporting import progress

stamps: dict[str, float] = {}
told: dict[str, Any] = {}


class Watched(progress.Display):
    """The display of `raylr train`, which also notes when what came."""

    def __call__(self, event: dict[str, Any]) -> None:
        now = since_start()
        if event["kind"] == "progress":
            mark(event["position"])
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
    print(json.dumps({"stamps": stamps, "run_dir": told["run_dir"]}))
    return code


if __name__ == "__main__":
    sys.exit(main())
