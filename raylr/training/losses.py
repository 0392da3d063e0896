"""Losses by name: cross-entropy, and one's own as `package.module:function`.

A loss takes logits [b, num_classes] and labels [b] and returns their mean over the b examples. A sum would grow with
the batch, and linear scaling of the LR would scale a second time.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from raylr.config.user_code import call_with, import_object
from raylr.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
CROSS_ENTROPY = "cross-entropy"


def loss_for(name: str, num_classes: int, label_smoothing: float = 0.0) -> Loss:
    """The loss of this name. ConfigError for one's own that does not import, or gives no mean over the examples.

    >>> loss_for("cross-entropy", num_classes=4)(torch.zeros(2, 4), torch.tensor([0, 3])).exp()
    tensor(4.)
    """
    if name == CROSS_ENTROPY:
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if ":" not in name:
        raise ConfigError(f"loss.name={name} is not {CROSS_ENTROPY}; one's own is package.module:function")
    if label_smoothing:
        raise ConfigError(f"loss.label_smoothing={label_smoothing} belongs to {CROSS_ENTROPY}; use 0 with {name}")
    with torch.random.fork_rng(devices=[]):
        loss = import_object(name, "loss.name")
        if not callable(loss) or isinstance(loss, type):
            raise ConfigError(f"loss.name={name} is no function; name one that takes logits and labels")
        _check(loss, name, num_classes)
    return loss  # type: ignore[no-any-return]


def _check(loss: Loss, name: str, num_classes: int) -> None:
    """Show it two examples, and the same two twice: a mean does not change."""
    logits = torch.linspace(-1.0, 1.0, 2 * num_classes).reshape(2, num_classes).requires_grad_()
    labels = torch.arange(2) % num_classes
    field = f"loss.name={name}"
    once = call_with(lambda: loss(logits, labels), {}, f"{field} on two examples")
    if not isinstance(once, Tensor) or once.shape != () or not once.requires_grad:
        found = f"a tensor of shape {tuple(once.shape)}" if isinstance(once, Tensor) else f"a {type(once).__name__}"
        raise ConfigError(f"{field} returns {found}, not one number with a gradient; return the mean over the examples")
    twice = loss(torch.cat([logits, logits]), torch.cat([labels, labels]))
    if not torch.isclose(once, twice, rtol=1e-3):
        raise ConfigError(f"{field} grows with the number of examples; return the mean over them")
