"""Parameters that never train (`model.freeze`): they get no gradient, no update and no weight decay.

A BatchNorm whose own weight and bias are frozen normalises by its running statistics, in training as in tests, and those stay:
it is the function that it was in the run that the weights come from.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raylr.errors import ConfigError
from raylr.training.patterns import matched


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Freeze the parameters that the patterns match, and return the BatchNorms that stand still with them.

    ConfigError for a pattern that matches nothing, and where nothing is left to train.
    """
    names = matched([name for name, _ in model.named_parameters()], "model.freeze", patterns)
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad_(False)
    if not any(one.requires_grad for one in parameters.values()):
        raise ConfigError(f"model.freeze={','.join(patterns)} leaves nothing to train; leave out, say, the head")
    frozen = {id(parameters[name]) for name in names}
    own = [(module, list(module.parameters())) for module in model.modules() if isinstance(module, _BatchNorm)]
    return [module for module, weights in own if weights and all(id(one) in frozen for one in weights)]
