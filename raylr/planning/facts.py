"""What a plan is made from beside the config: the data set and the machines that train."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in a few words. The counts are what is used of it: after train_examples and test_examples."""

    source: str  # cifar10, synthetic, or the path as given: what `auto` was resolved to
    num_train: int
    num_test: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # H, W, C
    data_sha256: str = ""  # over the images and labels that are used; empty until prepared
    note: str = ""  # what the user must not overlook, such as why the images are synthetic
    mean: tuple[float, ...] = ()  # per channel, in 0..1; empty until prepared
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Hardware:
    """The machines that train. `bf16`: every processor computes it natively; `num_gpus` of all of them together."""

    bf16: bool
    num_gpus: int


def local_hardware() -> Hardware:
    """This machine, read from the kernel: instructions for bf16, and GPUs as far as CUDA_VISIBLE_DEVICES shows them."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        words = set()
    num_gpus = len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        num_gpus = min(num_gpus, len([device for device in visible.split(",") if device.strip() not in ("", "-1")]))
    return Hardware(bool(words & {"avx512_bf16", "amx_bf16", "bf16"}), num_gpus)
