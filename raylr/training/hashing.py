"""SHA-256 of weights and optimizer state: equal if and only if every bit is."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

WRAPPERS = ("module.", "_orig_mod.")


def plain_name(name: str) -> str:
    """A parameter's name without the prefixes that DistributedDataParallel and torch.compile add."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, dtype, shape, contiguous little-endian bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over a model's parameters and buffers."""
    return sha256_of({plain_name(name): tensor for name, tensor in model.state_dict().items()})
