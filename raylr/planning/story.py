"""What a plan tells before anything starts: every choice with its reason, and what the user may not expect."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.planning.facts import DatasetInfo
from raylr.planning.lr import Part
from raylr.planning.plan import Plan, Reason


def story(
    config: Config, dataset: DatasetInfo, parts: list[Part], plan: Plan, length: str, lr: list[Reason], num_gpus: int
) -> Iterator[Reason]:
    """The lines of the story in the order of the choices."""
    height, width, channels = dataset.image_shape
    counts = f"{plan.num_train:,} training and {plan.num_test:,} test images of {height} x {width} x {channels}"
    yield _line("data", f"{dataset.source}: {counts}, {plan.num_classes} classes", f"data.source={config.data.source}")
    yield _line("model", plan.model, f"model.name={plan.model}")
    yield from _batch(config, plan)
    batch = plan.batch_at(plan.workers[1])
    epochs = f"{plan.total_examples / plan.num_train:g}ep = {plan.total_examples:,} examples"
    yield _line("length", f"{epochs} = {plan.total_examples // batch:,} updates", length)
    for part in parts:
        yield _optimizer(part, plan)
    yield from lr
    yield _line("device", plan.device, _given(config.gpu, "auto", f"{num_gpus} GPUs for {plan.workers[1]} workers"))
    has = "has" if plan.precision == "bf16" else "lacks"
    why = f"the {'GPU' if plan.device == 'cuda' else 'processor'} {has} bf16"
    yield _line("precision", plan.precision, _given(config.precision, "auto", why))
    yield _failure(config, plan)


def _line(what: str, value: str, why: str) -> Reason:
    return Reason(what=what, value=value, why=why)


def _given(value: object, default: object, otherwise: str) -> str:
    return otherwise if value == default else "given"


def _batch(config: Config, plan: Plan) -> Iterator[Reason]:
    if plan.global_batch is None:
        most = plan.batch_at(plan.workers[1])
        value = f"{plan.per_worker_size} x workers, {most} at most"
        yield _line("global batch", value, "batch.per_worker_size is given: batch and LR follow the workers")
        yield _line("workers", config.workers, "how many changes batch, LR and result")
        return
    num_micro = plan.num_micro_batches(plan.workers[1])
    value = f"{plan.global_batch} = {num_micro} micro-batches of {plan.micro_size}"
    yield _line("global batch", value, _given(config.batch.global_size, None, "the batch at which the LRs were tuned"))
    result = "never the result" if plan.reduce == "tree" else "and with batch.reduce=ddp the bits"
    yield _line("workers", config.workers, f"how many changes the time, {result}")


def _optimizer(part: Part, plan: Plan) -> Reason:
    chosen = plan.optimizers[part.name]
    details = {
        "sgd": f"momentum {chosen.momentum:g}" + (" (Nesterov)" if chosen.nesterov else ""),
        "lars": f"layer by layer, momentum {chosen.momentum:g}" + (" (Nesterov)" if chosen.nesterov else ""),
        "rmsprop": f"smoothing {chosen.beta2:g}, momentum {chosen.momentum:g}",
    }.get(chosen.kind, f"betas {chosen.beta1:g}, {chosen.beta2:g}" + (", amsgrad" if chosen.amsgrad else ""))
    where = "" if chosen.decay_norms_and_biases else ", none on norms and biases"
    decay = f"weight decay {chosen.weight_decay:g}{where}" if chosen.weight_decay else "no weight decay"
    name = f"{part.prefix}optimizer"
    return _line(name, f"{chosen.kind}: {details}; {decay}", f"{name}.name={chosen.kind}")


def _failure(config: Config, plan: Plan) -> Reason:
    fixed = plan.workers[0] == plan.workers[1]
    why = "the number of workers is fixed" if fixed else "the number of workers may change"
    does = "the others go on while it is replaced"
    if plan.failure_mode == "restart":
        does = "all start again from the newest checkpoint"
    return _line("lost worker", f"{plan.failure_mode}: {does}", _given(config.failure.mode, None, why))
