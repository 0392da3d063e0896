"""Test accuracy of a config from jobs/, over seeds. Exit code 1 when a seed ends below --at-least.

Each seed is a run of `raylr train`; one that was interrupted goes on from its checkpoint. Further flags are handed on.

    python -m benchmarks.accuracy --config jobs/accuracy88.yaml --seeds 0 1 2 --at-least 0.88 --data PATH --write
"""

import sys
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row


def lines(results: list[Row]) -> list[list[str]]:
    return [
        [
            str(result["seed"]),
            f"{result['test_accuracy']:.2%}",
            f"{result['epochs']:g}",
            f"{result['images_per_s']:,.0f}",
            f"{result['wall_s'] / 60:.1f}",
            result["weights_sha256"][:12],
        ]
        for result in results
    ]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("jobs/accuracy88.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-least", type=float, default=0.0, help="what each seed must reach, such as 0.88")
    arguments, flags = parser.parse_known_args()
    config, storage = arguments.config, common.place(arguments) / "accuracy"
    flags = [str(config), f"--data.source={arguments.data}", *flags]
    results = [common.trained(storage, f"{config.stem}-{seed}", f"--seed={seed}", *flags) for seed in arguments.seeds]
    headings = ["seed", "test accuracy", "epochs", "images/s", "minutes with tests", "weights_sha256"]
    accuracies = [result["test_accuracy"] for result in results]
    mean = common.interval([100 * accuracy for accuracy in accuracies]).text()
    count = f"{config.name}, data {Path(arguments.data).name}; mean accuracy of seeds {arguments.seeds} in %: {mean}"
    text = f"{common.table(headings, lines(results))}\n\n{common.conditions(count)}"
    common.report(config.stem, text, arguments.write)
    if min(accuracies) < arguments.at_least:
        sys.exit(f"test accuracy {min(accuracies):.4f} is below {arguments.at_least}")


if __name__ == "__main__":
    main()
