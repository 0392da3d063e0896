"""GPUs are counted as Ray and CUDA count them: by NVML or by device files, as far as CUDA_VISIBLE_DEVICES shows them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from raylr.planning.facts import usable_gpus

NO_LIBRARY = "libno-such-nvml.so"
UUID, MIG = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2"


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """Device files of four GPUs, and those that are there beside them."""
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("NoDevFiles", 0),
        ("0", 1),
        ("0, 3", 2),
        ("0,0", 1),
        ("0,1,2,3,4", 4),
        ("1,-1,2", 1),  # CUDA takes those before the first that it does not know
        ("9,0", 0),
        (UUID, 1),
        (f"{UUID},GPU-1234", 2),
        (MIG, 1),
        ("MIG-a,MIG-b,MIG-c,MIG-d,MIG-e", 5),  # parts of GPUs
    ],
)
def test_visible_devices_limit_those_that_are_there(dev: Path, visible: str | None, count: int):
    assert usable_gpus(visible, dev, NO_LIBRARY) == count


def test_no_device_file_is_no_gpu(tmp_path: Path):
    assert usable_gpus(None, tmp_path, NO_LIBRARY) == usable_gpus("0,1", tmp_path, NO_LIBRARY) == 0


def library(folder: Path, init: int, count: int) -> str:
    """A library with the functions of NVML that are asked."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler is here")
    source = folder / "nvml.c"
    source.write_text(
        f"int nvmlInit_v2(void) {{ return {init}; }} int nvmlShutdown(void) {{ return 0; }}"
        f"int nvmlDeviceGetCount_v2(unsigned *count) {{ *count = {count}; return 0; }}"
    )
    path = folder / f"libnvml-{init}-{count}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True, timeout=60)
    return str(path)


def test_nvml_counts_before_device_files_do(dev: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("nvml")
    assert usable_gpus(None, dev, library(folder, 0, 2)) == 2
    assert usable_gpus("0,1,2", dev, library(folder, 0, 2)) == 2
    assert usable_gpus(None, dev, library(folder, 9, 2)) == 4  # a driver that does not work
