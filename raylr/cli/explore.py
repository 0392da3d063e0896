"""The verbs `raylr explore` and `raylr distill`: search an LR schedule, and say it simply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raylr.cli.answers import Answer, json_flag
from raylr.cli.options import EXIT_CODES, Location
from raylr.cli.training import training_on
from raylr.config import Config
from raylr.config.load import load_config
from raylr.config.population import PopulationConfig
from raylr.storage import LocalFolder, folder_at

if TYPE_CHECKING:
    from raylr.api.retrain import Source


def explore(config: Config, as_json: bool) -> int:
    """Search an LR schedule with a population of trials that train at the same time.

    Every trial is data-parallel training of its own. With --search pbt, a trial that is among the worst after an interval
    becomes a copy of one of the best, in place, and goes on with another factor on its LR. best_policy.json is the LR that the
    best weights lived through: `raylr train --policy` trains it from scratch. ancestry.png shows which trial
    copied which. The same name again goes on.

    \b
    raylr explore --trials 8 --interval 1ep --epochs 8
    raylr explore --trials 4 --workers 2 --lr.shape constant --mutate "optimizer.momentum=0.8:0.97"
    """
    from raylr.api.explore import explore
    from raylr.reporting.ancestry import save_ancestry
    from raylr.reporting.population import PopulationDisplay

    assert isinstance(config, PopulationConfig)
    answer = Answer(as_json)
    with PopulationDisplay(answer.screen) as display:
        result = explore(config, display, progress=False)
    folder = folder_at(result.run_dir)
    if isinstance(folder, LocalFolder) and result.best is not None:
        save_ancestry(folder, folder.path / "ancestry.png")
    answer.say(result.model_dump(mode="json", exclude_unset=True))
    return EXIT_CODES.get(result.status, 1)


@click.command()
@click.argument("policy", metavar="POLICY|RUN")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.1, show_default=True, help="RMS error of log LR")
@click.option("--knots", type=click.IntRange(min=2), default=8, show_default=True, help="points that a curve may have")
@click.option("--out", type=Location(path_type=Path), help="the file to write [POLICY with .simple before .json]")
@click.option("--retrain", type=click.IntRange(min=1), metavar="K", help="also train the schedules, K seeds each")
@click.option("--peaks", type=click.IntRange(min=1), default=5, show_default=True, help="peak LRs tried for the cosine")
@click.option("--config", type=Location(path_type=Path), help="of the retrained runs [that of the population or run]")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@json_flag
def distill(
    policy: str,
    tolerance: float,
    knots: int,
    out: Path | None,
    retrain: int | None,
    peaks: int,
    config: Path | None,
    storage: str,
    as_json: bool,
) -> int:
    """Fit every closed-form shape to the LR of a policy, print them ranked, and write the simplest within a tolerance.

    POLICY|RUN is a policy's file, or a population or a run by its folder or name. The fit is by least squares on the
    logarithm of the LR, with a warmup where it helps. A curve that no shape comes near is written as straight lines in the
    logarithm between a few points.

    --retrain K trains the policy as found, the simple one, and a cosine, from scratch, at equal examples, with the K seeds
    after that of the config, and prints their test accuracies. The cosine is tuned first: one run with the config's own seed
    for each of --peaks base LRs, each twice the one before, around the config's own. The table says what tuning and search
    cost. The same command goes on where it was stopped, and trains nothing twice.
    """
    from raylr.api.plan import save_policy
    from raylr.api.retrain import source_of
    from raylr.lr.distill import distill
    from raylr.planning.lr import policy_of_file
    from raylr.reporting.population import fit_rows, fit_table

    answer, source = Answer(as_json), source_of(policy, storage)
    found = distill(policy_of_file(str(source.path)).policy, tolerance=tolerance, num_knots=knots)
    path = save_policy(found.chosen.policy, out or source.path.with_suffix(".simple.json"))
    told: dict[str, Any] = {"policy": str(source.path), "simple_policy": str(path), "fits": fit_rows(found)}
    if retrain is None:
        answer.lay_out(told, fit_table(found), f"policy for --policy: {path}")
        return 0
    answer.screen.print(fit_table(found))
    answer.screen.print(f"policy for --policy: {path}", soft_wrap=True)
    told |= _retrain(answer, source, load_config(config) if config else source.config(), path, retrain, peaks)
    answer.say(told)
    return 0


def _retrain(
    answer: Answer, source: Source, config: Config, distilled: Path, num_seeds: int, num_peaks: int
) -> dict[str, Any]:
    from raylr.api.retrain import retrain
    from raylr.reporting.population import standing_table

    rows = [
        standing.row()
        for standing in retrain(source, config, distilled, num_seeds, num_peaks, training_on(answer.screen))
    ]
    answer.screen.print(standing_table(rows))
    return {"seeds": num_seeds, "standings": rows}
