"""What searches of an LR schedule find, at equal examples: FIRE PBT, PBT, a random search, a tuned cosine, and distilled.

Every search trains as many trials over as many examples. PBT and FIRE PBT bend a constant LR; the random search looks for
the best constant; the cosine is tuned by a grid over its peak. `best of the search` is the score of its best trial, chosen on
the very images that it was scored on. `from scratch` trains what was found anew, with another seed: the policy of the best
trial, and what `raylr distill` makes of it. Each seed is a search of its own; an interrupted benchmark goes on where it
stopped. Further flags are handed on to searches and runs.

    python -m benchmarks.population_table --data PATH --seeds 0 1 2 --write
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row

SEARCHES = {
    "FIRE PBT": ["--search=fire", "--lr.shape=constant"],
    "PBT": ["--search=pbt", "--lr.shape=constant"],
    "random search": ["--search=random", "--lr.shape=constant"],
    "tuned cosine": ["--search=grid", "--lr.shape=cosine"],
}
DISTILLED = ("FIRE PBT", "PBT")
OTHER_SEED = 1000  # added to a search's seed when what it found is trained


def explored(storage: Path, name: str, *arguments: str) -> Row:
    """The result of this run of `raylr explore`, which goes on where it was interrupted. It must end well."""
    _run("explore", f"--storage={storage}", f"--name={name}", *arguments)
    result: Row = json.loads((storage / name / "explore.json").read_text())
    return result


def from_scratch(storage: Path, name: str, policy: Path, seed: int, flags: list[str]) -> float:
    """Test accuracy, in %, of a policy that is trained with another seed than that of its search."""
    again = [f"--policy={policy}", f"--seed={seed + OTHER_SEED}", *flags]
    return 100 * float(common.trained(storage, f"{name}-from-scratch", *again)["test_accuracy"])


def distilled(policy: Path) -> Path:
    """The simple form of a policy, beside it."""
    simple = policy.with_suffix(".simple.json")
    if not simple.exists():
        _run("distill", str(policy))
    return simple


def _run(*arguments: str) -> None:
    done = subprocess.run(common.python("raylr", *arguments), cwd=common.ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def measure(
    storage: Path, seeds: list[int], population: list[str], flags: list[str]
) -> dict[str, dict[str, list[float]]]:
    """By what was found: accuracies in % of the best of the search and from scratch, a seed each."""
    found: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        for title, search in SEARCHES.items():
            name = f"{title.lower().replace(' ', '-')}-{seed}"
            best = explored(storage, name, f"--seed={seed}", *search, *population, *flags)["best_score"]
            policy = storage / name / "best_policy.json"
            both = found.setdefault(title, {"best": [], "again": []})
            both["best"].append(100 * best)
            both["again"].append(from_scratch(storage, name, policy, seed, flags))
            if title in DISTILLED:
                again = from_scratch(storage, f"{name}-distilled", distilled(policy), seed, flags)
                found.setdefault(f"{title}, distilled", {"best": [], "again": []})["again"].append(again)
    return found


def lines(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """The table's rows, the best from scratch first."""
    order = sorted(found, key=lambda title: -common.interval(found[title]["again"]).mean)
    return [
        [title, *(common.interval(found[title][one]).text() if found[title][one] else "" for one in ("best", "again"))]
        for title in order
    ]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=20, help="of every trial and run")
    parser.add_argument("--interval", default="1ep")
    parser.add_argument("--train-examples", type=int, default=5000)
    parser.add_argument("--test-examples", type=int, default=2000)
    given, flags = parser.parse_known_args()
    size = f"{given.trials}x{given.epochs:g}x{given.train_examples}"
    storage = common.place(given) / f"population_table-{size}"
    flags = [
        *(f"--data.source={given.data}", f"--data.train-examples={given.train_examples}", "--workers=1", "--gpu=no"),
        *("--data.validation=0.1", f"--data.test-examples={given.test_examples}", *flags),
    ]
    population = [f"--trials={given.trials}", f"--interval={given.interval}", f"--epochs={given.epochs:g}"]
    found = measure(storage, given.seeds, population, flags)
    each = int(given.trials * given.epochs * given.train_examples)
    text = common.table(["schedule", "best of the search, %", "from scratch, %"], lines(found))
    what = (
        f"{len(given.seeds)} seeds, 95 % intervals; cnn-small, {given.train_examples} training and {given.test_examples} test "
        f"images of {Path(given.data).name}; {given.trials} trials of {given.epochs:g} epochs, {each:,} examples a search"
    )
    common.report("population_table", f"{text}\n\n{common.conditions(what)}", given.write)


if __name__ == "__main__":
    main()
