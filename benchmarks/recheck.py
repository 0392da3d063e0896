"""False alarms of the sentinel in updates of a healthy run that are all checked, and what checks cost.

The cost is the ratio of images/s to a run without checks, in rounds; expected is 1 / (1 + p / M) for the share p and the M
micro-batches of a worker.

    python -m benchmarks.recheck --updates 10000 --rounds 3 --write
"""

import json
import sys
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row, Store

SHARES = (0.0, 0.01, 0.1, 1.0)
NUM_TRAIN, BATCH, MICRO, WORKERS = 1024, 64, 16, 2
SMALL = (16, 8)  # batch and micro-batch where only the number of updates counts
FLAGS = [
    "--data.source=synthetic", f"--data.train-examples={NUM_TRAIN}", "--data.test-examples=200",
    "--eval.every=1dur", "--checkpoint.every=1dur",
    "--precision=fp32", f"--workers={WORKERS}", "--gpu=no", "--trackers=none", "--fresh",
]  # fmt: skip


def measure(storage: Path, share: float, num_updates: int, name: str, sizes: tuple[int, int] = (BATCH, MICRO)) -> Row:
    """A run of so many updates: images/s, differences that were found, and the hash of its weights."""
    batch, micro = sizes
    flags = [*FLAGS, f"--batch.global-size={batch}", f"--batch.micro-size={micro}"]
    epochs = num_updates * batch / NUM_TRAIN
    result = common.trained(storage, name, *flags, f"--epochs={epochs:g}", f"--guard.recheck={share:g}")
    kinds = [json.loads(line)["kind"] for line in (storage / name / "events.jsonl").read_text().splitlines()]
    kept = {key: result[key] for key in ("images_per_s", "steps", "weights_sha256")}
    return {**kept, "differences": kinds.count("corruption")}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store, storage = Store(out, "recheck"), out / "recheck"
    storage.mkdir(exist_ok=True)
    keys = {"what": "alarms", "updates": arguments.updates}
    alarms = store.measured(keys, measure, storage, 1.0, arguments.updates, "alarms", SMALL)
    rates: dict[float, list[float]] = {share: [] for share in SHARES}
    found = set()
    for number in range(arguments.rounds):
        for share in [float(one) for one in common.alternating([str(one) for one in SHARES], number)]:
            keys = {"what": "cost", "share": share, "round": number}
            row = store.measured(keys, measure, storage, share, 1600, f"share-{share:g}-{number}")
            rates[share].append(row["images_per_s"])
            found.add(row["weights_sha256"])
    num_own = BATCH // MICRO // WORKERS
    lines = [
        [
            f"`guard.recheck={share:g}`",
            common.ratio(rates[share], rates[0.0]).text(),
            f"{1 / (1 + share / num_own):.3f}",
        ]
        for share in SHARES[1:]
    ]
    text = "\n\n".join(
        [
            common.table(["checks", "images/s, times those without", "expected"], lines),
            f"{alarms['differences']} differences in {alarms['steps']:,} updates of {WORKERS} workers that were all checked; "
            f"the weights of all {len(SHARES) * arguments.rounds} runs are {'equal' if len(found) == 1 else 'NOT equal'}.",
            common.conditions(f"{arguments.rounds} rounds of 1,600 updates, {num_own} micro-batches per worker"),
        ]
    )
    common.report("recheck", text, arguments.write)
    if alarms["differences"] or len(found) != 1:
        sys.exit("a healthy run was accused, or its bits changed")


if __name__ == "__main__":
    main()
