"""`raylr train` as it is, with a watch on its events. Takes its flags.

Prints `stamps` (seconds from the command to its landmarks) and `run_dir`.
"""

import json
import sys

from benchmarks.common import mark, since_start
from raylr.cli import main as raylr
from raylr.events import Finished, Joined, News, Planned, Progress, Starting
from raylr.reporting import progress

stamps: dict[str, float] = {}
told: dict[str, str] = {}


class Watched(progress.Display):
    """The display of `raylr train`, which also notes when what came."""

    def __call__(self, news: News) -> None:
        now = since_start()
        landmark = ""
        match news:
            case Planned(run_dir):
                landmark = "driver"
                told["run_dir"] = run_dir
            case Starting():
                landmark = "cluster"
            case Joined(kind="start"):
                landmark = "workers"
            case Progress(position):
                landmark = "update"
                mark(position)
            case Finished():
                landmark = "end"
        if landmark:
            stamps.setdefault(landmark, now)
        super().__call__(news)


def main() -> int:
    progress.Display = Watched  # type: ignore[misc]
    code = raylr(["train", *sys.argv[1:]])
    print(json.dumps({"stamps": stamps, "run_dir": told["run_dir"]}))
    return code


if __name__ == "__main__":
    sys.exit(main())
