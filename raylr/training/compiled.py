"""A model as compiled kernels: fewer of them, and none that is chosen by timing.

Ranks compile the same graph for the same shape of a micro-batch, and get the same kernels on one kind of machine. Rounding
differs from that of the plain model, so the bits of a run do.
"""

import shutil

from torch import nn

from raylr.errors import ConfigError

# Else what a kernel keeps in fp32 is compared with what was rounded to bf16 when it was stored: the maximum of `amax` is then
# found nowhere in its own input, and its gradient is 0 / 0.
OPTIONS = {"emulate_precision_casts": True}
COMPILERS = ("g++", "c++", "clang++")  # torch calls one of them, for the CPU and for what launches kernels of a GPU


def compile_in_place(model: nn.Module) -> None:
    """Have the model compiled in its first calls; names and values of its parameters stay. ConfigError without a compiler."""
    if not any(map(shutil.which, COMPILERS)):
        raise ConfigError(
            "model.compile=true needs a C++ compiler such as g++ on each node; install one, or leave it out"
        )
    model.compile(dynamic=False, options=OPTIONS)
