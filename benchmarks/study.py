"""The best LR against the width of a model and the amount of data, and whether a rule carries it over: `raylr study`.

cnn-small with SGD and momentum, at 0.25, 0.5 and 1 times its channels, with and without the rule of CompleteP; then at two
amounts of data and two floors of a linear decay. Judged by the loss on held-out training images; no test images are used.

    python -m benchmarks.study --data PATH --write
"""

from pathlib import Path

from benchmarks import common, in_process
from raylr.api.study import Study, study
from raylr.config import Config
from raylr.reporting.study import save_png

PLOT = common.ROOT / "benchmarks" / "gallery" / "study.png"
BATCH, EPOCHS, EXAMPLES, SEEDS = 64, 4, 800, 2
WIDTHS = (0.25, 0.5, 1.0)
LRS = (0.8, 1.6, 3.2, 6.4)  # at the reference batch of 512
AMOUNTS = (100, 400)
DECAYS = (0.0, 1.0)


def config_of(source: str, storage: Path) -> Config:
    return Config(
        storage=str(storage), trackers="none", workers="1", gpu="no", precision="fp32", epochs=EPOCHS,
        data={"source": source}, batch={"global_size": BATCH, "micro_size": BATCH}, guard={"enabled": False},
    )  # fmt: skip


def by_width(found: Study) -> str:
    """A line for each width and rule."""
    lines = []
    for one in found.answers:
        losses = [f"{cell.loss:.3f}" for cell in sorted(one.cells, key=lambda cell: cell.lr)]
        best = one.best
        told = ["-"] * 3 if best is None else [f"{best.lr:.2g}", _spread(best.cell.spread), f"{best.regret or 0:.3f}"]
        lines.append([f"{one.place.transfer}, width {one.place.width:g}", *losses, *told])
    headings = ["rule, width", *(f"LR {lr:g}" for lr in LRS), "best LR", "between seeds", "cost of width 1's best"]
    return common.table(headings, lines)


def by_amount(found: Study) -> str:
    """A line for each number of images and floor of the decay."""
    lines = []
    for one in found.answers:
        for decay in DECAYS:
            cells = sorted((cell for cell in one.cells if cell.decay == decay), key=lambda cell: cell.lr)
            best = min(cells, key=lambda cell: cell.loss)
            told = [f"{best.lr:g}", f"{best.loss:.3f}", _spread(best.spread), f"{100 * (best.accuracy or 0):.1f}"]
            lines.append([f"{one.place.examples:,} images, to {decay:g} of the peak", *told])
    return common.table(["images, decay", "best LR", "its loss", "between seeds", "accuracy, %"], lines)


def _spread(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", choices=("widths", "amounts"), help="train this part alone, and tell nothing")
    arguments = parser.parse_args()
    config = config_of(arguments.data, common.place(arguments) / "study")
    do = {"seeds": SEEDS, "train": in_process.train, "hold": in_process.hold}
    if arguments.only != "amounts":
        widths = study(config, WIDTHS, LRS, (EXAMPLES,), transfers=("none", "completep"), **do)  # type: ignore[arg-type]
    if arguments.only == "widths":
        return
    amounts = study(config, (1.0,), LRS[1:], AMOUNTS, DECAYS, **do)  # type: ignore[arg-type]
    if arguments.only == "amounts":
        return
    if arguments.write:
        save_png(widths, PLOT)
    text = "\n\n".join(
        [
            by_width(widths),
            f"![The losses over the LR](gallery/{PLOT.name})",
            by_amount(amounts),
            common.conditions(
                f"Loss on held-out training images (a fifth more), cnn-small, sgd, {EPOCHS} epochs of {EXAMPLES:,} images of "
                f"{Path(arguments.data).name} where none are named, batch {BATCH}, mean of {SEEDS} seeds; LRs at the reference "
                "batch of 512; best LR: of a parabola through the grid"
            ),
        ]
    )
    common.report("study", text, arguments.write)


if __name__ == "__main__":
    main()
