"""The fields that `raylr explore` adds to those of a run: the population, the search, and the settings it may change."""

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from raylr.config.run import OWN, Config, Duration
from raylr.errors import ConfigError
from raylr.lr.bounds import Bounds

Search = Literal["pbt", "pb2", "ipbt", "fire", "asha", "grid", "random", "optuna", "shape"]
SUGGESTED = ("optuna", "shape")  # searches whose trials TPE suggests, from the scores of those before
FIXED = ("grid", "random", *SUGGESTED)  # searches in which a trial trains to its end, whatever the others do
Multiples = Annotated[str, "LOW:HIGH"]


class PopulationConfig(Config):
    """All that a user may set of a population: the fields of its runs, and how their schedules are searched."""

    trials: int = Field(4, ge=1, le=10_000, description="members of the population")
    at_once: int | None = Field(
        None,
        ge=1,
        description="as many trials train at once; grid, random, optuna and shape take turns [all; of the last two 1/4]",
    )
    gpus_per_worker: float = Field(1.0, gt=0, le=1, description="below 1, trials of one worker share GPUs")
    interval: Duration = Field("1ep", description="trials are tested, kept and compared at each multiple")
    search: Search = Field(
        "pbt",
        description="pbt, pb2, ipbt and fire change LRs on the way; shape chooses base LR and curve, others a base LR",
    )
    synch: bool = Field(True, description="all trials wait for each other at each interval, so that a search repeats")
    score: str = Field(
        "test_accuracy",
        description="what trials are compared by: test_accuracy or test_loss; of a loop, any of its metrics",
    )
    score_mode: Literal["max", "min"] | None = Field(None, description="what is better [less of a loss, else more]")
    loop: str | None = Field(
        None, description="train a loop of one's own, package.module:function, in the place of images [off]"
    )
    loop_config: str | None = Field(None, description="what the loop is called with: NAME=VALUE, by commas [nothing]")
    base_range: Multiples = Field("0.25:4", description="base LRs at the start: the config's own times one of these")
    factor_bounds: Multiples = Field("0.01:10", description="of the factor that pbt sets on the LR")
    lr_bounds: Multiples | None = Field(None, description="of the peak LR times that factor [off]")
    mutate: str | None = Field(None, description="other fields to change: FIELD=LOW:HIGH, separated by commas [none]")
    quantile_fraction: float = Field(0.25, gt=0, le=0.5, description="share of the trials that copies, and is copied")
    perturbation_factors: str = Field("0.8:1.25", description="what copied settings are multiplied with, down or up")
    resample_probability: float = Field(0.0, ge=0, le=1, description="of drawing a new setting instead")
    subpopulations: int = Field(2, ge=2, description="of fire: each is judged by what becomes of it in the one before")
    evaluators: int | None = Field(None, ge=1, description="of fire: trials that judge the members [a quarter]")
    eval_rounds: int = Field(10, ge=1, description="of fire: intervals after which an evaluator without success stops")
    reduction_factor: float = Field(
        3.0, gt=1, description="one in so many trials goes on past a rung of asha, or of shape"
    )
    rungs: int = Field(
        1, ge=1, le=10, description="of shape: lengths that curves are tried over; the best of each go on to the next"
    )
    burn_in: Duration = Field("0ep", description="nothing is copied before")
    settle: Duration = Field(
        "0ep", description="nothing is copied in so long a stretch at the end, by pbt, pb2, ipbt and fire"
    )

    @field_validator("synch")
    @classmethod
    def _is_synchronous(cls, synch: bool) -> bool:
        if not synch:
            raise ValueError(
                "is not offered: trials that do not wait for each other copy states of other positions, which leaves updates "
                "out of a ledger or in it twice, and no seed repeats it; use synch=yes"
            )
        return synch

    @field_validator("loop")
    @classmethod
    def _is_a_path(cls, loop: str | None) -> str | None:
        if loop is not None and not (re.fullmatch(OWN, loop) or re.fullmatch(r".+\.py:[^\W\d]\w*", loop)):
            raise ValueError("must be package.module:function or FILE.py:function")
        return loop

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller score is a better one."""
        return self.score_mode == "min" or (self.score_mode is None and "loss" in self.score)

    @property
    def loop_settings(self) -> dict[str, Any]:
        """What the loop is called with, its values read as YAML."""
        found: dict[str, Any] = {}
        for entry in filter(None, (self.loop_config or "").split(",")):
            name, sign, value = entry.partition("=")
            if not sign or not name.strip():
                raise ConfigError(f"loop_config={entry} names no value; use NAME=VALUE, such as epochs=4")
            found[name.strip()] = yaml.safe_load(value)
        return found

    @property
    def num_at_once(self) -> int:
        """Trials that train at the same time; TPE suggests each turn from the scores of those before."""
        whole = max(1, self.trials // 4) if self.search in SUGGESTED else self.trials
        return min(self.at_once or whole, self.trials)

    @property
    def num_evaluators(self) -> int:
        """Trials of fire that judge the members."""
        return self.evaluators or max(1, self.trials // 4)

    @property
    def initial(self) -> Bounds:
        """Multiples of the config's base LR that trials start with."""
        return Bounds.parse(self.base_range, "base_range")

    @property
    def factor(self) -> Bounds:
        """Bounds of the factor that a search sets on the LR."""
        return Bounds.parse(self.factor_bounds, "factor_bounds")

    @property
    def perturbations(self) -> Bounds:
        """The factors by which a copied setting is lowered or raised."""
        return Bounds.parse(self.perturbation_factors, "perturbation_factors")
