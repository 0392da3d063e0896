"""What a population costs its driver: CPU time per result and memory, for 4 to 256 trials that a stand-in trains.

The stand-in makes up a score for each trial and round; everything else is the driver's own code: Tune's PBT, the journal,
explore.json and best_policy.json after every round. It needs no torch, no cluster and one process per size.

    python -m benchmarks.population_driver --write
"""

import json
import random
import resource
import tempfile
import time
from pathlib import Path

from benchmarks import common
from raylr.events import OfTrial, TrialReport

SIZES, ROUNDS = (4, 16, 64, 256), 20


def measure(trials: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds per result and the process's largest memory in MB."""
    from raylr.config.population import PopulationConfig
    from raylr.planning.facts import Hardware
    from raylr.running.population.space import Space
    from raylr.running.session import set_up
    from raylr.storage import LocalFolder
    from raylr.training.data import describe

    set_up()
    from raylr.running.population.journal import Journal
    from raylr.running.population.population import Population
    from raylr.running.population.result import Results

    config = PopulationConfig(data={"source": "synthetic"}, epochs=rounds, workers="1", trials=trials)
    space = Space.of(config, describe(config.data), Hardware(bf16=False, num_gpus=0))
    with tempfile.TemporaryDirectory() as path:
        population = Population(space, Journal(LocalFolder(Path(path))))
        results, scores = Results(population, LocalFolder(Path(path)), {}), random.Random(0)
        started = time.process_time()
        for number in range(1, rounds + 1):
            for name in population.names:
                results.take(_report(name, number, scores.random()))
        cpu_s = time.process_time() - started
    return {
        "trials": trials,
        "ms_per_result": 1000 * cpu_s / (trials * rounds),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _report(name: str, number: int, score: float) -> OfTrial:
    state = f"{name}-{number}"
    report = TrialReport(
        round=number, ended=False, position=number, test_accuracy=score, test_loss=0.0, lr={"sgd": 0.1},
        weights_sha256=state, optimizer_sha256=state, overrides=(), train_s=1.0,
    )  # fmt: skip
    return OfTrial(name, report)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", type=int, help="measure this size in this process")
    given = parser.parse_args()
    if given.only is not None:
        print(json.dumps(measure(given.only, ROUNDS)))
        return
    lines = []
    for trials in SIZES:
        row = common.launch(common.python("benchmarks.population_driver", "--only", str(trials)))
        lines.append([f"{trials}", f"{row['ms_per_result']:.2f}", f"{row['memory_mb']:.0f}"])
    table = common.table(["trials", "CPU ms per result", "memory of the driver, MB"], lines)
    common.report("population_driver", f"{table}\n\n{common.conditions(f'{ROUNDS} rounds')}", given.write)


if __name__ == "__main__":
    main()
