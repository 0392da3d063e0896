"""The plan as a numbered story: every choice with the reason that its decision gave."""

from collections.abc import Iterator
from dataclasses import dataclass

from raylr.config import Config
from raylr.config.own_options import is_own
from raylr.planning import own_task
from raylr.planning.facts import DatasetInfo
from raylr.planning.lr import Part
from raylr.planning.plan import Chosen, Plan, Reason
from raylr.planning.width import lines as width_lines

WITHOUT_BATCHNORM = ("vit-small",)  # of the networks that come along


@dataclass(frozen=True)
class Choices:
    """What was decided beside the LR."""

    length: Chosen[int]  # examples
    global_batch: Chosen[int | None]  # None where it follows the workers
    micro: Chosen[int]
    workers: Chosen[str]
    device: Chosen[str]
    backend: Chosen[str]
    precision: Chosen[str]
    failure_mode: Chosen[str]
    ray: Chosen[str] | None  # None where no Ray carries the plan out


def story(
    config: Config, dataset: DatasetInfo, parts: list[Part], plan: Plan, choices: Choices, lr: list[Reason]
) -> Iterator[Reason]:
    """The lines of the story in the order of the choices."""
    yield from (
        own_task.story_lines(config, plan, plan.task) if plan.task is not None else _images(config, dataset, plan)
    )
    if plan.task is not None:
        yield from _held_out(config, plan)
    yield from _batch(plan, choices)
    yield from _micro(plan, choices.micro)
    epochs = f"{plan.total_examples / plan.num_train:g}ep = {plan.total_examples:,} examples"
    yield _line(
        "length",
        f"{epochs} = {plan.batches(plan.workers[1]).num_updates(plan.total_examples):,} updates",
        choices.length.why,
    )
    for part in parts:
        yield _optimizer(part, plan)
    yield from lr
    yield _line("device", plan.device, choices.device.why)
    yield _line("backend", plan.backend, choices.backend.why)
    yield _line("precision", plan.precision, choices.precision.why)
    if choices.ray is not None:
        yield _line("Ray", choices.ray.value, choices.ray.why)
    if plan.recheck:
        whose = "another worker" if plan.workers[1] > 1 else "the same worker"
        does = f"{whose} computes a micro-batch too in {100 * plan.recheck:.3g} % of the updates, and they compare"
        yield _line("recheck", does, f"guard.recheck={plan.recheck:g}")
    does = "all start again from the newest checkpoint"
    if plan.failure_mode == "continue":
        does = "the others go on while it is replaced"
        if plan.workers[0] < plan.workers[1]:
            does = "the others go on, with more or fewer as nodes come and go"
    yield _line("lost worker", f"{plan.failure_mode}: {does}", choices.failure_mode.why)


def _held_out(config: Config, plan: Plan) -> Iterator[Reason]:
    """The line about the images that are held out, if any."""
    if plan.num_validation:
        at_end = "the test images are read once, at the end" if plan.final_test else "the test images are not read"
        held_out = f"{plan.num_validation:,} more training images, held out by the seed"
        yield _line("validation", f"{held_out}; {at_end}", f"data.validation={config.data.validation:g}")


def _images(config: Config, dataset: DatasetInfo, plan: Plan) -> Iterator[Reason]:
    """The lines about data and model of image classification."""
    height, width, channels = dataset.image_shape
    counts = f"{plan.num_train:,} training and {plan.num_test:,} test images of {height} x {width} x {channels}"
    yield _line("data", f"{dataset.source}: {counts}, {plan.num_classes} classes", f"data.source={config.data.source}")
    if plan.transform:
        yield _line("transform", ", then ".join(_told(plan) + list(plan.transform)), "data.transform")
    yield from _held_out(config, plan)
    compiled = ", compiled for its shapes on each worker" * plan.compile
    yield _line("model", f"{plan.model}{compiled}", f"model.name={plan.model}{', model.compile' * plan.compile}")
    yield from width_lines(config, plan)


def _line(what: str, value: str, why: str) -> Reason:
    return Reason(what=what, value=value, why=why)


def _told(plan: Plan) -> list[str]:
    """What is done to images before the transforms."""
    built_in = {
        "flip": plan.flip if plan.flip != "none" else 0,
        "crop_padding": plan.crop_padding,
        "cutout": plan.cutout,
    }
    return [f"data.{name}={value}" for name, value in built_in.items() if value]


def _batch(plan: Plan, choices: Choices) -> Iterator[Reason]:
    why, workers = choices.global_batch.why, choices.workers.value
    chosen = "" if choices.workers.why == "given" else f"{choices.workers.why}; "
    if plan.global_batch is None:
        most = plan.batch_at(plan.workers[1])
        yield _line("global batch", f"{plan.per_worker_size} x workers, {most} at most", why)
        yield _line("workers", workers, f"{chosen}how many changes batch, LR and result")
        return
    num_micro = plan.num_micro_batches(plan.workers[1])
    if plan.ramp:
        sizes = [size for _, size in plan.ramp]
        counts = f"{min(sizes) // plan.micro_size} to {num_micro} micro-batches of {plan.micro_size}"
        yield _line("global batch", f"{sizes[0]} to {sizes[-1]} in {len(sizes)} steps: {counts}", why)
        yield _line("workers", workers, f"{chosen}how many changes the time, never the result")
        return
    yield _line("global batch", f"{plan.global_batch} = {num_micro} micro-batches of {plan.micro_size}", why)
    result = "never the result" if plan.reduce == "tree" else "and with batch.reduce=ddp the bits"
    yield _line("workers", workers, f"{chosen}how many changes the time, {result}")


def _micro(plan: Plan, chosen: Chosen[int]) -> Iterator[Reason]:
    """The micro-batch, where it was chosen for this batch, and where no BatchNorm looks at it."""
    if plan.model in WITHOUT_BATCHNORM:
        yield without_batchnorm(plan)
    elif chosen.why not in ("given", "the default"):
        yield _line("micro-batch", str(chosen.value), f"{chosen.why}; BatchNorm sees these together")


def without_batchnorm(plan: Plan) -> Reason:
    """What micro-batches are to a model in which no layer sees them together."""
    why = "the model has no BatchNorm, so micro-batches change nothing but the bits"
    return _line("micro-batch", str(plan.micro_size), why)


def _optimizer(part: Part, plan: Plan) -> Reason:
    chosen = plan.optimizers[part.name]
    momentum = f"momentum {chosen.momentum:g}" + (" (Nesterov)" if chosen.nesterov else "")
    norms = ", weights of norm sqrt(filters)" if chosen.normalise else ""
    details = {
        "sgd": momentum,
        "lars": f"layer by layer, {momentum}",
        "muon": f"{momentum}, {chosen.ns_steps} steps of Newton and Schulz{norms}",
        "prodigy": f"betas {chosen.beta1:g}, {chosen.beta2:g}, and a step size of its own that multiplies the LR",
        "schedule-free": f"betas {chosen.beta1:g}, {chosen.beta2:g}; tests, exports and loads take its average of the weights",
        "rmsprop": f"smoothing {chosen.beta2:g}, momentum {chosen.momentum:g}",
    }.get(chosen.kind, f"betas {chosen.beta1:g}, {chosen.beta2:g}" + (", amsgrad" if chosen.amsgrad else ""))
    if is_own(chosen.kind):
        details = ", ".join(f"{key}={value}" for key, value in chosen.options.items()) or "its own defaults"
    where = "" if chosen.decay_norms_and_biases else ", none on norms and biases"
    decay = f"weight decay {chosen.weight_decay:g}{where}" if chosen.weight_decay else "no weight decay"
    if is_own(chosen.kind) and part.optimizer.weight_decay is None:
        decay += ", whatever its own default: optimizer.weight_decay is not given"
    name = f"{part.prefix}optimizer"
    held = f"; held after {part.until}" if part.until is not None else ""
    return _line(name, f"{chosen.kind}: {details}; {decay}{held}", f"{name}.name={chosen.kind}")
