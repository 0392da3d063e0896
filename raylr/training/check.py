"""What can only be known with torch at hand, found on the driver before anything starts."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raylr.config.user_code import call_with
from raylr.errors import ConfigError
from raylr.planning.plan import Plan
from raylr.training.augment import Normalise
from raylr.training.frozen import freeze
from raylr.training.losses import Loss, loss_for
from raylr.training.metrics import tried
from raylr.training.models import build
from raylr.training.optimizers import tried_optimizers
from raylr.training.trainer import precision
from raylr.training.try_transforms import try_transforms

MAX_PIXELS = 2**20  # in the images of the trial, for a model of the GPU that is tried on a CPU
VIEW = "view size is not compatible"  # torch's words
NO_KERNEL = "not implemented for"
T = TypeVar("T")


def check(plan: Plan) -> bool:
    """Build the model, the loss and the optimizers once, and try one's own parts; returns whether the model has BatchNorm.

    Raises ConfigError for what does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(plan.model, plan.num_classes, plan.image_shape, plan.dropout, plan.width)
        if plan.freeze:
            freeze(model, plan.freeze)
        loss = loss_for(plan.loss, plan.num_classes, plan.label_smoothing)
        tried_optimizers(model, plan.optimizers)
        if ":" in plan.model or ":" in plan.loss:
            _try(plan, model.to(memory_format=torch.channels_last), loss)
        tried(plan)
        try_transforms(plan)
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _try(plan: Plan, model: nn.Module, loss: Loss) -> None:
    """Train on one micro-batch and test on one, as the workers do, but without a step and on the CPU.

    A kernel that the CPU lacks says nothing about a GPU.
    """
    try:
        _train(plan, model, loss)
        _test(plan, model)
    except ConfigError as error:
        lacks_kernel = plan.device != "cpu" and NO_KERNEL in str(error)
        if not lacks_kernel and not _lacks_memory(error.__cause__):
            raise


def _lacks_memory(error: BaseException | None) -> bool:
    """True where this machine has no room: a worker may have more, and names the micro-batch that fits if not."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _train(plan: Plan, model: nn.Module, loss: Loss) -> None:
    images, labels = _examples(plan, _batch(plan))
    told = f"{len(labels)} images in channels_last and {plan.precision}, as in training,"
    with precision(plan, "cpu"):
        output = _called(lambda: model.train()(images), f"model.name={plan.model} on {told}")
    _check_output(output, plan, len(labels))
    value = _called(lambda: loss(output.float(), labels), f"loss.name={plan.loss} on {told}")
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    gradients = _called(
        lambda: torch.autograd.grad(value, list(parameters.values()), allow_unused=True),
        f"the gradient of loss.name={plan.loss} by model.name={plan.model} on {told}",
    )
    idle = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    if idle and plan.reduce == "ddp" and plan.workers[1] > 1:
        raise ConfigError(
            f"batch.reduce=ddp needs a gradient of every parameter, and {idle[0]} of model.name={plan.model} gets none; "
            "use batch.reduce=tree, or freeze it with requires_grad_(False)"
        )


def _test(plan: Plan, model: nn.Module) -> None:
    images, _ = _examples(plan, _fitting(plan, min(plan.eval_micro_size, plan.num_test)))
    told = f"{len(images)} images in channels_last and {plan.precision}, as in tests,"
    with precision(plan, "cpu"), torch.no_grad():
        output = _called(lambda: model.eval()(images), f"model.name={plan.model} on {told}")
    _check_output(output, plan, len(images))


def _batch(plan: Plan) -> int:
    """How many images pass through the model at once in training."""
    least = plan.workers[0]
    return _fitting(plan, plan.micro_size if plan.reduce == "tree" else plan.batch_at(least, 0) // least)


def _fitting(plan: Plan, count: int) -> int:
    if plan.device == "cpu":
        return count
    height, width, _ = plan.image_shape
    return min(count, max(2, MAX_PIXELS // (height * width)))


def _examples(plan: Plan, count: int) -> tuple[Tensor, Tensor]:
    """Noise and labels of all classes in turn, in the layout of training."""
    channels = plan.image_shape[2]
    noise = torch.randint(0, 256, (count, *plan.image_shape), dtype=torch.uint8)
    normalise = Normalise([0.5] * channels, [0.25] * channels, plan.image_shape, noise.device)
    return normalise(noise), torch.arange(count) % plan.num_classes


def _called(function: Callable[[], T], field: str) -> T:
    try:
        result: T = call_with(function, {}, field)
    except ConfigError as error:
        if VIEW not in str(error):
            raise
        raise ConfigError(
            f"{error}; the images are in channels_last, which .view cannot flatten: use .reshape or .flatten(1)"
        ) from error
    return result


def _check_output(output: object, plan: Plan, count: int) -> None:
    if not isinstance(output, Tensor) or output.shape != (count, plan.num_classes):
        found = f"{tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(
            f"model.name={plan.model} gives {found} for {count} images of {plan.num_classes} classes; "
            f"give logits ({count}, {plan.num_classes})"
        )
