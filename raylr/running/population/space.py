"""What trials start with and what may be changed in them: settings by name, their bounds, and the plan that they make.

A trial's settings are plain numbers: `base` (the multiple of the config's base LRs that it started with, never changed),
`lr` (the factor of the override, 1 at the start), the other fields that are mutated, under their own names, and the numbers of
a shape where shapes are searched. Where a task's phases have an LR each, `lr.NAME` is a factor of that optimizer alone, and
those are mutated in place of `lr`.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raylr.config import ORDERS, Config
from raylr.config.fields import settings as fields_of
from raylr.config.population import FIXED, PopulationConfig
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, Warmup, examples, family
from raylr.lr.bounds import Bounds
from raylr.lr.fields import nearest
from raylr.lr.rungs import LENGTH, Rungs
from raylr.planning.facts import ALL_FEATURES, DatasetInfo, Features, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.population.lineage import draw, trial_ids

Settings = dict[str, float]
LR, BASE = "lr", "base"
# Fields that may change while a trial trains: those that bend neither its clock nor its data nor its model's shape.
MUTABLE_SECTIONS = ("optimizer", "loss", "guard", "model")
NEEDS = {
    "pb2": ("sklearn", "pbt"),
    "ipbt": ("sklearn", "pbt"),
    "optuna": ("optuna", "random"),
    "shape": ("optuna", "random"),
}  # packages of extras, and what does without
COPYING = ("pbt", "pb2", "ipbt", "fire")  # searches in which a trial becomes another's copy
KEEP_ALL = 1_000_000
OWN = set(PopulationConfig.model_fields) - set(Config.model_fields)


@dataclass(frozen=True)
class Space:
    """The settings that a population searches, and how they become a trial's plan and policy."""

    config: PopulationConfig
    dataset: DatasetInfo
    hardware: Hardware
    plan: Plan
    policy: Policy
    bounds: Mapping[str, Bounds]  # of what is mutated: `lr` and fields
    burn_in: int  # rounds before which nothing is copied
    features: Features = ALL_FEATURES  # of the Ray that carries it out

    @classmethod
    def of(
        cls,
        config: PopulationConfig,
        dataset: DatasetInfo,
        hardware: Hardware,
        features: Features = ALL_FEATURES,
    ) -> "Space":
        """The space of a config. Raises ConfigError for fields that cannot be mutated and bounds that cannot hold."""
        plain_plan, policy = _resolved(run_config(config, "1ep"), dataset, hardware, features)
        clock = Clock(plain_plan.num_train, plain_plan.total_examples, plain_plan.batch_at(plain_plan.workers[1]))
        interval = examples(config.interval, clock, "interval")
        if not clock.global_batch <= interval <= clock.total_examples:
            rule = (
                f"shorter than one update of {clock.global_batch}; use 1st or more"
                if interval < clock.global_batch
                else f"longer than the run of {clock.total_examples}; use 0.2dur, say"
            )
            raise ConfigError(f"interval={config.interval} is {interval} examples, {rule}")
        plan, _ = _resolved(run_config(config), dataset, hardware, features)
        burn_in = -(-examples(config.burn_in, clock, "burn_in") // interval)
        bounds = {LR: config.factor}
        if plan.task is not None and plan.task.phases:
            bounds |= {f"{LR}.{name}": config.factor for name in plan.optimizers}
        for field, text in _mutations(config):
            bounds[field] = Bounds.parse(text, f"mutate: {field}", log=False)
        if config.search == "shape":
            bounds |= family.BOUNDS
        space = cls(config, dataset, hardware, plan, policy, bounds, burn_in, features)
        space.check()
        return space

    def check(self) -> None:
        """Refuse bounds that the config's own values or the fields' rules do not allow."""
        config = self.config
        if config.score not in ("test_accuracy", "test_loss"):
            raise ConfigError(
                f"score={config.score} must be test_accuracy or test_loss; only a loop of one's own (loop) has other metrics"
            )
        if config.loop_config is not None:
            raise ConfigError(
                f"loop_config={config.loop_config} is for a loop of one's own; give loop, or leave it out"
            )
        if config.stop.metric is not None:
            raise ConfigError(
                f"stop.metric={config.stop.metric} ends one run, and the trials of a population end by its search; leave it "
                "out, or use --search asha"
            )
        if config.hooks.end is not None:
            raise ConfigError(
                f"hooks.end={config.hooks.end} is called at the end of a run, and a population is none; leave it out"
            )
        check_search(config, self.features)
        self.check_start()
        _ = self.rungs  # refuses too many
        for field, bounds in self.bounds.items():
            if not is_factor(field) and field not in family.BOUNDS:
                for value in (bounds.low, bounds.high):
                    self.plan_for({BASE: 1.0, LR: 1.0, field: value})

    def check_start(self) -> None:
        """Refuse a search that copies nothing, and bounds of the LR that hold nothing that trials would start with."""
        if self.config.search in COPYING and self.last_copy <= self.burn_in:
            raise ConfigError(
                f"settle={self.config.settle} leaves no interval to copy in after burn_in={self.config.burn_in}; shorten it"
            )
        range_ = self.config.initial
        lr_bounds = self.lr_bounds
        if lr_bounds is not None:
            peaks = [peak * share for peak in self._peaks() for share in (range_.low, range_.high)]
            if max(peaks) < lr_bounds.low or min(peaks) > lr_bounds.high:
                raise ConfigError(
                    f"lr_bounds={self.config.lr_bounds} hold none of the peak LRs {min(peaks):g} to {max(peaks):g} that "
                    "trials would start with; change --lr-bounds, --lr.base or --base-range"
                )

    @property
    def rounds(self) -> int:
        """How often trials are compared over the run."""
        return self.plan.total_examples // self.plan.eval_every

    @cached_property
    def rungs(self) -> Rungs:
        """The trials of a search of curves by length. Raises ConfigError for more rungs than there are intervals."""
        config, plan = self.config, self.plan
        return Rungs.of(config.trials, config.rungs, config.reduction_factor, plan.total_examples, plan.eval_every)

    def batch_at(self, position: int) -> int:
        """The global batch of an update of a trial."""
        return self.plan.batch_at(self.plan.workers[1], position)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all trials."""
        return trial_ids(self.config.seed, self.rungs.num_trials)

    @property
    def last_copy(self) -> int:
        """The last round after which a trial may become another's copy: none in the stretch that `settle` asks for.

        A copy that trains no longer is judged by its donor's weights, and an LR that was cut just before the end looks better
        than it is.
        """
        clock = Clock(self.plan.num_train, self.plan.total_examples, self.plan.batch_at(self.plan.workers[1]))
        interval = self.plan.total_examples // self.rounds
        return self.rounds - -(-examples(self.config.settle, clock, "settle") // interval)

    @property
    def lr_bounds(self) -> Bounds | None:
        return Bounds.parse(self.config.lr_bounds, "lr_bounds") if self.config.lr_bounds else None

    @property
    def base_bounds(self) -> Bounds:
        """Of the multiples of the base LR that trials start with, as far as `lr_bounds` let them."""
        range_, lr = self.config.initial, self.lr_bounds
        if lr is None:
            return range_
        peaks = self._peaks()
        low, high = max(range_.low, lr.low / min(peaks)), min(range_.high, lr.high / max(peaks))
        return Bounds(low, max(low, high))

    def initial(self, index: int) -> Settings:
        """What trial number `index` starts with; its base LR is bounded by `lr_bounds`."""
        config, count = self.config, self.config.trials
        if config.search == "grid":
            share = index / max(1, count - 1)
        elif config.search == "random":
            share = draw(config.seed, "base", index).random()
        else:  # spread over the range: one in each of as many equal parts
            order = list(range(count))
            draw(config.seed, "order").shuffle(order)
            share = (order[index] + draw(config.seed, "base", index).random()) / count
        start = {BASE: self.base_bounds.clamped(config.initial.at(share)), **self.factors}
        others = [field for field in self.bounds if not is_factor(field)]
        return start | {field: self.bounds[field].at(draw(config.seed, field, index).random()) for field in others}

    def mutated(self, settings: Mapping[str, float], *what: object, resample: float | None = None) -> Settings:
        """The settings of a donor, each perturbed or drawn again inside its bounds; `what` names the occasion.

        `resample` is the probability of the latter, instead of the config's.
        """
        config, result = self.config, dict(settings)
        redrawn = config.resample_probability if resample is None else resample
        for field, bounds in self.bounds.items():
            if field == LR and len(self.factors) > 1:
                continue
            limits = self.limits(settings[BASE]) if is_factor(field) else bounds
            random = draw(config.seed, "mutate", field, *what)
            if random.random() < redrawn:
                result[field] = limits.at(random.random())
            else:
                down, up = config.perturbations.low, config.perturbations.high
                result[field] = limits.perturbed(settings[field], random.choice((down, up)))
        return result

    @property
    def factors(self) -> Settings:
        """The factors of the LR that trials start with: that of all optimizers, and those of each alone, if any."""
        return {field: 1.0 for field in self.bounds if is_factor(field)}

    def factor_of_each(self, settings: Mapping[str, float]) -> dict[str, float]:
        """The whole factor of each optimizer that has one of its own; empty where all share one."""
        own = [field for field in self.factors if field != LR]
        return {field.removeprefix(f"{LR}."): settings[LR] * settings[field] for field in own}

    def limits(self, base: float) -> Bounds:
        """Bounds of the factor for a trial that started with this base LR."""
        factor, lr = self.bounds[LR], self.lr_bounds
        if lr is None:
            return factor
        peaks = [peak * base for peak in self._peaks()]
        low, high = max(factor.low, lr.low / min(peaks)), min(factor.high, lr.high / max(peaks))
        return Bounds(low, max(low, high))

    def _peaks(self) -> list[float]:
        sizes = self.plan.batches(self.plan.workers[1]).sizes
        return [schedule.peak(batch) for _, schedule in self.policy.schedules for batch in sizes]

    def policy_for(self, settings: Mapping[str, float]) -> Policy:
        """The LR policy that a trial of these settings starts with."""
        own: dict[str, Any] = {}
        total = int(settings.get(LENGTH, self.policy.total_examples))
        if self.config.search == "shape":
            member = family.Member.of(settings)
            rise, start = self.rungs.places(member, total)
            own = {"warmup": Warmup(rise), "shape": member.knots(total, start), "momentum": None}
        schedules = [
            (name, replace(schedule, base_lr=schedule.base_lr * settings[BASE], **own))
            for name, schedule in self.policy.schedules
        ]
        return replace(self.policy, total_examples=total, schedules=tuple(schedules))

    def plan_for(self, settings: Mapping[str, float]) -> Plan:
        """The plan of a trial of these settings. Raises ConfigError where a field does not take its value."""
        values = run_config(self.config).model_dump(mode="json")
        for field in self.bounds:
            if field in settings and not is_factor(field) and field not in family.BOUNDS:
                *sections, leaf = field.split(".")
                section = values
                for name in sections:
                    section = section[name]
                section[leaf] = settings[field]
        plan, _ = _resolved(Config(**values), self.dataset, self.hardware, self.features)
        return plan

    def changes_for(self, settings: Mapping[str, float]) -> dict[str, Any]:
        """The fields of the population's plan that are others in the plan of a trial of these settings."""
        length = {"total_examples": int(settings[LENGTH])} if LENGTH in settings else {}
        if all(is_factor(field) or field in family.BOUNDS for field in self.bounds):
            return length
        common, own = self.plan.model_dump(mode="json"), self.plan_for(settings).model_dump(mode="json")
        other = {name: own[name] for name in own if own[name] != common[name] and name not in ("story", "warnings")}
        return {**other, **length}


def is_factor(field: str) -> bool:
    """Whether a setting is a factor of the LR: of all optimizers, or of one."""
    return field == LR or field.startswith(f"{LR}.")


def check_search(config: PopulationConfig, offered: Features) -> None:
    """Refuse a search that cannot be done, and bounds that contradict each other."""
    factor = config.factor
    if not factor.low <= 1.0 <= factor.high:
        raise ConfigError(f"factor_bounds={config.factor_bounds} must hold 1, the factor that trials start with")
    if config.perturbations.low > 1 or config.perturbations.high < 1:
        raise ConfigError(f"perturbation_factors={config.perturbation_factors} must lead down and up; use 0.8:1.25")
    _refuse_rungs(config)
    _refuse_missing_package(config)
    _refuse_missing_feature(config, offered)
    if config.num_at_once < config.trials and config.search not in FIXED:
        raise ConfigError(
            f"at_once={config.at_once} of trials={config.trials} cannot take turns in search={config.search}, which "
            f"compares all at each interval; use --search {', '.join(FIXED[:-1])} or {FIXED[-1]}, or --trials "
            f"{config.at_once}"
        )
    need = 2 * config.subpopulations + config.num_evaluators
    if config.search == "fire" and config.trials < need:
        raise ConfigError(
            f"trials={config.trials} are too few for fire: {config.subpopulations} sub-populations of two members and "
            f"{config.num_evaluators} evaluators; use --trials {need}"
        )


def _refuse_rungs(config: PopulationConfig) -> None:
    if config.rungs > 1 and config.search != "shape":
        raise ConfigError(f"rungs={config.rungs} are of search=shape, not of {config.search}; use --search shape")
    if config.rungs > 1 and config.batch.ramp is not None:
        raise ConfigError(
            f"rungs={config.rungs} beside batch.ramp={config.batch.ramp}, of the whole run; use one of the two"
        )


def _refuse_missing_package(config: PopulationConfig) -> None:
    package, instead = NEEDS.get(config.search, (None, ""))
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"search={config.search} needs a package that is not installed; "
            f'pip install "raylr[{"optuna" if package == "optuna" else "pb2"}]", or use {instead}'
        )


def _refuse_missing_feature(config: PopulationConfig, offered: Features) -> None:
    """Refuse a search that needs what the installed Ray Tune does not have."""
    if not offered.population:
        raise offered.refusal(f"trials={config.trials}", "population", "use raylr train")
    if config.search in ("pbt", "pb2") and not offered.pbt:
        raise offered.refusal(f"search={config.search}", "pbt", "use --search fire, asha, grid or random")
    if config.search in ("pb2", "ipbt") and not offered.pb2_kernel:
        raise offered.refusal(f"search={config.search}", "pb2_kernel", "use --search pbt")


def run_config(config: PopulationConfig, interval: str | None = None) -> Config:
    """The config of one trial: tested and kept at every interval, on a clock that all trials share."""
    values = config.model_dump(exclude=OWN)
    every = {"every": interval or config.interval}
    values["eval"] |= every
    keep = max(3, config.checkpoint.keep) if config.rungs == 1 else KEEP_ALL  # later trials begin with them
    values["checkpoint"] |= {**every, "keep": keep}
    return Config(**values)


def _resolved(config: Config, dataset: DatasetInfo, hardware: Hardware, offered: Features) -> tuple[Plan, Policy]:
    """The plan and policy of a trial, which never reads the test images where a validation split is held out."""
    return resolve(config, dataset, hardware, features=offered, final_test=False)


def _mutations(config: PopulationConfig) -> list[tuple[str, str]]:
    """Fields to mutate and the text of their bounds."""
    found = []
    for entry in filter(None, (config.mutate or "").replace(" ", "").split(",")):
        field, sign, bounds = entry.partition("=")
        if not sign:
            raise ConfigError(f"mutate={entry} needs bounds; use {entry}=LOW:HIGH")
        _require_mutable(config, field)
        found.append((field, bounds))
    return found


def _require_mutable(config: PopulationConfig, field: str) -> None:
    kinds = {setting.key: setting.kind for setting in fields_of(Config, names=tuple(config.optimizers) or ("NAME",))}
    mutable = [key for key, kind in kinds.items() if kind == "number" and _section(key) in MUTABLE_SECTIONS]
    if field in (LR, "lr.base"):
        raise ConfigError(f"mutate: {field} is changed anyway, by a factor; its bounds are --factor-bounds")
    if field not in kinds:
        raise ConfigError(f"mutate: {field} is not a field; use {nearest(field, mutable)}")
    if field not in mutable:
        raise ConfigError(f"mutate: {field} cannot change while a trial trains; use one of {', '.join(mutable)}")


def _section(key: str) -> str:
    """`optimizer` of optimizer.momentum and of optimizers.NAME.optimizer.momentum."""
    return key.split(".")[-2] if "." in key else ""


def plain(config: PopulationConfig) -> dict[str, Any]:
    """What makes a population the same one: its space and its search, without what may change between two starts."""
    free = {"name", "storage", *ORDERS, "failure", "alerts", "checkpoint", "workers", "cpus_per_worker"}
    free |= {"hooks", "stop"}
    return config.model_dump(mode="json", exclude=free)
