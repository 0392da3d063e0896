"""The verbs `raylr explore` and `raylr distill`: search an LR schedule, and say it simply."""

from pathlib import Path

import click

from raylr.config import Config
from raylr.population_config import PopulationConfig
from raylr.storage import Folder

EXIT_CODES = {"complete": 0, "stopped": 143}


def explore(config: Config) -> int:
    """Search an LR schedule with a population of trials that train at the same time.

    Every trial is data-parallel training of its own. With --search pbt, a trial that is among the worst after an interval
    becomes a copy of one of the best, in place, and goes on with another factor on its LR. best_policy.json is the LR that the
    best weights lived through: `raylr train --policy` trains it from scratch. ancestry.png shows who copied whom. The same
    name again goes on.

    \b
    raylr explore --trials 8 --interval 1ep --epochs 8
    raylr explore --trials 4 --workers 2 --lr.shape constant --mutate "optimizer.momentum=0.8:0.97"
    """
    from raylr.reporting.ancestry import save_ancestry
    from raylr.reporting.population import PopulationDisplay
    from raylr.running.population.driver import explore

    assert isinstance(config, PopulationConfig)
    with PopulationDisplay() as display:
        result = explore(config, display)
    if "://" not in result.run_dir and result.best is not None:
        save_ancestry(Folder(Path(result.run_dir)), Path(result.run_dir, "ancestry.png"))
    return EXIT_CODES.get(result.status, 1)


@click.command()
@click.argument("policy", type=click.Path(path_type=Path))
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.1, show_default=True, help="RMS error of log LR")
@click.option("--knots", type=click.IntRange(min=2), default=8, show_default=True, help="points that a curve may have")
@click.option("--out", type=click.Path(path_type=Path), help="the file to write [POLICY with .simple before .json]")
def distill(policy: Path, tolerance: float, knots: int, out: Path | None) -> int:
    """Fit every closed-form shape to the LR of POLICY, print them ranked, and write the simplest within a tolerance.

    The fit is by least squares on the logarithm of the LR, with a warmup where it helps. A curve that no shape comes near is
    written as straight lines in the logarithm between a few points.
    """
    from raylr.choose_lr import policy_of_file
    from raylr.lr.distill import distill
    from raylr.planning import save_policy
    from raylr.reporting.population import fit_table
    from raylr.reporting.tables import console

    found = distill(policy_of_file(str(policy)).policy, tolerance=tolerance, num_knots=knots)
    screen = console()
    screen.print(fit_table(found))
    path = save_policy(found.chosen.policy, out or policy.with_suffix(".simple.json"))
    screen.print(f"policy for --policy: {path}", soft_wrap=True)
    return 0
