"""Keep decoded images on disk: a folder of .npy files and a sidecar with their checksums, complete or absent.

The examples are stored in a fixed, shuffled order in which every prefix has the classes in their proportions, so that a
subset is a prefix, and the same one whatever the seed.
"""

import fcntl
import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import posix_fallocate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.format import open_memmap
from pydantic import BaseModel, ConfigDict, ValidationError

from raylr.errors import ConfigError
from raylr.storage.home import find_a_home
from raylr.training.data.dataset import SPLITS, Contents, Images, Indices, Report, Source
from raylr.training.stream import permutation

FORMAT = 1  # part of the folder's name; to be raised with every change of what is in it
SIDECAR = "cache.json"
CHUNK = 2000  # images that are read at once
LOCK_PAUSE_S, SAY_EVERY_S = 0.05, 30.0
LOCK_TIMEOUT_S = 6 * 3600.0  # of the process that decodes, which may have a great deal to read
Arrays = dict[str, np.ndarray[Any, Any]]


class FileStamp(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    num_bytes: int
    sha256: str


class Sidecar(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_sha256: str
    files: dict[str, FileStamp]


def folder_of(cache_dir: str, source: Source) -> Path:
    find_a_home()
    return Path(cache_dir).expanduser() / f"{source.key()}-format{FORMAT}"


def is_made(folder: Path) -> bool:
    return folder.is_dir()


def make(folder: Path, source: Source, report: Report | None = None) -> None:
    """Decode the source into the folder, unless it is there. One process does it while the others wait."""
    if is_made(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f"{folder.name}.lock", "decodes images"):
            if not is_made(folder):
                _make(folder, source, report)
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir={folder.parent} cannot be written ({error.strerror or error}); give another folder"
        ) from error


def open_cache(folder: Path) -> tuple[Sidecar, Arrays]:
    """Open the sidecar and the four arrays: images mapped, labels read. Checks sizes, headers and labels, not every byte."""
    try:
        sidecar = Sidecar.model_validate_json((folder / SIDECAR).read_text())
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise _damaged(folder, SIDECAR, "it is missing or not what was written") from error
    arrays: Arrays = {}
    for name, stamp in sidecar.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != stamp.num_bytes:
            raise _damaged(folder, name, f"it is missing or has not the {stamp.num_bytes} bytes that were written")
        if "labels" in name and _file_sha256(path) != stamp.sha256:
            raise _damaged(folder, name, "its checksum differs")
        try:
            # copy-on-write: nobody writes, but torch warns about arrays that are read-only
            arrays[name.removesuffix(".npy")] = np.load(path, mmap_mode="c" if "images" in name else None)
        except (ValueError, OSError) as error:
            raise _damaged(folder, name, "its header is not what was written") from error
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.shape != (len(labels), *sidecar.image_shape):
            raise _damaged(folder, f"{split}_images.npy", "its header is not what was written")
    return sidecar, arrays


def check_all(folder: Path) -> None:
    """Compare the checksum of every file; ConfigError names the first that differs."""
    sidecar, _ = open_cache(folder)
    for name, stamp in sidecar.files.items():
        if _file_sha256(folder / name) != stamp.sha256:
            raise _damaged(folder, name, "its checksum differs")


def data_sha256(arrays: Arrays, num_train: int, num_test: int) -> str:
    """Return the SHA-256 over the first num_train training and num_test test examples: shape of an image, images, labels."""
    digest = hashlib.sha256(repr(arrays["train_images"].shape[1:]).encode())
    for split, count in zip(SPLITS, (num_train, num_test), strict=True):
        for start in range(0, count, CHUNK):
            digest.update(np.ascontiguousarray(arrays[f"{split}_images"][start : min(start + CHUNK, count)]).data)
        digest.update(arrays[f"{split}_labels"][:count].astype("<i8").tobytes())
    return digest.hexdigest()


def balanced_order(labels: Indices, seed: int) -> Indices:
    """Return a shuffled order of the examples in which every prefix has the classes in their proportions."""
    places, turns = [], []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        places.append(inside[permutation(seed, int(label), len(inside))])
        turns.append((np.arange(len(inside)) + 0.5) / len(inside))
    return np.concatenate(places)[np.argsort(np.concatenate(turns), kind="stable")]


@contextmanager
def locked(path: Path, does: str) -> Iterator[None]:
    """Hold a lock that the system takes back from a process that dies. Says now and then what its holder `does`."""
    since = said = time.monotonic()
    with path.open("a") as file:
        while not _is_ours(file):
            waited_s = time.monotonic() - since
            if waited_s > LOCK_TIMEOUT_S:
                raise ConfigError(
                    f"data.cache_dir={path.parent} is held by another process for over {LOCK_TIMEOUT_S / 3600:g} h; "
                    "end it or give another folder"
                )
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                text = f"another process {does} into {path.with_suffix('')}; waited for {waited_s:.0f} s"
                warnings.warn(text, stacklevel=2)
            time.sleep(LOCK_PAUSE_S)
        yield


def _is_ours(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(folder: Path, source: Source, report: Report | None) -> None:
    contents = source.scan(report)
    temporary = folder.parent / f"{folder.name}.part"
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir()
        _write(temporary, contents, report)
        _seal(temporary, source.name, contents)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(folder: Path, contents: Contents, report: Report | None) -> None:
    """Write the images, each at its place in the balanced order, and the labels."""
    images, places = {}, {}
    for number, split in enumerate(SPLITS):
        labels = contents.labels[split]
        order = balanced_order(labels, number)
        np.save(folder / f"{split}_labels.npy", labels[order])
        places[split] = np.argsort(order)
        images[split] = _new_images(folder / f"{split}_images.npy", (len(labels), *contents.image_shape))
    total = sum(map(len, places.values()))
    done = reported = 0
    for piece in contents.pieces():
        images[piece.split][places[piece.split][piece.places]] = piece.images
        done += len(piece.places)
        if report and (done - reported >= 500 or done == total):
            report(done, total)
            reported = done
    for array in images.values():
        array.flush()


def _new_images(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    array: np.memmap[Any, np.dtype[np.uint8]] = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        posix_fallocate(
            file.fileno(), 0, path.stat().st_size
        )  # a full disk is an error here, a crash once it is mapped
    return array


def _seal(folder: Path, source: str, contents: Contents) -> None:
    """Write the sidecar of what is in the folder."""
    paths = sorted(folder.glob("*.npy"))
    arrays: Arrays = {path.stem: np.load(path, mmap_mode="r") for path in paths}
    mean, std = _statistics(arrays["train_images"])
    counts = (len(arrays[f"{split}_images"]) for split in SPLITS)
    sidecar = Sidecar(
        source=source,
        class_names=contents.class_names,
        image_shape=contents.image_shape,
        mean=mean,
        std=std,
        data_sha256=data_sha256(arrays, *counts),
        files={path.name: FileStamp(num_bytes=path.stat().st_size, sha256=_file_sha256(path)) for path in paths},
    )
    (folder / SIDECAR).write_text(json.dumps(sidecar.model_dump(), indent=1))


def _statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel in 0..1, from counts of the 256 values; 1 for a flat channel."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].reshape(-1, channels)
        counts += [np.bincount(chunk[:, channel], minlength=256) for channel in range(channels)]
    values = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt(counts @ values**2 / total - mean**2)
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"data.cache_dir={folder.parent}: {folder / name} is damaged, {why}; "
        f"to make it anew, remove the folder {folder} and run 'raylr data prepare'"
    )
