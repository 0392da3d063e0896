"""What a fork is: where it leaves its parent, what it changes there, and what that does to the LR at the joint.

Where a new length or a larger batch would make the LR jump, it goes from its old value to the new one over `lr.rewarm`. A
change of the LR itself acts at once: that is what was asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raylr.config import BESIDE_A_POLICY, OF_THE_RUN, Config, LRConfig
from raylr.config.free import is_free
from raylr.config.load import config_of_record, leaves
from raylr.errors import ConfigError
from raylr.lr import Clock, Override, Policy, Shape, Warmup, duration_text, examples
from raylr.lr.shapes import Knot, Knots, Product, Wsd
from raylr.planning.facts import ALL_FEATURES, DatasetInfo, Features, Hardware
from raylr.planning.legs import Leg, legs_of, own_policy
from raylr.planning.loop_plan import refuse_loop
from raylr.planning.lr import GivenPolicy, run_length
from raylr.planning.plan import Parent, Plan, Reason
from raylr.planning.resolve import resolve
from raylr.storage import Folder

END = "end"
CAUSE = "fork"
ADASCALE = "adascale"  # the cause of what another scaling rule does not take over
JUMP = 0.02  # of the LR before the joint: less is no jump
FREE = ("checkpoint.",)  # beside what is free between two starts: when they are written changes no bit
OF_THE_START = ("init", "init_best")  # which its first leg has
FIXED = (
    "init",
    "task.",
    "model.",
    "data.source",
    "data.train_examples",
    "data.test_examples",
    "data.validation",
    "batch.reduce",
)

THAWS = ("model.freeze",)  # of the model, and yet the fork's own


@dataclass(frozen=True)
class Origin:
    """A run as a fork finds it: what it was told, its numbers, and where its updates begin."""

    folder: Folder
    config: Config
    plan: Plan
    policy: Policy
    legs: tuple[Leg, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def end(self) -> int:
        """The position after its last update."""
        return int(self.rows[-1]["position"] + self.rows[-1]["global_batch"]) if self.rows else 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended: no further update fits into its length, or it has stopped early."""
        if self.folder.exists("result.json") and self.folder.read_json("result.json").get("status") == "complete":
            return True
        return bool(self.rows) and self.end + self.rows[-1]["global_batch"] > self.plan.total_examples

    @property
    def clock(self) -> Clock:
        batch = self.rows[0]["global_batch"] if self.rows else self.plan.batch_at(self.plan.workers[1])
        return Clock(self.plan.num_train, self.plan.total_examples, batch)

    def batch_at(self, position: int) -> int:
        """The global batch of its update at `position`, or of its last one."""
        row = next((row for row in self.rows if row["position"] >= position), self.rows[-1])
        return int(row["global_batch"])

    def epochs(self, position: int) -> str:
        return f"{position / self.plan.num_train:.6g}ep"


def origin_of(folder: Folder) -> Origin:
    """Read a run. Raises ConfigError, one line, for one that cannot be read or that has not trained."""
    refuse_loop(folder, "fork or verify")
    try:
        plan = Plan.model_validate(folder.read_json("plan.json"))
        config = config_of_record(folder.read_json("config.json"))
        rows = tuple(folder.read_rows("ledger.jsonl"))
        origin = Origin(folder, config, plan, own_policy(folder), legs_of(folder), rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"run={folder} cannot be read ({error}); give a run that has its plan and its ledger"
        ) from None
    if not rows:
        raise ConfigError(f"run={folder} has no update in its ledger; fork a run that has trained")
    return origin


def joint_of(origin: Origin, at: str) -> tuple[int, int]:
    """The position of a joint, and the number of updates before it: the first update boundary at or after `at`."""
    positions = [*(int(row["position"]) for row in origin.rows), origin.end]
    wanted = origin.end if at == END else examples(at, origin.clock, "at")
    if update := re.fullmatch(r"(\d{1,12})st", at.strip()):  # exactly that update, also where the batch has changed
        number = int(update[1])
        wanted = positions[number] if number < len(positions) else max(wanted, origin.plan.total_examples + 1)
    if wanted < 1:
        raise ConfigError(f"at={at} is the start of {origin.name}, where nothing is to be kept; use `raylr train`")
    step = next((number for number, position in enumerate(positions) if position >= wanted), None)
    if step is None and origin.is_over and wanted <= origin.plan.total_examples:
        step = len(positions) - 1
    if step is None:
        stands = "the end of" if origin.is_over else "what has been trained of"
        way = "`raylr extend` goes on from there" if origin.is_over else "wait, or use an earlier one"
        raise ConfigError(f"at={at} is beyond {stands} {origin.name}, {origin.epochs(origin.end)}; {way}")
    return positions[step], step


def changes_of(origin: Origin, config: Config) -> dict[str, str]:
    """What the fork changes, by field, as text. Raises ConfigError for another model or other data."""
    old, new = (dict(leaves(one.record())) for one in (origin.config, config))
    found = {}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key) or is_free(key) or key.startswith(FREE):
            continue
        if key in OF_THE_START and config.init is None:
            continue
        if key.startswith(FIXED) and key not in THAWS:
            raise ConfigError(
                f"{key}={new.get(key)} is not that of {origin.name}, {old.get(key)}; a fork keeps the model, the data and "
                "batch.reduce: use `raylr train`"
            )
        before = old.get(key) if old.get(key) is not None else _default(origin, key)
        found[key] = f"{key} {_text(before)} -> {_text(new.get(key))}"
    return found


def _default(origin: Origin, key: str) -> Any:
    """What the parent had in a field that was not given; None where its numbers do not say."""
    plan, policy = origin.plan, origin.policy
    numbers = {"epochs": plan.total_examples / plan.num_train, "batch.global_size": plan.global_batch}
    if len(policy.schedules) == 1:
        schedule = policy.schedule()
        shape = schedule.shape.brief(plan.num_train)
        numbers |= {"lr.base": schedule.base_lr, "lr.reference_batch": schedule.reference_batch}
        return {**numbers, "lr.scaling": schedule.scaling, "lr.shape": shape}.get(key)
    return numbers.get(key)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "default" if value is None else f"{value}"


def resolve_fork(
    origin: Origin,
    at: str,
    cooldown: str | None,
    config: Config,
    dataset: DatasetInfo,
    hardware: Hardware,
    features: Features = ALL_FEATURES,
    final_test: bool = True,
) -> tuple[Plan, Policy, tuple[Leg, ...]]:
    """The plan, the policy and the earlier legs of a fork that leaves its parent at `at`. Raises ConfigError."""
    position, step = joint_of(origin, at)
    changes = changes_of(origin, config)
    if config.precision == "auto":
        config = config.model_copy(update={"precision": origin.plan.precision})
    if cooldown is not None:
        policy = _cooled(origin, position, cooldown, config, changes)
        changes["cooldown"] = f"cooldown {cooldown}"
        given = GivenPolicy(f"cooldown={cooldown}", policy)
        plan, _ = resolve(_without_lr(config), dataset, hardware, given, features, final_test)
        doubts = [one for one in plan.warnings if not one.startswith("peak-never-reached")]  # it was reached before
        plan = plan.model_copy(update={"warnings": tuple(doubts)})
    elif any(_is_of_the_lr(key) for key in changes):
        plan, policy = resolve(config, dataset, hardware, features=features, final_test=final_test)
    else:
        policy = origin.policy
        if "epochs" in changes:
            policy = replace(policy, total_examples=run_length(config.epochs or 0, origin.plan.num_train))
        given = GivenPolicy(f"fork={origin.name}", policy)
        plan, _ = resolve(_without_lr(config), dataset, hardware, given, features, final_test)
    _refuse_other_data(origin, plan, position)
    inherited = [
        entry
        for entry in origin.policy.overrides
        if entry.target in ("*", *policy.optimizers) and (entry.cause != ADASCALE or plan.adascale is not None)
    ]
    policy = replace(policy, overrides=tuple(inherited))
    policy, told, warnings = _joined(origin, position, plan, policy, changes)
    parent = Parent(run=origin.name, position=position, step=step, changes=tuple(changes.values()))
    where = f"{origin.name} at position {position:,} = epoch {position / origin.plan.num_train:.6g} = update {step}"
    first = Reason(what="fork of", value=where, why=f"at={at}")
    what = Reason(what="changes", value="; ".join(parent.changes) or "nothing", why="given")
    update = {"parent": parent, "story": (first, what, *told, *plan.story), "warnings": (*warnings, *plan.warnings)}
    leg = Leg(origin.name, position, origin.plan, origin.policy)
    return plan.model_copy(update=update), policy, (*(leg for leg in origin.legs if leg.until < position), leg)


def _is_of_the_lr(key: str) -> bool:
    """Whether a field decides on the policy, beside the length and the batch."""
    last = key.rpartition(".")[2]
    if key.startswith(tuple(f"lr.{field}." for field in OF_THE_RUN)):
        return False
    of_optimizers = key.startswith("optimizers.") and last in ("name", "match")
    return (
        key in ("policy", "optimizer.name")
        or of_optimizers
        or ("lr." in key and last not in ("rewarm", *BESIDE_A_POLICY))
    )


def _without_lr(config: Config) -> Config:
    """The config without what a policy says in its place."""
    optimizers = {
        name: group.model_copy(
            update={"lr": LRConfig(**{field: getattr(group.lr, field) for field in ("rewarm", *BESIDE_A_POLICY)})}
        )
        for name, group in config.optimizers.items()
    }
    kept = {field: getattr(config.lr, field) for field in (*OF_THE_RUN, *BESIDE_A_POLICY)}
    update = {"lr": LRConfig(**kept), "optimizers": optimizers}
    return config.model_copy(update={**update, "policy": None, "epochs": None, "stretch": False})


def _cooled(origin: Origin, position: int, cooldown: str, config: Config, changes: Mapping[str, str]) -> Policy:
    """The policy that holds the parent's LR at the joint and lets it fall to the floor at the end, as WSD does."""
    if beside := next((key for key in changes if _is_of_the_lr(key)), None):
        raise ConfigError(f"{beside} beside cooldown={cooldown}, which sets the LR; drop one of the two")
    length = examples(cooldown, origin.clock, "cooldown")
    if length < 1:
        raise ConfigError(f"cooldown={cooldown} is no length; use 1ep, say")
    total = position + length
    if "epochs" in changes:
        total = run_length(config.epochs or 0, origin.plan.num_train)
        if total - length < position:
            most = duration_text(max(0, total - position), origin.plan.num_train)
            raise ConfigError(
                f"cooldown={cooldown} is longer than what is left after the joint, {most}; use less, or more --epochs"
            )
    batch = origin.batch_at(position)
    schedules = []
    for name, schedule in origin.policy.schedules:
        factors = origin.policy.factors(position, batch, name)
        shape = _falling(factors.warmup * factors.shape, schedule.shape.floor, length)
        schedules.append((name, replace(schedule, warmup=Warmup(0), shape=shape, momentum=None)))
    return replace(origin.policy, total_examples=total, schedules=tuple(schedules))


def _falling(level: float, floor: float, length: int) -> Shape:
    """`level`, and over the last `length` examples down to the floor."""
    share = min(1.0, floor / level) if level else 0.0
    fall = Wsd(cooldown=length, floor=share)
    return fall if level == 1.0 else Product((Knots((Knot(0, level),)), fall))


def _refuse_other_data(origin: Origin, plan: Plan, position: int) -> None:
    """Refuse what only the resolved numbers show."""
    old = origin.plan
    known = bool(plan.data_sha256 and old.data_sha256)
    same = "num_train", "num_validation", "image_shape", "num_classes"
    if any(getattr(plan, name) != getattr(old, name) for name in same) or (
        known and plan.data_sha256 != old.data_sha256
    ):
        raise ConfigError(
            f"data.source={plan.data_source} are not the data of {origin.name} "
            f"({old.data_sha256[:12]}, {old.num_train} examples); a fork keeps them: use `raylr train`"
        )
    if position + plan.batch_at(plan.workers[0], position) > plan.total_examples:
        raise ConfigError(
            f"the fork has no update: it begins at {origin.epochs(position)} and ends at "
            f"{origin.epochs(plan.total_examples)}; use more --epochs, or an earlier --at"
        )


def _joined(
    origin: Origin, position: int, plan: Plan, policy: Policy, changes: Mapping[str, str]
) -> tuple[Policy, list[Reason], list[str]]:
    """The policy with what makes it meet the parent's LR, and what happens there in words."""
    old_batch, batch = origin.batch_at(position), plan.batch_at(plan.workers[1], position)
    told, warnings, entries = [], [], list[Override]()
    has_other_length = plan.total_examples != origin.plan.total_examples and "cooldown" not in changes
    is_asked_for = any(_is_of_the_lr(key) for key in changes)
    for name in policy.optimizers:
        prefix = f"{name} " if len(policy.optimizers) > 1 else ""
        if name not in origin.policy.optimizers:
            told.append(
                Reason(
                    what=f"{prefix}LR at joint", value=f"{policy.lr(position, batch, name):.6g}", why="a new optimizer"
                )
            )
            continue
        before, after = origin.policy.lr(position, old_batch, name), policy.lr(position, batch, name)
        if (
            not is_asked_for
            and after > 0
            and (has_other_length or after > before)
            and abs(after - before) > JUMP * before
        ):
            entries.append(Override(position, before / after, 0, name, CAUSE))
            entries.append(Override(position, 1.0, plan.rewarm, name, CAUSE))
            how = f"{before:.6g}, then within {plan.rewarm / plan.num_train:.4g}ep to the new curve, {after:.6g} here"
            told.append(Reason(what=f"{prefix}LR at joint", value=how, why="no jump: lr.rewarm"))
        elif abs(after - before) > JUMP * before:
            value = f"{before:.6g} before, {after:.6g} after"
            told.append(Reason(what=f"{prefix}LR at joint", value=value, why="a change of the LR acts at once"))
            warnings.append(f"joint-jump: {prefix}the LR goes from {before:.6g} to {after:.6g} at once")
        else:
            told.append(Reason(what=f"{prefix}LR at joint", value=f"{after:.6g}", why="as before it"))
        warnings += _rise(origin, name, position, before, old_batch, policy, batch, prefix)
    return policy.with_overrides(*entries), told, warnings


def _rise(
    origin: Origin, name: str, position: int, before: float, old_batch: int, policy: Policy, batch: int, prefix: str
) -> list[str]:
    """A warning where the LR had come down from its peak before the joint and goes up again after it."""
    rows = [row for row in origin.rows if row["position"] < position and name in row["lr"]]
    peak = max((float(row["lr"][name]) for row in rows), default=0.0)
    after = policy.lr(min(position + batch, policy.total_examples), batch, name)
    if not before < 0.5 * peak or after < 2 * before or after < 0.05 * peak:
        return []
    fell = next(int(row["position"]) for row in rows if float(row["lr"][name]) == peak)
    last = max(int(row["position"]) for row in rows if float(row["lr"][name]) >= (1 - JUMP) * peak)
    return [
        f"joint-rebound: {prefix}the LR had come down from {peak:.6g} to {before:.6g} and rises again; `raylr fork "
        f"{origin.name} --at {duration_text(max(fell, last), origin.plan.num_train)}` leaves before the fall"
    ]
