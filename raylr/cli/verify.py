"""The verb `raylr verify`."""

from typing import TYPE_CHECKING

import click

from raylr.cli.answers import Answer, json_flag
from raylr.reporting.progress import counting

if TYPE_CHECKING:
    from raylr.running.verify import Verified


@click.command()
@click.argument("run")
@click.option("--part", metavar="P%", help="share of the updates to replay, such as 1% or 100% [one interval]")
@click.option("--workers", type=click.IntRange(min=1), help="how many replay it [another number than RUN had]")
@click.option("--anyway", is_flag=True, help="also where hardware or library versions are not RUN's")
@click.option("--storage", default="runs", show_default=True, help="where RUN is, if it is a name and not a path")
@json_flag
def verify(run: str, part: str | None, workers: int | None, anyway: bool, storage: str, as_json: bool) -> int:
    """Replay a part of RUN and say whether its weights, optimizer and ledger are those that stand there.

    Replays the updates between two checkpoints, drawn at random, at another number of workers, and compares each row of the
    ledger and the state at the end to the bit; the whole ledger is held against the policy. Starts no Ray. Exit code 1 with
    the first update that differs; 2 where RUN cannot be replayed here, with the reason.

    \b
    raylr verify base
    raylr verify base --part 100% --workers 3
    """
    from raylr.running.verify import verify as verified

    answer = Answer(as_json)
    with counting("replaying updates", answer.screen) as report:
        found = verified(run, storage, part, workers, anyway, report)
    answer.say(found.row(), *_told(found))
    return int(found.difference is not None)


def _told(found: "Verified") -> list[str]:
    """What was done, and the verdict."""
    where = " and ".join(f"{start:,} to {stop:,}" for start, stop in found.intervals)
    had = " or ".join(map(str, found.had_workers))
    lines = [f"doubt: {one}" for one in found.doubts]
    share = found.num_replayed / found.num_updates
    lines.append(
        f"replayed {found.num_replayed} of {found.num_updates} updates ({share:.1%}), positions {where}, by "
        f"{found.workers} worker{'s' * (found.workers != 1)} (the run had {had}), in {found.seconds:.1f} s"
    )
    one = found.difference
    if one is None:
        return [*lines, "verified: rows, weights and optimizer are those that stand there"]
    place = f"update {one.step} at position {one.position:,}"
    return [*lines, f"differs: {place}, {one.what}: {one.there} stands there, {one.replayed} is right"]
