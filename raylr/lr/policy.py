"""The LR policy: everything needed to evaluate the LR of any update, as frozen data.

LR = peak(global batch) x warmup(position) x shape(position) x override(position), a pure function of the policy, the
position in examples and the global batch. Independent of torch, of Ray and of the number of workers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from raylr.errors import ConfigError
from raylr.lr.codec import as_list, as_object, decoded, encoded, parsed, require_keys
from raylr.lr.durations import rounded_half_up
from raylr.lr.fields import nearest
from raylr.lr.overrides import Chain, Override, chains, superseded
from raylr.lr.schedule import Momentum, Schedule, Warmup
from raylr.lr.shapes import Shape

__all__ = ["Factors", "Momentum", "Override", "Policy", "Schedule", "Warmup"]


@dataclass(frozen=True)
class Factors:
    """The four factors of one update's LR."""

    peak: float
    warmup: float
    shape: float
    override: float

    @property
    def lr(self) -> float:
        """The LR: the product, always in this order."""
        return self.peak * self.warmup * self.shape * self.override


class _Resolved(NamedTuple):
    """One schedule at one global batch, with all that does not depend on the position worked out."""

    peak: float
    start_ratio: float
    warmup_examples: int
    warmup: Warmup
    shape: Shape
    restarts: bool
    chains: tuple[Chain, ...]


@dataclass(frozen=True)
class Policy:
    """The LR of every optimizer over a run of `total_examples`, and the overrides set so far.

    `schedules` are pairs of an optimizer's name and its Schedule. All durations are integer examples.
    """

    examples_per_epoch: int
    total_examples: int
    schedules: tuple[tuple[str, Schedule], ...]
    overrides: tuple[Override, ...] = ()

    FORMAT_VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("examples_per_epoch", "total_examples"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}={value!r} must be a whole number, at least 1 example")
        object.__setattr__(self, "schedules", tuple((name, schedule) for name, schedule in self.schedules))
        object.__setattr__(self, "overrides", tuple(sorted(self.overrides, key=lambda entry: entry.position)))
        if not self.schedules or len(set(self.optimizers)) < len(self.schedules):
            raise ConfigError(f"schedules={list(self.optimizers)} must name one or more optimizers, each once")
        for name, schedule in self.schedules:
            schedule.check(schedule.warmup.examples, self.total_examples, self._field(name))
        for entry in self.overrides:
            self._require_target(entry.target)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.examples_per_epoch, self.total_examples, self.schedules, self.overrides)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The names of the optimizers."""
        return tuple(name for name, _ in self.schedules)

    def schedule(self, optimizer: str | None = None) -> Schedule:
        """Return the schedule of an optimizer; with only one there is no need to name it."""
        if optimizer is None and len(self.schedules) == 1:
            return self.schedules[0][1]
        if optimizer is None:
            raise ConfigError(f"optimizer=None, the policy has several; use one of {', '.join(self.optimizers)}")
        for name, schedule in self.schedules:
            if name == optimizer:
                return schedule
        raise ConfigError(f"optimizer={optimizer} is not in the policy; use {nearest(optimizer, self.optimizers)}")

    def lr(self, position: int, global_batch: int, optimizer: str | None = None) -> float:
        """Return the LR of the update that takes `global_batch` examples from `position` on.

        With several optimizers and none named: ConfigError that lists them.
        """
        return self.factors(position, global_batch, optimizer).lr

    def factors(self, position: int, global_batch: int, optimizer: str | None = None) -> Factors:
        """Return the four factors of the LR of the update that starts at `position`."""
        resolved = self._resolved.get((optimizer, global_batch)) or self._resolve(global_batch, optimizer)
        peak, start_ratio, warmup_examples, rise, shape, restarts, overrides = resolved
        if position < 0:
            raise _before_the_start(position)
        warmup, end = 1.0, position + global_batch
        if end < warmup_examples:
            warmup = rise.factor(end / warmup_examples, start_ratio)
        elif restarts and (restart := shape.restart(position, self.total_examples)):
            warmup = rise.factor((restart.examples_since + global_batch) / restart.rewarmup, start_ratio)
        multiplier = shape.multiplier(position, warmup_examples, self.total_examples)
        override = 1.0
        for chain in overrides:
            override *= chain.factor(position)
        return Factors(peak, warmup, multiplier, override)

    def momentum(self, position: int, global_batch: int, optimizer: str | None = None) -> float | None:
        """Return the momentum of the update that starts at `position`; None where the policy sets none."""
        schedule = self.schedule(optimizer)
        if position < 0:
            raise _before_the_start(position)
        leg = schedule.shape.leg(position, schedule.effective_warmup(global_batch), self.total_examples)
        if schedule.momentum is None or leg is None:
            return None
        return schedule.momentum.high - (schedule.momentum.high - schedule.momentum.low) * leg

    def causes(self, position: int, optimizer: str | None = None) -> tuple[str, ...]:
        """Return, sorted, the causes whose factor is not 1 at `position`; of any target where no optimizer is given."""
        at_work = (chain for chain in self._chains if optimizer is None or chain.target in ("*", optimizer))
        return tuple(sorted({chain.cause for chain in at_work if chain.factor(position) != 1.0}))

    def with_overrides(self, *entries: Override) -> Self:
        """Return the policy with these entries, sorted by position.

        From its position on, an entry supersedes those of its cause and target written in earlier calls, also the ones
        that still lay ahead; its ramp starts at the value reached there.
        """
        return replace(self, overrides=superseded(self.overrides, entries))

    def resized(self, position: int, old_batch: int, new_batch: int, rewarm: int) -> Self:
        """Return the policy of a run whose batch changes at `position`, with cause `resize`.

        After a growth each LR rises from its old peak to the new one over `rewarm` examples; a smaller batch acts at once.
        """
        if new_batch == old_batch:
            return self
        entries: list[Override] = []
        for name, schedule in self.schedules:
            if new_batch > old_batch:
                start = schedule.peak(old_batch) / schedule.peak(new_batch)
                entries.append(Override(position, start, 0, name, "resize"))
            ramp = rewarm if new_batch > old_batch else 0
            entries.append(Override(position, 1.0, ramp, name, "resize"))
        return self.with_overrides(*entries)

    def stretched(self, total_examples: int) -> Self:
        """Return the policy over another length: every duration and override position x new / old, in integers."""
        old = self.total_examples
        if total_examples < 1:
            raise ConfigError(f"total_examples={total_examples} must be at least 1 example")

        def scale(duration: int) -> int:
            return rounded_half_up(duration * total_examples, old)

        schedules = tuple(
            (
                name,
                replace(
                    schedule,
                    warmup=replace(schedule.warmup, examples=scale(schedule.warmup.examples)),
                    shape=schedule.shape.stretched(total_examples, old),
                ),
            )
            for name, schedule in self.schedules
        )
        overrides = tuple(
            replace(entry, position=scale(entry.position), ramp_examples=scale(entry.ramp_examples))
            for entry in self.overrides
        )
        return replace(self, total_examples=total_examples, schedules=schedules, overrides=overrides)

    def to_json(self) -> str:
        """Return the policy as pretty, stable JSON; floats as repr writes them, so none changes on the way."""
        return json.dumps(self._data(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the policy that `to_json` wrote; ConfigError names an unknown, missing or wrong field."""
        data = as_object(parsed(text, "policy"), "policy")
        version = data.get("format_version", cls.FORMAT_VERSION)
        if version != cls.FORMAT_VERSION:
            raise ConfigError(f"policy.format_version={version!r} is not readable here; use {cls.FORMAT_VERSION}")
        names = ("format_version", "examples_per_epoch", "total_examples", "schedules", "overrides")
        require_keys(data, names, "policy")
        return cls(
            data["examples_per_epoch"],
            data["total_examples"],
            _decoded_schedules(data["schedules"]),
            tuple(
                decoded(Override, entry, f"policy.overrides[{index}]")
                for index, entry in enumerate(as_list(data["overrides"], "policy.overrides"))
            ),
        )

    def _repr_html_(self) -> str:
        """Return the curve of each LR over the epochs as a notebook shows it."""
        from raylr.lr.sketch import policy_html

        return policy_html(self)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the canonical JSON (sorted keys, no spaces) without the overrides; a resume compares it."""
        from hashlib import sha256

        data = self._data()
        del data["overrides"]
        return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def _data(self) -> dict[str, Any]:
        return {
            "format_version": self.FORMAT_VERSION,
            "examples_per_epoch": self.examples_per_epoch,
            "total_examples": self.total_examples,
            "schedules": [{"name": name} | encoded(schedule) for name, schedule in self.schedules],
            "overrides": encoded(self.overrides),
        }

    @cached_property
    def _resolved(self) -> dict[tuple[str | None, int], _Resolved]:
        return {}  # cache, by optimizer and global batch

    @cached_property
    def _chains(self) -> tuple[Chain, ...]:
        return chains(self.overrides)

    def chains_for(self, optimizer: str) -> Sequence[Chain]:
        """Return the chains of overrides that act on an optimizer."""
        return tuple(chain for chain in self._chains if chain.target in ("*", optimizer))

    def _resolve(self, global_batch: int, optimizer: str | None) -> _Resolved:
        if not isinstance(global_batch, int) or global_batch < 1:
            raise ConfigError(f"global_batch={global_batch!r} must be a whole number, at least 1 example")
        schedule = self.schedule(optimizer)
        name = optimizer or self.optimizers[0]
        warmup_examples = schedule.effective_warmup(global_batch)
        if warmup_examples != schedule.warmup.examples:
            schedule.check(warmup_examples, self.total_examples, self._field(name))
        peak = schedule.peak(global_batch)
        resolved = _Resolved(
            peak,
            schedule.base_lr / peak,
            warmup_examples,
            schedule.warmup,
            schedule.shape,
            schedule.shape.restarts_warmup,
            tuple(self.chains_for(name)),
        )
        self._resolved[optimizer, global_batch] = resolved
        return resolved

    def _field(self, optimizer: str) -> str:
        return "lr" if len(self.schedules) == 1 else f"optimizers.{optimizer}.lr"

    def _require_target(self, target: str) -> None:
        if target != "*" and target not in self.optimizers:
            raise ConfigError(f"target={target} of an override is no optimizer; use * or {', '.join(self.optimizers)}")


def _before_the_start(position: int) -> ConfigError:
    return ConfigError(f"position={position} is before the start of the run; use 0 or more")


def _decoded_schedules(data: Any) -> tuple[tuple[str, Schedule], ...]:
    schedules = []
    for index, item in enumerate(as_list(data, "policy.schedules")):
        path = f"policy.schedules[{index}]"
        entry = as_object(item, path)
        name = entry.pop("name", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}.name={name!r} must be the name of an optimizer")
        schedules.append((name, decoded(Schedule, entry, path)))
    return tuple(schedules)
