"""Define the config tree of a run as frozen typed data.

Flags, YAML keys and `raylr fields` all come from here: the field `batch.global_size` is `--batch.global-size` as a flag
and `batch: {global_size: ...}` in YAML. Nothing is chosen here: that is `resolve.py`. Knows neither torch nor ray.
"""

import difflib
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from raylr.config.fields import is_utf8, meaning, not_utf8, refusal
from raylr.config.own_options import options_of
from raylr.config.own_task import with_task
from raylr.config.secrets import is_masked, masked
from raylr.config.sources import options_text
from raylr.config.transforms import transform_names, transform_text
from raylr.storage import is_uri


def _is_a_path(path: str) -> str:
    if "\0" in path:
        raise ValueError("holds a null byte, which no path may; leave it out")
    if not is_utf8(path):
        raise ValueError("is not UTF-8, and paths must be; rename it")
    return path


def _is_a_webhook(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+\S*", url):
        raise ValueError("is no URL of a webhook; it begins with https:// and a host")
    return url


# The text of an annotation is the field's unit in --help and `raylr fields`.
Location = Annotated[str, "path", AfterValidator(_is_a_path)]  # in files and flags ~ and $VARIABLES are expanded
Webhook = Annotated[str, "url", AfterValidator(_is_a_webhook)]  # a secret
Duration = Annotated[str, "duration"]  # 5ep, 0.3dur, 20000ex or 400st
Examples = Annotated[int, "examples"]
Pixels = Annotated[int, "pixels"]
Seconds = Annotated[float, "s"]
Epochs = Annotated[float, "epochs"]
FailureMode = Literal["continue", "restart"]
Scaling = Literal["none", "linear", "sqrt", "legw", "sde", "adascale"]
Views = Literal["none", "mirror", "mirror_translate"]
TRACKERS = ("tensorboard", "mlflow", "wandb")
ORDERS = ("fresh", "address", "stretch")  # fields that apply to one start only
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lars", "muon", "prodigy", "schedule-free")
MODELS = ("cnn-small", "cnn-medium", "cnn-large", "airbench", "resnet18", "vit-small")


OWN = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"  # package.module:name
FIELDS = "\n\n    Fields:"


def names_in(text: str | None) -> tuple[str, ...]:
    """The names in a text, separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip() and text != "none")


def _by_commas(names: Any) -> Any:
    return ",".join(map(str, names)) or None if isinstance(names, list | tuple) else names


def _known_or_own(name: str, known: Sequence[str], own: str) -> str:
    """A name of `known` or of one's own. ValueError with the nearest one for others."""
    if name in known or re.fullmatch(OWN, name):
        return name
    nearest = difflib.get_close_matches(name, known, n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else f"one's own is {own}"
    raise ValueError(f"is not one of {', '.join(known)}; {advice}")


class Section(BaseModel):
    """A frozen part of the tree in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}

    @classmethod
    def __pydantic_init_subclass__(cls, **_more: Any) -> None:
        """List the fields below the docstring, for `help` and notebooks."""
        told = (cls.__doc__ or "").partition(FIELDS)[0]
        lines = [f"{name}: {meaning(info)}" for name, info in cls.model_fields.items()]
        cls.__doc__ = "\n    ".join([told + FIELDS, *lines])


class TaskConfig(Section):
    """A task of one's own in place of image classification; its settings stand beside its name."""

    model_config = ConfigDict(extra="allow")
    name: str | None = Field(None, description="package.module:Task or FILE.py:Task [image classification]")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, typed."""
        return dict(self.model_extra or {})


class DataConfig(Section):
    """What is trained and tested on, and how training images are varied."""

    source: Location = Field(
        "auto",
        description="auto, cifar10, synthetic, a folder, archive or URI of train/*/*, test/*/*, or package.module:Dataset",
    )
    options: str | None = Field(
        None, description="arguments of a dataset of one's own, as name=value, by commas [none]"
    )
    root: Location = Field("data", description="where CIFAR-10 and datasets of one's own are, or are downloaded to")
    cache_dir: Location = Field("~/.cache/raylr/data", description="where the decoded images are kept, once per node")
    train_examples: Examples | None = Field(None, ge=1, description="train on so many of them, classes balanced [all]")
    test_examples: Examples | None = Field(None, ge=1, description="test on so many of them, classes balanced [all]")
    validation: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="share of the training images held out, classes balanced, to test on [0; explore 0.1]",
    )
    flip: Literal["random", "alternate", "none"] = Field("random", description="mirror images by chance or in turn")
    crop_padding: Pixels = Field(2, ge=0, le=16, description="reflected border before a random crop; 0 is off")
    cutout: Pixels = Field(0, ge=0, le=32, description="side of a random square set to the mean; 0 is off")

    transform: str | None = Field(
        None,
        description="then torchvision.transforms.v2 by name, or package.module:function, by commas [none]",
    )

    @field_validator("transform", mode="before")
    @classmethod
    def _may_be_a_list(cls, names: Any) -> Any:
        return transform_text(names)

    @field_validator("transform")
    @classmethod
    def _are_transforms(cls, text: str | None) -> str | None:
        transform_names(text)
        return text

    @field_validator("options", mode="before")
    @classmethod
    def _may_be_a_mapping(cls, options: Any) -> Any:
        return options_text(options)


class ModelConfig(Section):
    """The network."""

    name: str = Field("cnn-small", description=f"{', '.join(MODELS)}, or one's own as package.module:factory")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability before the last layer")
    width: float = Field(1.0, gt=0, le=16, description="times its channels, of cnn-* and vit-small")
    transfer: Literal["none", "completep"] = Field(
        "none", description="let LR and weight decay, as tuned at width 1, follow the width, by class of parameters"
    )
    compile: bool = Field(False, description="by torch.compile: a slow start, then fewer kernels; changes the bits")
    freeze: str | None = Field(
        None, description="parameters that never train: patterns with * and ? on their names, by commas [none]"
    )

    @field_validator("freeze", mode="before")
    @classmethod
    def _may_be_a_list(cls, patterns: Any) -> Any:
        return _by_commas(patterns)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The patterns of what never trains."""
        return names_in(self.freeze)

    @field_validator("name")
    @classmethod
    def _is_known_or_a_path(cls, name: str) -> str:
        return _known_or_own(name, MODELS, "package.module:factory")


class BatchConfig(Section):
    """How many examples an update takes, and how they are summed over the workers."""

    global_size: Examples | None = Field(None, ge=1, description="per update, over all workers [512]")
    micro_size: Examples | None = Field(
        None,
        ge=1,
        description="through the model at once; BatchNorm sees these together [128, less for a batch below 256]",
    )
    per_worker_size: Examples | None = Field(None, ge=1, description="or this: batch and LR follow the workers [off]")
    ramp: str | None = Field(
        None, description='or this: sizes by position, "128 for 2ep, 512" or "128 to 1024 by 2x every 3ep" [off]'
    )
    reduce: Literal["tree", "ddp"] = Field("tree", description="same bits at any world size, or plain DDP")
    backend: Literal["auto", "nccl", "gloo"] = Field(
        "auto", description="of the workers' group; with gloo several may share a GPU; auto: nccl on GPUs"
    )


class OptimizerConfig(Section):
    """The algorithm that turns gradients into updates; its LR is in the section lr."""

    name: str = Field("sgd", description=f"{', '.join(OPTIMIZERS)}, or one's own as package.module:Class")
    options: Annotated[dict[str, Any] | None, "mapping"] = Field(
        None, description='arguments of one\'s own, such as "{betas: [0.9, 0.95]}", or of prodigy, "{d_coef: 2}" [none]'
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, lars, rmsprop and muon")
    nesterov: bool = Field(True, description="of sgd, lars and muon")
    beta1: float = Field(0.9, ge=0, lt=1, description="of adam, adamw, prodigy and schedule-free")
    beta2: float = Field(0.999, ge=0, lt=1, description="as beta1; the smoothing constant of rmsprop")
    eps: float = Field(1e-8, gt=0, description="as beta1, and of rmsprop")
    amsgrad: bool = Field(False, description="of adam and adamw")
    weight_decay: float | None = Field(None, ge=0, description="per update, on weights [by the optimizer]")
    decay_norms_and_biases: bool = Field(False, description="weight decay on parameters of one dimension too")
    ns_steps: int = Field(
        5, ge=1, le=20, description="of muon: steps of Newton and Schulz towards an orthogonal update"
    )
    normalise: bool = Field(False, description="of muon: give each weight the norm sqrt(filters) before its update")

    @field_validator("name")
    @classmethod
    def _is_known_or_a_path(cls, name: str) -> str:
        return _known_or_own(name, OPTIMIZERS, "package.module:Class")

    @field_validator("options", mode="before")
    @classmethod
    def _are_a_mapping(cls, options: Any) -> Any:
        found = options_of(options)
        if not isinstance(found, dict):
            raise ValueError("is no mapping; write its arguments as {betas: [0.9, 0.95], eps: 1e-6}")
        return found


class PlateauConfig(Section):
    """A cut of all LRs when tests get no better; the schedule goes on under it."""

    metric: str | None = Field(None, description="of tests: test_loss, test_accuracy, or test_NAME of metrics [off]")
    mode: Literal["auto", "max", "min"] = Field("auto", description="what is better; auto: less of a loss, else more")
    factor: float = Field(0.5, gt=0, lt=1, description="LR factor of a cut; a second one multiplies")
    patience: Duration = Field("2ep", description="longer than this without a better value, and the LR is cut")
    cooldown: Duration = Field("0ep", description="after a cut so long nothing is counted")
    average: int = Field(1, ge=1, description="tests whose mean is the value")
    min_delta: float = Field(0.0, ge=0, description="a value must be better by more than this to count")
    min_share: float = Field(0.0, ge=0, lt=1, description="and by more than this share of the best")
    lowest: float = Field(1e-3, ge=0, lt=1, description="least factor of all cuts together")


class GradNormConfig(Section):
    """An LR that follows the gradient: a factor target / norm on all LRs, now and then anew."""

    target: float | None = Field(None, gt=0, description="norm of the gradient at which the LR is the schedule's [off]")
    every: Duration = Field("0.5ep", description="set the factor at the first update at or after each multiple")
    memory: int = Field(100, ge=1, description="updates over which the norm is averaged, before clipping")
    bounds: str = Field("0.1:10", description="least and greatest factor, LOW:HIGH")


class HypergradientConfig(Section):
    """An LR that grows while gradients point one way: x (1 + beta cos) with each update (Baydin et al. 2018)."""

    beta: float | None = Field(
        None, gt=0, lt=1, description="share of the LR that the cosine of an update moves it [off]"
    )
    every: Duration = Field("0.1ep", description="set the factor at the first update at or after each multiple")
    bounds: str = Field("0.1:10", description="least and greatest factor, LOW:HIGH")


class AdaScaleConfig(Section):
    """When `lr.scaling=adascale` measures how much a larger batch is worth (Johnson et al. 2020)."""

    every: Duration = Field("0.1ep", description="set the gain at the first update at or after each multiple")


class LRConfig(Section):
    """The learning rate: its base, how it follows the batch, its warmup and its shape."""

    base: float | None = Field(None, gt=0, description="LR as tuned at the reference batch [by the optimizer]")
    reference_batch: Examples | None = Field(None, ge=1, description="batch at which it was tuned [by the optimizer]")
    scaling: Scaling | None = Field(
        None, description="how it follows the batch [linear for sgd and lars, none for prodigy, sqrt for others]"
    )
    warmup: Duration | None = Field(None, description="the rise to the peak; 0ep is none [longer for a larger batch]")
    warmup_from: Literal["zero", "base"] = Field("zero", description="where the rise starts")
    warmup_rise: Literal["linear", "exponential", "cosine", "constant"] = Field("linear", description="how it rises")
    shape: str | None = Field(None, description="the curve after the warmup, such as cosine(floor=0.01) [linear]")
    momentum_low: float | None = Field(None, ge=0, lt=1, description="of one_cycle and cyclic, at the top LR [off]")
    momentum_high: float | None = Field(None, ge=0, lt=1, description="of one_cycle and cyclic, at the low LR [off]")
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="factor on the LR for each layer below the model's top, such as 0.75 [off]"
    )
    rewarm: Duration = Field("1ep", description="rise to the new peak after the batch grew, with batch.per_worker_size")
    plateau: PlateauConfig = PlateauConfig()
    grad_norm: GradNormConfig = GradNormConfig()
    hypergradient: HypergradientConfig = HypergradientConfig()
    adascale: AdaScaleConfig = AdaScaleConfig()


OF_THE_RUN = (
    "rewarm",
    "plateau",
    "grad_norm",
    "hypergradient",
    "adascale",
)  # fields of lr that all optimizers share, beside any policy
BESIDE_A_POLICY = ("layer_decay",)  # fields of lr that say nothing of the LR's curve
OF_A_POLICY = LRConfig.model_fields.keys() - {*OF_THE_RUN, *BESIDE_A_POLICY}  # the others, which a policy replaces


class GroupConfig(Section):
    """One of several optimizers, each with a policy of its own, on one clock."""

    match: str = Field(description="names of its parameters: patterns with * and ?, separated by commas")
    until: Duration | None = Field(None, description="train its parameters so long, then hold them [to the end]")
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: LRConfig = LRConfig()


class LossConfig(Section):
    """What is minimised."""

    name: str = Field("cross-entropy", description="or one's own as package.module:function of (logits, labels)")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient of an update [off]")


class EvalConfig(Section):
    """When and how the weights are tested."""

    every: Duration = Field("1ep", description="test at the first update at or after each multiple")
    micro_size: Examples = Field(500, ge=1, description="test examples that pass through the model at once")
    views: Views = Field(
        "none", description="average the outputs for a test image, its mirror image, and both moved by a pixel"
    )
    average: str | None = Field(
        None, description="test an average of the weights too: ema(0.999), a decay an update, or last(5ep) [off]"
    )

    @model_validator(mode="before")
    @classmethod
    def _was_mirror(cls, values: Any) -> Any:
        """Read `mirror=yes|no`, which files and records of earlier versions have."""
        asked = str(values.get("mirror")).lower() if isinstance(values, dict) else ""
        if asked not in ("yes", "no", "true", "false"):
            return values
        others = {key: value for key, value in values.items() if key != "mirror"}
        return {"views": "mirror", **others} if asked in ("yes", "true") else others


class CheckpointConfig(Section):
    """When the state is kept on the storage, and how much of it."""

    every: Duration = Field("1ep", description="write one at the first update at or after each multiple")
    keep: int = Field(3, ge=1, description="newest checkpoints kept")


class FailureConfig(Section):
    """What a run survives, and how."""

    max_failures: int = Field(3, ge=0, description="lost workers and restarts that a run survives")
    mode: FailureMode | None = Field(None, description="on a lost worker, or a node that comes or goes [continue]")
    stall_s: Seconds = Field(120.0, gt=0, description="a collective that takes longer counts as a lost worker")


class AlertsConfig(Section):
    """Whom to tell when a run ends or needs somebody."""

    url: Webhook | None = Field(
        None, repr=False, description="POST here when the run failed, diverged, stalled, lost a worker or is done [off]"
    )
    url_file: Location | None = Field(None, description="or a file that holds it, which goes before it [off]")
    form: Literal["auto", "slack", "discord", "json"] = Field(
        "auto", description="of the POST; auto: by the URL's host"
    )
    stall_s: Seconds = Field(600.0, gt=0, description="a run that trains and tells nothing for so long has stalled")

    @field_validator("url", mode="before")
    @classmethod
    def _is_not_masked(cls, url: Any) -> Any:
        if isinstance(url, str) and is_masked(url):  # as a run's files hold it
            warnings.warn(f"alerts.url={url} is masked, so nobody is told; give the whole URL again", stacklevel=2)
            return None
        return url


class GuardConfig(Section):
    """What counts as divergence, and what then happens to the LR."""

    enabled: bool = Field(True, description="go back and cut the LR when a run diverges")
    factor: float | None = Field(
        None, gt=1, description="a loss above this times its average is suspicious [off]; a non-finite one has diverged"
    )
    patience: int = Field(3, ge=1, description="suspicious updates in a row that count as divergence")
    cut: float = Field(0.1, gt=0, lt=1, description="LR factor after a rollback; squared after a second one, and so on")
    hold: Duration = Field("0.25ep", description="how long the cut holds")
    ramp: Duration = Field("0.25ep", description="how long the factor then takes back to 1")
    snapshot_every: Duration = Field("100st", description="how often weights are kept in memory to go back to")
    max_rollbacks: int = Field(3, ge=0, description="rollbacks after which the run stops with a diagnosis")
    recheck: float = Field(
        0.0, ge=0, le=1, description="share of updates in which another worker computes a micro-batch too, and compares"
    )
    max_corruptions: int = Field(3, ge=0, description="wrong results after which a worker is replaced")


class StopConfig(Section):
    """The end of a run before its length, when it gets no better."""

    metric: str | None = Field(None, description="of tests: test_loss, test_accuracy, or test_NAME of metrics [off]")
    patience: Duration = Field("3ep", description="so long without a better one, and the run ends")
    mode: Literal["auto", "max", "min"] = Field("auto", description="what is better; auto: less of a loss, else more")
    min_delta: float = Field(0.0, ge=0, description="a value must be better by more than this to count")


class InstrumentsConfig(Section):
    """What a run measures of its own training; it changes nothing."""

    headroom: Duration | None = Field(
        None,
        description="read so often, such as 50st, how the LR stands to the one where an update stops helping [off]",
    )
    sharpness: Duration | None = Field(
        None, description="read so often the largest eigenvalue of the Hessian, plain and preconditioned [off]"
    )
    sharpness_products: int = Field(30, ge=3, description="of the Hessian with a vector, at most, for an eigenvalue")
    noise: Duration | None = Field(
        None,
        description="read so often, such as 50st, the noise scale of the gradient: beyond it a larger batch is waste [off]",
    )


class HooksConfig(Section):
    """Functions of one's own, as package.module:function, that are called and change nothing."""

    update: str | None = Field(
        None, description="called after each update with a raylr.events.Updated, by commas [none]"
    )
    test: str | None = Field(None, description="called after each test with a raylr.events.Metrics, by commas [none]")
    end: str | None = Field(None, description="called at the end with a raylr.events.Finished, by commas [none]")

    @field_validator("update", "test", "end", mode="before")
    @classmethod
    def _may_be_a_list(cls, names: Any) -> Any:
        return _by_commas(names)

    @field_validator("update", "test", "end")
    @classmethod
    def _are_paths(cls, names: str | None) -> str | None:
        for name in names_in(names):
            if not re.fullmatch(OWN, name):
                raise ValueError(f"must be package.module:function, by commas, and {name} is not")
        return names

    def names(self, when: Literal["update", "test", "end"]) -> tuple[str, ...]:
        """The functions that are called then."""
        return names_in(getattr(self, when))


class Config(Section):
    """All that a user may set of one run. What is None here is chosen by `raylr.plan`, with a reason."""

    name: str | None = Field(None, description="name of the run and of its folder [model-optimizer-seed]")
    storage: Location = Field(
        "runs",
        description="where run folders are: a path that all nodes of the run share, or a URI such as s3://bucket/runs",
    )
    seed: int = Field(0, ge=0, description="of the initialisation, the order of the data, augmentation and dropout")
    epochs: Epochs | None = Field(None, gt=0, description="length of the run [8, or the policy's]")
    workers: str | None = Field(None, description="data-parallel workers: N, or MIN:MAX [one per GPU, else 2]")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs that Ray reserves for a worker")
    num_threads: int = Field(1, ge=1, description="threads of a worker's tensor operations; changes the bits")
    gpu: Literal["auto", "yes", "no"] = Field("auto", description="one GPU per worker; auto: if the cluster has enough")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where every node has it")
    policy: Location | None = Field(None, description="a policy.json that sets the LR and the length [off]")
    stretch: bool = Field(False, description="scale the whole policy to --epochs")
    init: Location | None = Field(
        None, description="begin with the newest weights of this run, matched by name, and a new optimizer [off]"
    )
    init_best: bool = Field(False, description="with its weights of best test accuracy")
    fresh: bool = Field(False, description="start over: an old run of this name is removed")
    address: str | None = Field(None, description="address of a Ray cluster [RAY_ADDRESS, else a local one of its own]")
    log_every: Duration | None = Field(None, description="log loss, LR and gradient norm so often, such as 10st [off]")
    trackers: str | None = Field(
        None, description="of tensorboard, mlflow, wandb, by commas; or none [tensorboard, where the storage is a path]"
    )
    metrics: str | None = Field(
        None, description="measured in tests, by commas: top5, or one's own as package.module:name [none]"
    )
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: LRConfig = LRConfig()
    optimizers: dict[str, GroupConfig] = Field({}, description="several optimizers, by name")
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    stop: StopConfig = StopConfig()
    hooks: HooksConfig = HooksConfig()
    instruments: InstrumentsConfig = InstrumentsConfig()
    failure: FailureConfig = FailureConfig()
    alerts: AlertsConfig = AlertsConfig()

    if not TYPE_CHECKING:  # type checkers see the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise refusal(error, type(self)) from None
            except UnicodeEncodeError:  # of the text of a refusal
                raise not_utf8(values) from None

    @model_validator(mode="before")
    @classmethod
    def _reads_its_task(cls, values: Any) -> Any:
        return with_task(values)

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or name.startswith(".") or any(mark in name for mark in "/\\\0")):
            raise ValueError("is one folder's name: no path separators, no leading dot")
        if name is not None and not is_utf8(name):
            raise ValueError("is not UTF-8, and names must be; give another")
        return name

    @field_validator("trackers", mode="before")
    @classmethod
    def _may_be_a_list(cls, trackers: Any) -> Any:
        return ",".join(map(str, trackers)) or "none" if isinstance(trackers, list) else trackers

    @field_validator("metrics", mode="before")
    @classmethod
    def _may_be_a_list_too(cls, metrics: Any) -> Any:
        return _by_commas(metrics)

    @field_validator("metrics")
    @classmethod
    def _are_metrics(cls, metrics: str | None) -> str | None:
        for name in names_in(metrics):
            if not re.fullmatch(rf"top[1-9]\d*|{OWN}", name):
                advice = "did you mean top5?" if name.startswith("top") else "accuracy and loss are always measured"
                raise ValueError(f"must be top5 or the like, or package.module:name, and {name} is neither; {advice}")
        return metrics

    @field_validator("trackers")
    @classmethod
    def _are_known(cls, trackers: str | None) -> str | None:
        names = [] if trackers in (None, "none") else [name.strip() for name in str(trackers).split(",")]
        if any(name not in TRACKERS for name in names):
            raise ValueError(f"must be names of {', '.join(TRACKERS)}, separated by commas, or none")
        return trackers

    @field_validator("optimizers")
    @classmethod
    def _have_plain_names(cls, optimizers: dict[str, GroupConfig]) -> dict[str, GroupConfig]:
        for name in optimizers:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"has the name {name!r}: use letters, digits, - and _")
        return optimizers

    @field_validator("workers")
    @classmethod
    def _is_a_range(cls, workers: str | None) -> str | None:
        if workers is None:
            return None
        low, _, high = workers.partition(":")
        if not (re.fullmatch(r"[0-9]{1,9}(:[0-9]{1,9})?", workers) and 1 <= int(low) <= int(high or low)):
            raise ValueError("must be N or MIN:MAX with 1 <= MIN <= MAX, such as 2 or 1:4")
        return workers

    def record(self) -> dict[str, Any]:
        """Return the fields for `config.json`: all that have a value, except ORDERS; a webhook's URL is masked."""
        record = self.model_dump(mode="json", exclude=set(ORDERS), exclude_none=True)
        if self.alerts.url is not None:
            record["alerts"]["url"] = masked(self.alerts.url)
        return record

    def held_out(self, share: float) -> Self:
        """The config with a validation split of this share, where it says nothing of one.

        >>> Config().held_out(0.2).data.validation, Config(data={"validation": 0}).held_out(0.2).data.validation
        (0.2, 0.0)
        """
        if self.data.validation is not None:
            return self
        return self.model_copy(update={"data": self.data.model_copy(update={"validation": share})})

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The names of the run's trackers; by default TensorBoard, which appends to files of the run's folder."""
        if self.trackers is None:
            return () if is_uri(self.storage) else ("tensorboard",)
        return () if self.trackers == "none" else tuple(name.strip() for name in self.trackers.split(","))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that are measured in tests beside loss and accuracy."""
        return names_in(self.metrics)

    @property
    def num_workers(self) -> tuple[int, int]:
        """Smallest and largest number of workers; where none is given, that without GPUs."""
        low, _, high = (self.workers or "2").partition(":")
        return int(low), int(high or low)
