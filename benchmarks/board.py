"""An entry of the board: how many examples and seconds a config needs to a target, over seeds, with the hash of its first run.

It is a race (`raylr race`) without an opponent, told as one row of benchmarks/BOARD.md. Seconds are those of this machine,
without the start; the examples and the hash are the same on all machines of its kind. An interrupted race goes on.

    python -m benchmarks.board jobs/race70.yaml --target 0.7 --seeds 5 --data PATH
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks import common
from raylr.api.race import Race, race
from raylr.config.load import load_config

HEADINGS = [
    "config",
    "target",
    "seeds",
    "examples to it",
    "seconds to it",
    "test accuracy at the end",
    "hash of seed 0",
]


@dataclass(frozen=True)
class Ending:
    """How the runs of a race ended: mean test accuracy in %, and the first one's weights."""

    accuracy: float
    weights_sha256: str


def ending(found: Race) -> Ending:
    """Read the results of a race's runs."""
    results = [json.loads((Path(lap.run) / "result.json").read_text()) for lap in found.laps]
    return Ending(100 * fmean(result["test_accuracy"] for result in results), results[0]["weights_sha256"])


def row(config: Path, found: Race, end: Ending) -> list[str]:
    """The entry; a mean over the seeds that reached the target, and how many of them did."""
    reached = found.of("A")
    cells = []
    for what in ("examples", "seconds"):
        spread = found.spread("A", what)
        assert spread is not None
        cells.append(f"{spread.mean:,.0f}" + (f" +- {spread.deviation:,.0f}" if spread.count > 1 else ""))
    seeds = f"{len(reached)} of {len(found.laps)}"
    return [
        f"`{config.name}`",
        f"{found.target:.0%}",
        seeds,
        *cells,
        f"{end.accuracy:.2f} %",
        f"`{end.weights_sha256[:12]}`",
    ]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", default="2")
    given = parser.parse_args()
    storage = common.place(given) / "board"
    fields = {"data.source": given.data, "storage": str(storage), "workers": given.workers, "trackers": "none"}
    found = race(str(given.config), given.target, given.seeds, common=load_config(None, fields))
    print(common.table(HEADINGS, [row(given.config, found, ending(found))]))
    print(f"\n{common.conditions(f'{given.workers} workers, {Path(given.data).name}')}")


if __name__ == "__main__":
    main()
