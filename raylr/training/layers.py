"""The layers of a model from the bottom to the top, for an LR that falls with the depth (`lr.layer_decay`).

As in BEiT (Bao et al. 2022, arXiv 2106.08254) and timm: what comes before the first block (stem, positions) is the lowest
layer, each block is one, and what comes after the last block (norm, head) is the top, whose LR is the optimizer's own.
"""

from collections.abc import Iterator

from torch import nn

from raylr.errors import ConfigError

Names = list[str]
Stack = nn.Sequential | nn.ModuleList


def layers_of(model: nn.Module) -> list[Names]:
    """The parameters of each layer by name, the lowest layer first.

    Blocks are the elements of the model's nn.Sequential and nn.ModuleList, in the order in which the model defines them; a part
    that holds a stack of blocks is looked into, and a block is not. In a model without them each part is a layer. A norm
    belongs to what it follows, and a parameter of no part to the lowest layer.
    """
    units = list(_units(model, ""))
    blocks = [number for number, (_, _, is_block) in enumerate(units) if is_block]
    first, last = (blocks[0], blocks[-1]) if blocks else (0, len(units) - 1)
    layers: list[Names] = []
    for number, (prefix, module, _) in enumerate(units):
        names = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
        joins = _is_norm(module) or number < first or number > last + 1
        if layers and joins and number != last + 1:
            layers[-1] += names
        else:
            layers.append(names)
    placed = {name for names in layers for name in names}
    own = [name for name, _ in model.named_parameters() if name not in placed]
    if not layers:
        return [own]
    if not blocks or first > 0:
        layers[0] = own + layers[0]
    elif own:
        layers.insert(0, own)
    return layers


def depths_of(model: nn.Module) -> dict[str, int]:
    """How many layers each parameter is below the top. Raises ConfigError for a model of one layer."""
    layers = layers_of(model)
    if len(layers) < 2:
        raise ConfigError(
            "lr.layer_decay finds one layer in the model, so nothing is below its top; leave it out, or define the model's "
            "blocks in an nn.Sequential or nn.ModuleList"
        )
    return {name: len(layers) - 1 - number for number, names in enumerate(layers) for name in names}


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module, bool]]:
    """The parts of a module that have parameters, by name and in order, and whether each is a block."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if not any(True for _ in child.parameters()):
            continue
        if isinstance(child, Stack) or (not isinstance(module, Stack) and _holds_blocks(child)):
            yield from _units(child, path)
        else:
            yield path, child, isinstance(module, Stack)


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a part has, anywhere inside, a stack of two blocks or more: elements that have parts themselves."""
    return any(
        isinstance(one, Stack) and sum(any(True for _ in element.children()) for element in one) > 1
        for one in module.modules()
    )


def _is_norm(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and all(one.ndim < 2 for one in module.parameters())
