"""A run in plain numbers: everything that a worker needs and nothing that two ranks could compute differently.

`raylr.planning.resolve.resolve` makes a plan from a config; the driver prints it and ships it. All durations are examples.
"""

from dataclasses import dataclass
from html import escape
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from raylr.config.own_options import is_own
from raylr.lr import Override, Ramp

T = TypeVar("T")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerPlan(Frozen):
    """One optimizer as torch needs it; its LR comes from the policy's schedule of the same name."""

    kind: str
    match: str
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float
    eps: float
    amsgrad: bool
    weight_decay: float
    decay_norms_and_biases: bool
    until: int | None = None  # examples, after which its parameters are held
    transfer: float = 1.0  # width over that at which the LR was tuned, where the LR of each class follows it
    layer_decay: float = 1.0  # factor on the LR for each layer below the model's top
    ns_steps: int = 5
    normalise: bool = False
    options: dict[str, Any] = {}  # arguments of one's own (`kind` is package.module:Class), and of those of libraries

    @property
    def has_group_state(self) -> bool:
        """Whether it may keep numbers in its param groups."""
        return is_own(self.kind) or self.kind in ("prodigy", "schedule-free")


class GuardPlan(Frozen):
    """When a run counts as diverged, and what then happens to the LR."""

    enabled: bool = True
    factor: float | None
    patience: int
    cut: float
    hold: int
    ramp: int
    snapshot_every: int
    max_rollbacks: int

    def cut_at(self, position: int, level: int, healed_at: int) -> tuple[int, int, tuple[Override, Override]]:
        """What a rollback at `position` does after cuts to `level` that heal at `healed_at`: both anew, and the overrides.

        A rollback before the last cut has healed cuts deeper.
        """
        level = level + 1 if position < healed_at else 1
        end = position + self.hold
        overrides = Override(position, self.cut**level, 0, "*", "guard"), Override(end, 1.0, self.ramp, "*", "guard")
        return level, end + self.ramp, overrides


class StopPlan(Frozen):
    """When a run ends before its length: after `patience` examples without a better value of a test's metric."""

    metric: str
    mode: str  # min or max
    patience: int
    min_delta: float = 0.0


class PlateauPlan(Frozen):
    """When all LRs are cut: after more than `patience` examples without a better value of a test's metric."""

    metric: str
    mode: str  # min or max
    factor: float
    patience: int
    cooldown: int = 0
    average: int = 1  # tests whose mean is the value
    min_delta: float = 0.0
    min_share: float = 0.0
    lowest: float = 0.0


class GradNormPlan(Frozen):
    """A factor target / norm on all LRs: every so many examples, of a mean over `memory` updates, from `low` to `high`."""

    target: float
    every: int
    memory: int
    low: float
    high: float


class AveragePlan(Frozen):
    """What the average of the weights takes in: all, with a decay an update, or those at the last multiples of `every`."""

    text: str  # as it was given
    decay: float | None = None  # None for those at the last multiples
    every: int = 0  # examples


class HypergradientPlan(Frozen):
    """A factor x (1 + beta cos) with each update, of the angle between two gradients; set every so many examples."""

    beta: float
    every: int
    low: float
    high: float


class AdaScalePlan(Frozen):
    """A factor on the LR, the gain of the batch over the reference batch: set every so many examples."""

    every: int
    reference_batch: int


class InitPlan(Frozen):
    """The weights of another run that this one starts with: of its checkpoint there, and the parameters that start fresh."""

    run: str  # as it was given
    best: bool
    position: int
    sha256: str  # of all its weights
    fresh: tuple[str, ...] = ()

    @property
    def source(self) -> tuple[str, bool]:
        """What was asked for."""
        return self.run, self.best


class HooksPlan(Frozen):
    """Functions of the user's, by import path, that see updates, tests and the end."""

    update: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


class Reason(Frozen):
    """One line of the plan's story: the field, its value and the reason."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A decision: what was chosen, and why."""

    value: T
    why: str


class Parent(Frozen):
    """Where a fork begins: in the run of that name, before the update `step` at `position`; and what changes there."""

    run: str
    position: int
    step: int
    changes: tuple[str, ...] = ()


class TaskPlan(Frozen):
    """A task of one's own: its class by import path, its settings, the phases of its updates, and what is better in tests."""

    name: str
    settings: dict[str, Any] = {}
    score: str = "test_loss"  # the column of metrics.jsonl
    mode: str = "min"  # or max
    phases: tuple[str, ...] = ()  # parts of the model that train one after another in an update; empty: all at once
    takes_dataset: bool = False  # it trains on the examples of data.source

    def __hash__(self) -> int:
        return hash((self.name, repr(self.settings)))


class Plan(Frozen):
    """The resolved numbers of one run."""

    seed: int
    device: str  # cpu or cuda
    precision: str  # fp32 or bf16
    num_threads: int
    workers: tuple[int, int]
    cpus_per_worker: int
    gpus_per_worker: float = 1.0  # on cuda; less than 1 where workers share a card
    task: TaskPlan | None = None  # of one's own; None is image classification
    model: str  # empty with a task, which has its own
    dropout: float
    width: float = 1.0  # times the model's own number of channels
    compile: bool = False
    freeze: tuple[str, ...] = ()  # patterns on the names of parameters that never train
    num_classes: int
    image_shape: tuple[int, int, int]
    data_source: str = ""
    data_sha256: str  # empty until the data is prepared, as are the next two
    pixel_mean: tuple[float, ...] = ()  # per channel, in 0..1
    pixel_std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    num_train: int
    num_test: int
    num_validation: int = 0  # training images that are held out to test on, not among num_train
    final_test: bool = True  # with them, read the test images once, at the end
    total_examples: int
    global_batch: int | None  # None with per_worker_size; the largest with a ramp
    ramp: tuple[tuple[int, int], ...] = ()  # positions, and the global batch from each on; empty where it never changes
    per_worker_size: int | None
    micro_size: int
    reduce: str
    backend: str = "gloo"  # or nccl
    eval_every: int
    eval_micro_size: int
    eval_views: str = "none"  # or mirror or mirror_translate
    average: AveragePlan | None = None  # of the weights, tested beside them
    log_every: int | None = None
    headroom_every: int | None = None
    sharpness_every: int | None = None
    sharpness_products: int = 30
    noise_every: int | None = None
    checkpoint_every: int
    checkpoint_keep: int
    rewarm: int
    loss: str = "cross-entropy"
    label_smoothing: float
    clip_norm: float | None
    flip: str
    crop_padding: int
    cutout: int
    transform: tuple[str, ...] = ()  # after flip, crop and cutout
    optimizers: dict[str, OptimizerPlan]
    guard: GuardPlan
    metrics: tuple[str, ...] = ()
    stop: StopPlan | None = None
    plateau: PlateauPlan | None = None
    grad_norm: GradNormPlan | None = None
    hypergradient: HypergradientPlan | None = None
    adascale: AdaScalePlan | None = None
    hooks: HooksPlan = HooksPlan()
    max_failures: int
    failure_mode: str
    stall_s: float
    recheck: float = 0.0  # share of updates in which a micro-batch is computed twice
    max_corruptions: int = 3
    parent: Parent | None = None  # of a fork
    init: InitPlan | None = None  # None for the initialisation of the seed
    story: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _was_mirror(cls, values: Any) -> Any:
        """Read `eval_mirror`, which plans of earlier versions have."""
        if not isinstance(values, dict) or "eval_mirror" not in values:
            return values
        others = {key: value for key, value in values.items() if key != "eval_mirror"}
        return {"eval_views": "mirror" if values["eval_mirror"] else "none", **others}

    def batch_at(self, world_size: int, position: int | None = None) -> int:
        """The global batch of `world_size` workers in the update at `position`; the largest of the run without one."""
        if self.ramp and position is not None:
            return Ramp(self.ramp).batch_at(position)
        return self.global_batch if self.global_batch is not None else (self.per_worker_size or 0) * world_size

    @property
    def what(self) -> str:
        """What is trained in a word: the name of the task's class, or the model's."""
        return (self.task.name if self.task is not None else self.model).rpartition(":")[2]

    def batches(self, world_size: int) -> Ramp:
        """The global batches of `world_size` workers over the run."""
        return Ramp(self.ramp) if self.ramp else Ramp.of(self.batch_at(world_size))

    def _repr_html_(self) -> str:
        """Return the story, with its reasons, and the warnings as a notebook shows them."""
        cell = 'style="text-align:left;padding:1px 8px"'
        lines = [(reason.what, reason.value, reason.why) for reason in self.story]
        rows = "".join(f"<tr>{''.join(f'<td {cell}>{escape(text)}</td>' for text in line)}</tr>" for line in lines)
        doubts = "".join(f"<div>warning: {escape(warning)}</div>" for warning in self.warnings)
        return f"<div><table>{rows}</table>{doubts}</div>"

    @property
    def reads_noise(self) -> bool:
        """Whether each update estimates the noise of its gradient."""
        return self.noise_every is not None or self.adascale is not None

    @property
    def split(self) -> str:
        """The images that the run is tested on before its end: those of the test set, or training images held out."""
        return "validation" if self.num_validation else "test"

    @property
    def num_scored(self) -> int:
        """How many images that are."""
        return self.num_validation or self.num_test

    def num_micro_batches(self, world_size: int) -> int:
        """The micro-batches of an update, of the largest one where they grow."""
        return self.batch_at(world_size) // self.micro_size
