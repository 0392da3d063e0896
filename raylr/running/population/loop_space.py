"""The space of a population of loops of one's own: base LR and factor alone; all else is the loop's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylr.config import ORDERS, Config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, examples, family
from raylr.lr.rungs import Rungs
from raylr.planning.facts import DatasetInfo, Features, Hardware
from raylr.planning.loop_plan import LoopPlan
from raylr.reporting.rows import leaves
from raylr.running.population.space import LR, Space

# Fields of a config that say where and how long, and not what is trained.
OPEN = ("name", "storage", "seed", "workers", "cpus_per_worker", "gpu", "trackers", *ORDERS)
OPEN_SECTIONS = ("failure", "alerts")
NOTHING = DatasetInfo("", 0, 0, (), (0, 0, 0))


@dataclass(frozen=True)
class LoopSpace(Space):
    """A space whose plan and policy a loop has told when it was attached; `interval` is in examples."""

    plan: LoopPlan  # type: ignore[assignment]
    interval: int = 0

    @classmethod
    def told(cls, config: PopulationConfig, policy: Policy, plan: LoopPlan, offered: Features) -> "LoopSpace":
        """The space of a loop that was attached. Raises ConfigError for an interval or bounds that do not fit it."""
        clock = Clock(plan.num_train, plan.total_examples, plan.batch_at(plan.workers[1]))
        interval = examples(config.interval, clock, "interval")
        if not clock.global_batch <= interval <= clock.total_examples:
            rule = "shorter than one update" if interval < clock.global_batch else "longer than the loop's policy"
            raise ConfigError(f"interval={config.interval} is {interval} examples, {rule}; use 0.2dur, say")
        burn_in = -(-examples(config.burn_in, clock, "burn_in") // interval)
        bounds = {LR: config.factor} | (family.BOUNDS if config.search == "shape" else {})
        space = cls(config, NOTHING, Hardware(False, 0), plan, policy, bounds, burn_in, offered, interval)
        space.check_start()
        return space

    @property
    def rounds(self) -> int:
        return self.plan.total_examples // self.interval

    @property
    def rungs(self) -> Rungs:
        return Rungs((self.config.trials,), (self.plan.total_examples,), self.interval)

    def changes_for(self, settings: Mapping[str, float]) -> dict[str, Any]:
        """Nothing: no other field is searched."""
        return {}


def refuse_other_fields(config: PopulationConfig) -> None:
    """Raise ConfigError for a field that decides what is trained: in a loop of one's own that is its own code."""
    if config.mutate is not None:
        raise ConfigError(
            f"mutate={config.mutate} beside loop={config.loop}: of a loop the LR alone is searched; leave it out"
        )
    if config.rungs > 1:
        raise ConfigError(
            f"rungs={config.rungs} beside loop={config.loop}: a loop of one's own trains to the end of its policy; leave it out"
        )
    defaults, own = leaves(Config().model_dump()), leaves(config.model_dump(include=set(Config.model_fields)))
    for key, value in own.items():
        if value != defaults.get(key) and key not in OPEN and key.partition(".")[0] not in OPEN_SECTIONS:
            raise ConfigError(
                f"{key}={value} beside loop={config.loop}, whose own code decides that; leave it out, or give it as "
                "loop_config=NAME=VALUE"
            )
