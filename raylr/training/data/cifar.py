"""Read CIFAR-10 with torchvision's file list, integrity check and download.

Only the functions that read or download the files import torchvision, and torch with it.
"""

import os
import pickle
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo
from raylr.training.data.dataset import SPLITS, Contents, Piece, Report

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = URL.rpartition("/")[2]
ARCHIVE_BYTES = 170_498_071
FOLDER = "cifar-10-batches-py"
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (32, 32, 3)
REACH_S = 8.0  # to find out whether there is a way to the server; before anything else starts
STALL_S = 30.0  # without a byte, once the download runs


class UnavailableError(Exception):
    """CIFAR-10 is not here and cannot be fetched."""


@dataclass(frozen=True)
class Cifar10:
    root: str
    name: str = "cifar10"

    @property
    def folder(self) -> Path:
        return Path(self.root).expanduser() / FOLDER

    @property
    def archive(self) -> Path:
        return self.folder.parent / ARCHIVE

    def key(self) -> str:
        """The content never changes and is checked when it is read, so one cache serves all copies."""
        return "cifar10"

    def is_here(self) -> bool:
        """Return True if the files or their archive are in data.root. ConfigError for a broken link in their place."""
        for path, is_whole in ((self.folder, Path.is_dir), (self.archive, Path.is_file)):
            if os.path.lexists(path) and not is_whole(path):
                raise self._damaged(path, "is a link that leads nowhere, or of another kind")
        return self.folder.is_dir() or self.archive.is_file()

    def describe(self) -> DatasetInfo:
        is_here = self.is_here()
        if is_here and not self.folder.is_dir() and (size := self.archive.stat().st_size) != ARCHIVE_BYTES:
            raise self._damaged(self.archive, f"is damaged or truncated, {size} bytes of {ARCHIVE_BYTES}")
        note = "" if is_here else f"CIFAR-10 is not in data.root={self.root}; it would be downloaded"
        return DatasetInfo(self.name, 50_000, 10_000, CLASS_NAMES, SHAPE, note=note)

    def scan(self, report: Report | None = None) -> Contents:
        self.is_here()  # refuses what is there and broken
        if not self.folder.is_dir():
            self._unpack() if self.archive.is_file() else self._download()
        self._check()
        return contents(self.folder)

    def _check(self) -> None:
        """Run torchvision's integrity check, file by file."""
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_integrity

        for name, md5 in CIFAR10.train_list + CIFAR10.test_list:
            if not check_integrity(str(self.folder / name), md5):
                raise ConfigError(
                    f"data.root={self.root}: {self.folder / name} is missing or damaged; remove it all and run again"
                )

    def _unpack(self) -> None:
        """Unpack the archive in data.root. Refuses a broken one and leaves it in place."""
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_integrity, extract_archive

        if not check_integrity(str(self.archive), CIFAR10.tgz_md5):
            raise self._damaged(self.archive, "is damaged or truncated, its MD5 is another")
        try:
            with self._beside() as temporary:
                extract_archive(str(self.archive), temporary)
                (Path(temporary) / FOLDER).rename(self.folder)
        except OSError as error:
            raise ConfigError(
                f"data.root={self.root}: {self.archive} cannot be unpacked there ({error.strerror or error}); "
                "unpack it elsewhere and give that folder"
            ) from error

    def _download(self) -> None:
        """Download the archive, unpack it beside its place, and move it there when it is whole."""
        if reason := unreachable():
            raise self._unavailable(reason)
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_and_extract_archive

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(STALL_S)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with self._beside() as temporary:
                download_and_extract_archive(CIFAR10.url, temporary, temporary, CIFAR10.filename, CIFAR10.tgz_md5)
                (Path(temporary) / FOLDER).rename(self.folder)
        except (OSError, RuntimeError, EOFError) as error:
            raise self._unavailable(str(error)) from error
        finally:
            socket.setdefaulttimeout(before)

    def _beside(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="cifar10-", dir=self.folder.parent)

    def _damaged(self, path: Path, why: str) -> ConfigError:
        return ConfigError(f"data.root={self.root}: {path} {why}; get it anew, or remove it")

    def _unavailable(self, reason: str) -> UnavailableError:
        return UnavailableError(f"CIFAR-10 is not in data.root={self.root} and cannot be downloaded ({reason})")


def contents(folder: Path) -> Contents:
    """Read the batches in a folder. Check their MD5 first: unpickling runs the code in them."""
    labels = {split: np.concatenate([_read(folder / name)["labels"] for name in FILES[split]]) for split in SPLITS}
    return Contents(CLASS_NAMES, SHAPE, labels, lambda: _pieces(folder))


def _pieces(folder: Path) -> Iterator[Piece]:
    for split in SPLITS:
        start = 0
        for name in FILES[split]:
            images = _read(folder / name)["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            yield Piece(split, np.arange(start, start + len(images)), images)
            start += len(images)


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")


def unreachable(url: str = URL, limit_s: float = REACH_S) -> str:
    """Return why a server cannot be reached; empty if it can. Takes at most limit_s, also if names are not resolved."""
    outcome = [f"no answer within {limit_s:g} s"]

    def ask() -> None:
        try:
            urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=limit_s).close()
            outcome[0] = ""
        except OSError as error:
            outcome[0] = str(error).strip("<>")

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no timeout of its own
    thread.start()
    thread.join(limit_s)
    return outcome[0]
