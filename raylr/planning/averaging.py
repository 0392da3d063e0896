"""The average of the weights that is kept beside the plain ones: what it takes in, and when. Refused here if at all."""

import re
from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock, examples
from raylr.planning.plan import AveragePlan, Plan, Reason

SAMPLES = 5  # weights that `last` takes the mean of
FORM = re.compile(r"(ema|last)\(\s*([^()]+?)\s*\)")
COLUMNS = "test_average_"  # how the columns of its tests begin


def averaging(config: Config, clock: Clock) -> AveragePlan | None:
    """What is averaged; None for nothing. ConfigError for what is no average, or cannot be kept."""
    given = config.eval.average
    if given is None:
        return None
    if (form := FORM.fullmatch(given.strip())) is None:
        raise ConfigError(
            f"eval.average={given} is neither ema(DECAY) nor last(DURATION); use ema(0.999), or last(5ep)"
        )
    if config.batch.reduce == "ddp":
        raise ConfigError(
            f"eval.average={given} takes BatchNorm's statistics over micro-batches, which batch.reduce=ddp has none of; "
            "use batch.reduce=tree"
        )
    for name in config.metric_names:
        if (own := name.rpartition(":")[2]).startswith("average_"):
            raise ConfigError(f"metrics={name} would be test_{own}, as those of eval.average are; give it another name")
    kind, argument = form.groups()
    if kind == "ema":
        return AveragePlan(text=given, decay=_decay(given, argument))
    length = examples(argument, clock, "eval.average")
    if length < SAMPLES * clock.global_batch:
        raise ConfigError(f"eval.average={given} is shorter than {SAMPLES} updates; use last({SAMPLES}st), or more")
    return AveragePlan(text=given, every=length // SAMPLES)


def _decay(given: str, argument: str) -> float:
    try:
        decay = float(argument.removeprefix("decay="))
    except ValueError:
        decay = 0.0
    if not 0 < decay < 1:
        raise ConfigError(f"eval.average={given}: the decay of an update is between 0 and 1; use ema(0.999)")
    return decay


def lines(plan: Plan) -> Iterator[Reason]:
    """The line of the story about the average; none without one."""
    if (average := plan.average) is None:
        return
    what = f"the mean of those at the last {SAMPLES} multiples of {average.every:,} examples"
    if average.decay is not None:
        what = f"{average.decay:g} of it and {1 - average.decay:.3g} of the new ones, update by update"
    yield Reason(
        what="average", value=f"of the weights, tested beside them: {what}", why=f"eval.average={average.text}"
    )
