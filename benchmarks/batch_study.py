"""How large the batch of a run may be at some places, beside the noise scale there: `raylr batch-study` on training images.

python -m benchmarks.batch_study --data PATH --write
"""

from pathlib import Path

from benchmarks import common
from raylr.api.batch_study import BatchStudy, batch_study
from raylr.reporting.batch_sizes import more, save_png

CONFIG = """\
model: {name: cnn-small}
epochs: 4
workers: 1
batch: {global_size: 128, micro_size: 64}
data: {validation: 0.1}
trackers: none
"""
AT, BATCHES, RULES = ("1ep", "3ep"), ("4x", "8x", "16x"), ("none", "sqrt", "linear")
TOLERANCE = 0.05
PLOT = common.ROOT / "benchmarks" / "gallery" / "batch_study.png"


def rows(found: BatchStudy) -> list[list[str]]:
    """A row for each batch at each place, the run's own first."""
    lines = []
    for place in found.places:
        kept = place.keeps.loss or 0.0
        noise = "-" if place.noise_scale is None else f"{place.noise_scale:,.0f}"
        where = f"epoch {place.epoch:.2g}"
        lines.append([where, noise, f"{place.batch:,}", *[f"{kept:.3f}"] * len(RULES), "the run's own"])
        for size in dict.fromkeys(one.batch for one in place.branches):
            by_rule = {one.rule: one.loss for one in place.branches if one.batch == size}
            largest = f"the largest, {place.rule}" if size == place.largest else ""
            lines.append([where, noise, f"{size:,}", *(more(by_rule[rule], kept) for rule in RULES), largest])
    return lines


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=10000)
    arguments = parser.parse_args()
    out = common.place(arguments)
    out.mkdir(parents=True, exist_ok=True)
    config = out / "batch_study.yaml"
    config.write_text(CONFIG)
    changes = {"storage": out / "runs", "data.source": arguments.data, "data.train_examples": arguments.train_examples}
    found = batch_study(str(config), changes, AT, BATCHES, RULES, "1ep", TOLERANCE)
    headings = ["place", "noise scale", "batch", *RULES, "answer"]
    told = (
        f"cnn-small with SGD, {arguments.train_examples:,} training images of {Path(arguments.data).name}, a tenth held out; "
        f"each branch trains {found.window:,} examples at the LR held; loss on the held-out images, mean of the tests in the "
        f"second half, less that of the branch that keeps the batch; at most {TOLERANCE:g} more is little; one seed"
    )
    picture = f"![Noise scale and largest batch](gallery/{PLOT.name})"
    if arguments.write:
        save_png(found.places, PLOT)
    common.report(
        "batch_study",
        "\n\n".join([common.table(headings, rows(found)), picture, common.conditions(told)]),
        arguments.write,
    )


if __name__ == "__main__":
    main()
