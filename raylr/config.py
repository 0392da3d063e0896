"""The one config tree: what a user may set, as frozen typed data.

Flags, YAML keys and `raylr fields` all come from here: the field `batch.global_size` is `--batch.global-size` as a flag and
`batch: {global_size: ...}` in YAML. Nothing is resolved here (see `plan.py`); this module knows neither torch nor ray.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Duration = Annotated[str, "duration: 5ep, 0.3dur, 20000ex or 400st"]
OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]


class Section(BaseModel):
    """A frozen part of the tree in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class DataConfig(Section):
    source: str = Field("auto", description="auto, cifar10, synthetic, or a folder or archive with train/<class>/* and test/<class>/*")
    root: str = Field("data", description="where CIFAR-10 is, or is downloaded to")
    cache_dir: str = Field("~/.cache/raylr/data", description="where the decoded images are kept, once per node")
    train_examples: int | None = Field(None, ge=1, description="use the first so many training examples, classes balanced by the order of the data")
    test_examples: int | None = Field(None, ge=1, description="use the first so many test examples")
    flip: Literal["random", "alternate", "none"] = Field("random", description="mirror images: by chance, or every other epoch")
    crop_padding: int = Field(2, ge=0, le=16, description="pixels of reflected border before a random crop of the old size; 0 is off")
    cutout: int = Field(0, ge=0, le=32, description="side in pixels of a random square set to the mean; 0 is off")


class ModelConfig(Section):
    name: str = Field("cnn-small", description="cnn-small (32/64/128 channels), cnn-large (64/256/256)")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability before the last layer")


class BatchConfig(Section):
    global_size: int | None = Field(None, ge=1, description="examples per update over all workers [512]")
    micro_size: int = Field(128, ge=1, description="examples that pass through the model at once; part of the result, as BatchNorm sees it")
    per_worker_size: int | None = Field(None, ge=1, description="instead of global_size: the global batch, and with it the LR, follows the workers")
    reduce: Literal["tree", "ddp"] = Field("tree", description="tree: the same bits at any world size; ddp: plain DistributedDataParallel")


class OptimizerConfig(Section):
    name: OptimizerName = Field("sgd", description="the algorithm")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(True, description="of sgd")
    beta1: float = Field(0.9, ge=0, lt=1, description="of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="of adam and adamw; the smoothing constant of rmsprop")
    eps: float = Field(1e-8, gt=0, description="of adam, adamw and rmsprop")
    amsgrad: bool = Field(False, description="of adam and adamw")
    weight_decay: float = Field(5e-4, ge=0, description="per update, on weights of two or more dimensions")
    decay_norms_and_biases: bool = Field(False, description="decay parameters of one dimension too")


class LRConfig(Section):
    base: float | None = Field(None, gt=0, description="LR that was tuned at the reference batch [by the optimizer]")
    reference_batch: int | None = Field(None, ge=1, description="global batch at which base was tuned [by the optimizer]")
    scaling: Literal["none", "linear", "sqrt", "legw", "sde"] | None = Field(None, description="peak LR = base x rule(global batch / reference batch) [linear for sgd, sqrt otherwise]")
    warmup: Duration | None = Field(None, description="the rise to the peak [longer for a larger batch]; 0ep is none")
    warmup_from: Literal["zero", "base"] = Field("zero", description="where the rise starts")
    warmup_rise: Literal["linear", "exponential", "cosine", "constant"] = Field("linear", description="how it rises")
    shape: str | None = Field(None, description="the curve after the warmup: cosine, step(every=10ep, gamma=0.5), ... [linear]")
    momentum_low: float | None = Field(None, ge=0, lt=1, description="with one_cycle and cyclic: momentum at the LR's top")
    momentum_high: float | None = Field(None, ge=0, lt=1, description="with one_cycle and cyclic: momentum at the LR's bottom")
    rewarm: Duration = Field("1ep", description="rise to the new peak after the batch has grown, with batch.per_worker_size")


class GroupConfig(Section):
    """One of several optimizers, each with a policy of its own, on one clock."""

    match: str = Field(description="names of its parameters: patterns with * and ?, separated by commas")
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: LRConfig = LRConfig()


class LossConfig(Section):
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient of an update")


class EvalConfig(Section):
    every: Duration = Field("1ep", description="test at the first update boundary at or after each multiple")
    micro_size: int = Field(500, ge=1, description="test examples that pass through the model at once")


class CheckpointConfig(Section):
    every: Duration = Field("1ep", description="write a checkpoint at the first update boundary at or after each multiple")
    keep: int = Field(3, ge=1, description="newest checkpoints kept")


class FailureConfig(Section):
    max_failures: int = Field(3, ge=0, description="lost workers and restarts that a run survives")
    mode: Literal["continue", "restart"] | None = Field(None, description="continue without the dead, or restart all from the checkpoint [continue; restart with MIN:MAX]")
    stall_s: float = Field(120.0, gt=0, description="seconds after which a collective that does not end counts as a dead worker")


class Config(Section):
    name: str | None = Field(None, description="name of the run and of its folder [model-optimizer-seed]")
    storage: str = Field("runs", description="where run folders are: a path or a URI such as s3://bucket/runs")
    seed: int = Field(0, ge=0, description="of the initialisation, the order of the data, augmentation and dropout")
    epochs: float | None = Field(None, gt=0, description="length of the run [8, or the policy's]")
    workers: str = Field("2", description="data-parallel workers: N, or MIN:MAX")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs that Ray reserves for a worker")
    num_threads: int = Field(1, ge=1, description="threads of a worker's tensor operations; changes the bits")
    gpu: Literal["auto", "yes", "no"] = Field("auto", description="one GPU per worker; auto: if the cluster has enough")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where every node has it")
    policy: str | None = Field(None, description="policy.json or best_policy.json that sets the LR and the length")
    stretch: bool = Field(False, description="scale the whole policy to --epochs")
    fresh: bool = Field(False, description="start over: an old run of this name is removed")
    address: str | None = Field(None, description="address of a Ray cluster [RAY_ADDRESS; else a local one of its own]")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: LRConfig = LRConfig()
    optimizers: dict[str, GroupConfig] = Field({}, description="several optimizers by name: --optimizers.NAME.match, .optimizer.*, .lr.*")
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or name.startswith(".") or any(mark in name for mark in "/\\\0")):
            raise ValueError("is one folder's name: no path separators, no leading dot")
        return name

    @field_validator("workers")
    @classmethod
    def _is_a_range(cls, workers: str) -> str:
        low, _, high = workers.partition(":")
        if not (low.isdigit() and (high or low).isdigit() and 1 <= int(low) <= int(high or low)):
            raise ValueError("must be N or MIN:MAX with 1 <= MIN <= MAX, such as 2 or 1:4")
        return workers

    @property
    def num_workers(self) -> tuple[int, int]:
        """Smallest and largest number of workers."""
        low, _, high = self.workers.partition(":")
        return int(low), int(high or low)
