"""An optimizer of one's own, `package.module:Class`: what has to be said of it, since nothing is known.

And what does not go with the optimizers of two libraries, prodigy and schedule-free.

Whether the class takes its options is found by `raylr.training.own_optimizer`, with torch at hand.
"""

from collections.abc import Sequence

from raylr.config import Config
from raylr.config.own_options import is_own
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.lr.fields import nearest
from raylr.planning.lr import Part, given_fields

FIELDS = ("name", "options", "weight_decay", "decay_norms_and_biases")  # that one's own has
OF_LIBRARIES = {  # options beside the fields, and what is given where nothing else is
    "prodigy": {
        **dict.fromkeys(("d_coef", "d0", "growth_rate", "use_bias_correction", "slice_p", "beta3", "decouple")),
        "safeguard_warmup": True,  # where the LR rises its estimate would be too high
    },
    "schedule-free": dict.fromkeys(("r", "weight_lr_power")),
}
OF_THE_POLICY = ("lr", "params", "weight_decay")  # no options: who sets them


def check_own(parts: Sequence[Part], batch: int | None, is_given: bool) -> None:
    """Raise ConfigError where an optimizer of one's own lacks a number, or has a field that it does not read.

    `batch` is the global batch of all updates, None where there are several. Where a policy `is_given` it sets the LR.
    """
    for part in parts:
        if is_own(part.optimizer.name):
            _refuse_other_fields(part)
            if not is_given:
                _require_lr(part, batch)
        elif part.optimizer.options and part.optimizer.name not in OF_LIBRARIES:
            raise ConfigError(
                f"{part.prefix}optimizer.options beside {_told(part)}, which has fields of its own; "
                "options are for one's own, package.module:Class"
            )


def library_options(part: Part) -> dict[str, object]:
    """The options of a part's optimizer. ConfigError for one that the optimizer of a library does not have."""
    given = part.optimizer.options or {}
    if (known := OF_LIBRARIES.get(part.optimizer.name)) is None:
        return dict(given)
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{part.prefix}optimizer.options={name} is no option of {part.optimizer.name}; use {nearest(name, list(known))}"
            )
    return {**{name: value for name, value in known.items() if value is not None}, **given}


def check_library(config: Config, parts: Sequence[Part]) -> None:
    """Raise ConfigError for what does not go with Prodigy's one step size, or with Schedule-Free's own average."""
    for part in parts:
        name, lr = part.optimizer.name, part.lr
        if name == "prodigy" and lr.layer_decay is not None:
            raise ConfigError(
                f"{part.prefix}lr.layer_decay beside {_told(part)}, which has one step size for all its layers; use adamw"
            )
        if name != "schedule-free":
            continue
        if lr.momentum_low is not None or lr.momentum_high is not None:
            raise ConfigError(
                f"{part.prefix}lr.momentum_low beside {_told(part)}, whose beta1 makes its average; leave it out"
            )
        if not part.optimizer.beta1:
            raise ConfigError(f"{part.prefix}optimizer.beta1=0 leaves {_told(part)} no average to test; use 0.9")
        if config.eval.average is not None:
            raise ConfigError(
                f"eval.average={config.eval.average} beside {_told(part)}, which tests an average already; leave it out"
            )
        if config.batch.reduce == "ddp":
            raise ConfigError(
                f"{_told(part)} takes BatchNorm's statistics over micro-batches, which batch.reduce=ddp has none of; use "
                "batch.reduce=tree"
            )


def check_momentum(parts: Sequence[Part], policy: Policy) -> None:
    """Raise ConfigError for a policy that drives the momentum of an optimizer whose options name none."""
    for part in parts:
        options = part.optimizer.options or {}
        if (
            is_own(part.optimizer.name)
            and policy.schedule(part.name).momentum
            and not {"momentum", "betas"} & set(options)
        ):
            raise ConfigError(
                f"{_told(part)}: the policy drives a momentum, and {part.prefix}optimizer.options name none; "
                "give its momentum or betas there, or a policy without"
            )


def _refuse_other_fields(part: Part) -> None:
    if beside := [field for field in given_fields(part.optimizer) if field not in FIELDS]:
        raise ConfigError(
            f"{part.prefix}optimizer.{beside[0]} beside {_told(part)}, whose arguments stand in "
            f"{part.prefix}optimizer.options; give it there"
        )
    if taken := [name for name in part.optimizer.options or {} if name in OF_THE_POLICY]:
        instead = {"lr": "lr.base", "weight_decay": "optimizer.weight_decay"}.get(taken[0], "optimizers.NAME.match")
        raise ConfigError(f"{part.prefix}optimizer.options={taken[0]} is no option; use {part.prefix}{instead}")


def _require_lr(part: Part, batch: int | None) -> None:
    lr = part.lr
    if lr.base is None:
        raise ConfigError(f"{part.prefix}lr.base must be given with {_told(part)}: no LR of it is known here")
    if lr.scaling is None and (lr.reference_batch is None or lr.reference_batch != batch):
        at = f"{batch}, the run's," if batch is not None else "one batch"
        raise ConfigError(
            f"{part.prefix}lr.scaling must be given with {_told(part)}: how its LR follows the batch is not known; use "
            f"{part.prefix}lr.scaling=sqrt (as for Adam), linear (as for SGD) or none, or tune it at {at} and say so with "
            f"{part.prefix}lr.reference_batch"
        )
    if lr.scaling not in (None, "none") and lr.reference_batch is None:
        raise ConfigError(
            f"{part.prefix}lr.reference_batch must be given with {_told(part)} and lr.scaling={lr.scaling}: the batch at "
            "which its LR was tuned"
        )


def _told(part: Part) -> str:
    return f"{part.prefix}optimizer.name={part.optimizer.name}"
