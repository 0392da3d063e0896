"""What `raylr advise` says, and whether a warmup helps where it says so: three models, several LRs, trained with and without.

Each is asked at its default LR and at multiples of it. Then it is trained from scratch without a warmup and with one: the
advised one, or FALLBACK updates where none is needed or none was enough. Accuracy is on held-out training images; test images
are not used. resnet18 and vit-small have small batches and few images: they are too slow here to be trained for long.

    python -m benchmarks.advise --data PATH --write
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import common, in_process
from benchmarks.common import Row, Store
from raylr.api.advise import advise
from raylr.config import Config
from raylr.planning.defaults import TUNED
from raylr.storage import finite

FALLBACK = 20  # updates of warmup that are trained beside none
LIMIT = 40  # updates of the longest warmup that is tried


@dataclass(frozen=True)
class Case:
    """A model with its optimizer, how much it sees, and the multiples of the tuned LR."""

    model: str
    optimizer: str
    examples: int
    batch: int
    micro: int
    epochs: float
    multiples: tuple[float, ...]
    updates: int = LIMIT
    seeds: int = 3
    tries: int = 3  # seeds that are trained to the end
    products: int = 30


CASES = (
    Case("resnet18", "sgd", 1000, 16, 16, 1, (1.0, 4.0), updates=20, seeds=1, products=20),
    Case("vit-small", "adamw", 960, 32, 32, 2, (1.0, 8.0), updates=20, seeds=1),
    Case("cnn-small", "sgd", 4000, 128, 64, 3, (1.0, 4.0, 16.0, 32.0)),
)


def config_of(case: Case, multiple: float, arguments: argparse.Namespace) -> Config:
    """Train on so many images, with a fifth more held out."""
    return Config(
        storage=str(common.place(arguments) / "advise"),
        trackers="none",
        workers="1",
        gpu="no",
        precision="fp32",
        epochs=case.epochs,
        data={"source": arguments.data, "train_examples": case.examples * 5 // 4, "validation": 0.2},
        model={"name": case.model},
        batch={"global_size": case.batch, "micro_size": case.micro},
        optimizer={"name": case.optimizer},
        lr={"base": TUNED[case.optimizer].base_lr * multiple},
        guard={"enabled": False},
        eval={"every": "1dur"},
        checkpoint={"every": "1dur", "keep": 1},
        instruments={"sharpness_products": case.products},
    )


def asked(case: Case, config: Config) -> Row:
    found = advise(None, config, case.updates, case.seeds, train=in_process.train, hold=in_process.hold)
    return {"advice": found.row()}


def trained(config: Config, warmup: int, seed: int) -> Row:
    """The accuracy on held-out images after training with so many updates of warmup."""
    own = config.model_dump(exclude_unset=True)
    own["lr"] |= {"warmup": f"{warmup}st" if warmup else "0ep"}
    multiple = own["lr"]["base"]
    name = f"{config.model.name}-{multiple:g}-{warmup}-{seed}"
    result = in_process.train(Config(**{**own, "seed": seed, "name": name})).model_dump()
    return {"accuracy": result["validation_accuracy"], "loss": finite(result.get("validation_loss"))}


def warmup_of(advice: dict[str, Any]) -> int:
    """The warmup that is trained beside none."""
    return advice["warmup"] or FALLBACK


def line(case: Case, multiple: float, advice: dict[str, Any], scores: dict[str, list[Row]]) -> list[str]:
    first, *others = advice["arms"]
    bounds = first["bounds"]
    edge = next((bound for bound in bounds if bound["step"] == 0), None)
    shares = [_share(bound) for bound in (edge, bounds[-1] if len(bounds) > 1 else None)]
    last = (others or [first])[-1]
    said = "none" if not advice["needed"] else f"{advice['warmup']} updates" if advice["warmup"] else "not enough"

    def accuracy(rows: list[Row]) -> str:
        return f"{100 * fmean(row['accuracy'] for row in rows):.1f}" if rows else "-"

    tried = f"{accuracy(scores['with'])} ({warmup_of(advice)})" if scores["with"] else "-"
    (peak,) = advice["peak_lr"].values()
    return [
        f"{case.model}, {case.optimizer}, x {multiple:g}", f"{peak:.3g}", _number(first["headrooms"][0]),
        _number(first["highest"]), *shares, said, _number(last["highest"]), accuracy(scores["without"]), tried,
    ]  # fmt: skip


def _share(bound: dict[str, Any] | None) -> str:
    if bound is None:
        return "-"
    return (
        "not converged"
        if bound["eigenvalue"] is None or bound["edge"] is None
        else f"{bound['lr'] / bound['edge']:.2g}"
    )


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.2g}"


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", help="model to do alone")
    parser.add_argument("--kept", action="store_true", help="tell of what is measured, and measure nothing")
    arguments = parser.parse_args()
    store = Store(common.place(arguments), "advise")
    lines = []
    for case in CASES:
        for multiple in case.multiples:
            if arguments.only not in (None, case.model):
                continue
            config = config_of(case, multiple, arguments)
            keys = {"model": case.model, "multiple": multiple, "examples": case.examples}
            if arguments.kept and not store.rows(**keys, what="advice"):
                continue
            advice = store.measured({**keys, "what": "advice"}, asked, case, config)["advice"]
            scores = {
                what: [
                    store.measured({**keys, "warmup": warmup, "seed": seed}, trained, config, warmup, seed)
                    for seed in range(case.tries)
                    if not arguments.kept or store.rows(**keys, warmup=warmup, seed=seed)
                ]
                for what, warmup in (("without", 0), ("with", warmup_of(advice)))
            }
            lines.append(line(case, multiple, advice, scores))
    headings = [
        "run", "peak LR", "first headroom", "highest", "LR / edge, first", "after 30 updates", "advice", "highest with it",
        "accuracy without", "with",
    ]  # fmt: skip
    sizes = "; ".join(
        f"{one.model}: {one.examples} images, batch {one.batch}, {one.seeds} seeds asked, {one.tries} trained {one.epochs:g} "
        "epochs"
        for one in CASES
    )
    text = "\n\n".join(
        [
            common.table(headings, lines),
            common.conditions(
                f"{Path(arguments.data).name}; {sizes}; x: of the tuned LR, scaled to the batch; accuracy on held-out training "
                f"images in %, in brackets the updates of warmup; warmups of up to {LIMIT} updates were tried, "
                f"{CASES[0].updates} of resnet18 and vit-small"
            ),
        ]
    )
    common.report("advise", text, arguments.write)


if __name__ == "__main__":
    main()
