"""The verb `raylr refine`, and the shapes that `raylr plan --rank` puts in order."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from raylr.cli.answers import Answer, json_flag
from raylr.cli.options import Location
from raylr.reporting.prose import Prose

if TYPE_CHECKING:
    from raylr.api.refine import Refined
    from raylr.config import Config
    from raylr.lr import Policy
    from raylr.planning.plan import Plan
    from raylr.running.driver import RunResult

DEFAULT = "default"


@click.command()
@click.argument("run")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="refine again from a run under it"
)
@click.option(
    "--tau", type=float, default=0.1, show_default=True, help="share of the run over which norms are smoothed"
)
@click.option(
    "--exponent", type=click.FloatRange(min=0, min_open=True), help="of 1 / norm [2 for sgd and lars, else 1]"
)
@click.option("--out", type=Location(path_type=Path), help="the file to write [policy.refined.json in RUN's folder]")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@json_flag
def refine(
    run: str, rounds: int, tau: float, exponent: float | None, out: Path | None, storage: str, as_json: bool
) -> int:
    """Write the schedule that the gradient norms of RUN suggest, as a policy for --policy.

    The multiplier of update t is w(t) times the sum of all w after it, with w = 1 / norm^2 for SGD, of norms that a median
    filter has smoothed: linear decay where norms are equal, a warmup where they are large at first, a faster fall where they
    grow (Defazio et al. 2023, arXiv 2310.07831). The peak LR stays that of RUN. --rounds 2 trains the result under RUN's
    config, as RUN-refined1, and refines that run's norms.

    \b
    raylr refine base
    raylr train runs/base/config.yaml --policy runs/base/policy.refined.json --name refined
    """
    from raylr.api.refine import refine
    from raylr.api.train import train
    from raylr.reporting.progress import Display

    answer = Answer(as_json)

    def trained(config: "Config") -> "RunResult":
        answer.screen.print(f"training {config.name}", soft_wrap=True)
        with Display(answer.screen) as display:
            return train(config, display, progress=False)

    found = refine(run, storage, rounds, tau, exponent, out, trained)
    answer.say(found.row(), *_told(found))
    return 0


def _told(found: "Refined") -> list[RenderableType]:
    """The formula, what it was made from, and how to train it."""
    power = "norm" if found.exponent == 1 else f"norm^{found.exponent:g}"
    ratio = found.bounds[1] / found.bounds[0]
    return [
        Prose(
            f"from the norms of {found.num_updates:,} updates of {', '.join(found.runs)}: multiplier(t) = w(t) x sum of later "
            f"w, w = 1/{power} over {found.tau:g} of the run (arXiv 2310.07831)"
        ),
        Prose(f"{found.num_knots} knots, straight lines within {found.error:.2g} of the peak; no warmup besides"),
        Prose(f"convex bound with these norms: {ratio:.3f} of that of the run's own LR (arXiv 2501.18965), a hint"),
        f"policy for --policy: {found.path}",
    ]


def ranking(made: "Plan", policy: "Policy", what: str) -> tuple[list[dict[str, Any]], list[RenderableType]]:
    """Shapes by the convex bound, as rows and as people are shown them; `what` is a run with norms, or `default`."""
    from raylr.api.refine import norms_of, rank
    from raylr.reporting.tables import plain_table
    from raylr.storage import open_run

    rows = rank(made, policy, None if what == DEFAULT else norms_of(open_run(what)))
    table = plain_table("shape", "convex bound, times the lowest")
    for row in rows:
        table.add_row(row.shape, f"{row.bound:.3f}")
    norms, measured = ("equal gradient norms", -0.17) if what == DEFAULT else (f"the gradient norms of {what}", -0.43)
    hint = Prose(
        f"by {norms}, each at its best peak LR (arXiv 2501.18965): a hint, whose rank correlation with the loss was "
        f"{measured} over eight shapes in training (docs/instruments.md)"
    )
    return [vars(row) for row in rows], [table, hint]
