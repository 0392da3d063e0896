"""CIFAR-10 as torchvision has it: its files, its integrity check, its download. torchvision is imported only where it is used."""

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
from raylr.training.data.dataset import SPLITS, Contents, DatasetInfo, Piece

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (32, 32, 3)
REACH_S = 8.0  # to find out whether there is a way to the server; by then we have promised nothing yet
STALL_S = 30.0  # without a byte, once the download runs


class Unavailable(Exception):
    """CIFAR-10 is not here and cannot be fetched."""


@dataclass(frozen=True)
class Cifar10:
    root: str
    name: str = "cifar10"

    @property
    def folder(self) -> Path:
        return Path(self.root).expanduser() / FOLDER

    def key(self) -> str:
        """The content never changes and is checked when it is read, so one cache serves all copies."""
        return "cifar10"

    def is_here(self) -> bool:
        return self.folder.is_dir() or (self.folder.parent / URL.rpartition("/")[2]).is_file()

    def describe(self) -> DatasetInfo:
        note = "" if self.is_here() else f"CIFAR-10 is not in data.root={self.root}; it would be downloaded"
        return DatasetInfo(self.name, 50_000, 10_000, CLASS_NAMES, SHAPE, note=note)

    def scan(self) -> Contents:
        if not self.folder.is_dir():
            self._fetch()
        self._check()
        labels = {split: np.concatenate([self._read(name)["labels"] for name in FILES[split]]) for split in SPLITS}
        return Contents(CLASS_NAMES, SHAPE, labels, self._pieces)

    def _pieces(self) -> Iterator[Piece]:
        for split in SPLITS:
            start = 0
            for name in FILES[split]:
                images = self._read(name)["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
                yield Piece(split, np.arange(start, start + len(images)), images)
                start += len(images)

    def _read(self, name: str) -> Any:
        with (self.folder / name).open("rb") as file:
            return pickle.load(file, encoding="latin1")  # only after its MD5 was found right

    def _check(self) -> None:
        """torchvision's integrity check, file by file."""
        from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]
        from torchvision.datasets.utils import check_integrity  # type: ignore[import-untyped]

        for name, md5 in CIFAR10.train_list + CIFAR10.test_list:
            if not check_integrity(str(self.folder / name), md5):
                raise ConfigError(
                    f"data.root={self.root}: {self.folder / name} is missing or damaged; remove {self.folder} and run again"
                )

    def _fetch(self) -> None:
        """Download into a temporary folder beside the place, or take the archive that is there, and move it when it is whole."""
        root = self.folder.parent
        archive = root / URL.rpartition("/")[2]
        if not archive.is_file() and (reason := unreachable()):
            raise self._unavailable(reason)
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_and_extract_archive

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(STALL_S)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="cifar10-", dir=root) as temporary:
                place = root if archive.is_file() else temporary
                download_and_extract_archive(CIFAR10.url, str(place), temporary, CIFAR10.filename, CIFAR10.tgz_md5)
                (Path(temporary) / FOLDER).rename(self.folder)
        except (OSError, RuntimeError, EOFError) as error:
            raise self._unavailable(str(error)) from error
        finally:
            socket.setdefaulttimeout(before)

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(f"CIFAR-10 is not in data.root={self.root} and cannot be downloaded ({reason})")


def unreachable() -> str:
    """Why the server cannot be reached; empty when it can. Takes at most REACH_S, even where names are not resolved."""
    outcome = [f"no answer within {REACH_S:.0f} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(URL, method="HEAD"), timeout=REACH_S).close()
            outcome[0] = ""
        except Exception as error:
            outcome[0] = str(error).strip("<>")

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no timeout of its own
    thread.start()
    thread.join(REACH_S)
    return outcome[0]
