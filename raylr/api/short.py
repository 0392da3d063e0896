"""Short runs that an answer needs: the config of so many updates from the start, with nothing that is not needed."""

from collections.abc import Callable, Mapping
from typing import Any

from raylr.config import Config
from raylr.planning.plan import Plan

TEST_EXAMPLES = 500  # that a run looks at when it ends; they tell nothing here
BESIDE = ("policy", "stretch", "stop", "hooks", "metrics", "alerts", "log_every", "lr")


def short(
    config: Config,
    plan: Plan,
    batch: int,
    name: str,
    updates: int,
    instruments: Mapping[str, Any],
    lr: Callable[[str, Mapping[str, Any]], dict[str, Any]],
) -> Config:
    """The config of so many updates; `lr` gives the section of each of its optimizers, by name (empty for the only one) from
    what was given for it."""
    given = config.model_dump(exclude_unset=True)
    own = given.get("lr", {})
    for key in BESIDE:
        given.pop(key, None)
    if groups := given.get("optimizers"):
        for other, group in groups.items():
            group.pop("until", None)
            group["lr"] = lr(other, group.get("lr", {}))
    else:
        given["lr"] = lr("", own)
    others = {key: value for key, value in given.get("batch", {}).items() if key not in ("ramp", "per_worker_size")}
    return Config(
        **{
            **given,
            "name": name,
            "epochs": updates * batch / plan.num_train,
            "batch": {**others, "global_size": batch, "micro_size": plan.micro_size},
            "data": {**given.get("data", {}), "test_examples": min(TEST_EXAMPLES, plan.num_test)},
            "guard": {"enabled": False},
            "eval": {**given.get("eval", {}), "every": "1dur"},
            "checkpoint": {"every": "1dur", "keep": 1},
            "instruments": {} if plan.reduce == "ddp" else dict(instruments),
            "trackers": "none",
        }
    )
