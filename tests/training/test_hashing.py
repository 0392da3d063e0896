"""The hash of weights, against the bytes put together by hand."""

import hashlib
import struct

import torch
from torch import nn

from raylr.training.hashing import plain_name, sha256_of, weights_sha256


def test_hash_is_over_name_dtype_shape_and_little_endian_bytes_in_the_order_of_names():
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3]])}
    expected = b"a|torch.int64|(1, 1)|" + struct.pack("<q", 3) + b"b|torch.float32|(2,)|" + struct.pack("<2f", 1, 2)
    assert sha256_of(tensors) == hashlib.sha256(expected).hexdigest()


def test_memory_format_does_not_matter_but_one_bit_does():
    weights = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    last = weights.to(memory_format=torch.channels_last)
    assert sha256_of({"w": weights}) == sha256_of({"w": last})
    changed = weights.clone()
    changed.view(torch.int32).view(-1)[5] ^= 1
    assert sha256_of({"w": weights}) != sha256_of({"w": changed})


def test_wrappers_prefixes_are_stripped():
    assert plain_name("module._orig_mod.head.weight") == "head.weight"
    model = nn.Sequential(nn.Linear(2, 2))
    wrapped = nn.Module()
    wrapped.module = model
    assert weights_sha256(model) == weights_sha256(wrapped)
