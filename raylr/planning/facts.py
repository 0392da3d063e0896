"""What a plan is made from beside the config: the data set and the machines that train."""

import ctypes
import itertools
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from raylr.errors import ConfigError
from raylr.planning.plan import InitPlan, TaskPlan

OLDEST_RAY, NEWEST_RAY = "2.53", "2.60"  # what the tests have passed on
OLDEST_TORCH = "2.9"  # the first with torch.optim.Muon


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in a few words. The counts are what is used of it: after train_examples, validation and test_examples."""

    source: str  # cifar10, synthetic, or the path as given: what `auto` was resolved to
    num_train: int
    num_test: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # H, W, C
    data_sha256: str = ""  # over the images and labels that are used; empty until prepared
    note: str = ""  # what the user must not overlook, such as why the images are synthetic
    mean: tuple[float, ...] = ()  # per channel, in 0..1; empty until prepared
    std: tuple[float, ...] = ()
    num_validation: int = 0  # training images that are held out; not among num_train
    initial: InitPlan | None = None  # what a run on it starts with, in place of the seed's initialisation
    task: TaskPlan | None = None  # of one's own: without `takes_dataset` no classes and no images


@dataclass(frozen=True)
class Hardware:
    """The machines that train. `bf16`: every processor computes it natively; `num_gpus` of all of them together."""

    bf16: bool
    num_gpus: int


def local_hardware() -> Hardware:
    """This machine: its processor's instructions for bf16, and the GPUs that a process here may use."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        words = set()
    return Hardware(
        bool(words & {"avx512_bf16", "amx_bf16", "bf16"}), usable_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    )


def usable_gpus(visible: str | None, dev: Path = Path("/dev"), nvml: str = "libnvidia-ml.so.1") -> int:
    """The number of GPUs as NVML counts them, as Ray does, or else by their device files, limited as CUDA limits it.

    `visible` names them as CUDA_VISIBLE_DEVICES does, by number, UUID or MIG instance: CUDA takes those before the first
    that it does not know, and a MIG instance is a part of a GPU.
    """
    counted = _nvml_count(nvml)
    there = counted if counted is not None else len(list(dev.glob("nvidia[0-9]*")))
    if visible is None or not there:
        return there
    names = [name.strip() for name in visible.split(",")]
    known = list(itertools.takewhile(lambda name: _is_known(name, there), names))
    whole = {name for name in known if not name.startswith("MIG-")}
    return min(len(whole), there) + len(set(known) - whole)


def _is_known(name: str, there: int) -> bool:
    return name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < there)


def _nvml_count(library: str) -> int | None:
    """GPUs as the driver's own library counts them; None where it is not there or does not work."""
    try:
        nvml = ctypes.CDLL(library)
        count = ctypes.c_uint()
        if nvml.nvmlInit_v2() != 0:
            return None
        failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        nvml.nvmlShutdown()
    except (OSError, AttributeError):
        return None
    return None if failed else count.value


def release(version: str) -> tuple[int, int]:
    """The first two numbers of a version, which compare as versions do.

    >>> release("2.9.1+cu130") < release("2.53.0.dev0")
    True
    """
    major, minor = version.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()) or 0)


def _feature(since: str, without: str) -> Any:
    return field(default=True, metadata={"since": since, "without": without})


@dataclass(frozen=True)
class Features:
    """What the installed Ray offers beside its public API, or offers there only since a version; all of it by default.

    Each states the version in which it came and, in a few words, what is done without it. An empty `ray` is a version that
    is of no concern, as where a plan is made that no Ray carries out.
    """

    ray: str = ""
    replace_one_worker: bool = _feature("2.56", "a lost worker restarts all")
    elastic: bool = _feature("2.55", "no --workers MIN:MAX")
    local_cluster: bool = _feature("2.53", "no raylr cluster up")
    local_nodes: bool = _feature("2.55", "local clusters of one node")
    quiet_agent: bool = _feature("2.54", "Ray's dashboard agent runs beside the workers")
    lean_start: bool = _feature("2.53", "Ray's helper processes run beside the workers")
    population: bool = _feature("2.53", "no raylr explore")
    pbt: bool = _feature("2.53", "no --search pbt or pb2")
    pb2_kernel: bool = _feature("2.53", "no --search pb2")
    gcs_calls: bool = _feature("2.53", "an address is checked by connecting to it")
    find_cluster: bool = _feature(
        "2.53", "address=auto is looked up by Ray, which asks a cluster that has ended for minutes"
    )
    drains: bool = _feature(
        "2.53", "no checkpoint before a node is taken away, and a node that comes or goes restarts all"
    )
    autoscaler_report: bool = _feature("2.53", "every cluster may have an autoscaler: missing nodes are waited for")

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the features that are not there."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is False)

    def summary(self) -> str:
        """What is done without the features that are missing, each with the version that has it."""
        found = [
            f"{one.metadata['without']} ({'until' if self._is_to_come(one.name) else 'gone since'} {self._last(one.name)})"
            for one in fields(self)
            if one.name in self.missing
        ]
        return "; ".join(found) or "all that raylr uses is there"

    def newer(self) -> str | None:
        """The warning for a Ray that is newer than the newest tested one; None for others."""
        if not self.ray or release(self.ray) <= release(NEWEST_RAY):
            return None
        return f"Ray {self.ray} is newer than {NEWEST_RAY}, the newest that was tested with this version of raylr"

    def notes(self) -> tuple[str, ...]:
        """What is done without, and that this Ray is newer than tested, for a reader of no plan; none of all that is there."""
        lacks = (f"Ray {self.ray}: {self.summary()}",) if self.missing else ()
        return (*lacks, *filter(None, [self.newer()]))

    def refusal(self, request: str, feature: str, instead: str) -> ConfigError:
        """The error for a request, `name=value`, that needs a feature which is missing."""
        since = _since(feature)
        needed = since if self._is_to_come(feature) else f"{since} to {NEWEST_RAY}"
        return ConfigError(f"{request} needs Ray {needed}, and {self.ray} is installed; {instead}")

    def _is_to_come(self, feature: str) -> bool:
        """True for an older Ray than the first with the feature, False for a newer one that has lost it."""
        return release(self.ray) < release(_since(feature))

    def _last(self, feature: str) -> str:
        return _since(feature) if self._is_to_come(feature) else NEWEST_RAY


def _since(feature: str) -> str:
    """The version in which a feature came."""
    found: str = next(one.metadata["since"] for one in fields(Features) if one.name == feature)
    return found


ALL_FEATURES = Features()


def refuse_older(package: str, installed: str | None, needed: str) -> None:
    """Raise ConfigError where a package is older than raylr can work with, or not there (None)."""
    if installed is None or release(installed) < release(needed):
        found = "not installed" if installed is None else f"{installed} is installed"
        raise ConfigError(
            f"{package}={installed or 'none'}: {found}, and raylr needs {needed} or newer; "
            f'pip install "{package}>={needed}"'
        )
