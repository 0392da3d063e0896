"""Read shards of images with labels: parquet files, and the tar files of WebDataset.

The name of a shard, or of a folder above it, says its split: train, and test, or else validation, as on the Hugging Face Hub.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from raylr.errors import ConfigError, first_line
from raylr.planning.facts import DatasetInfo
from raylr.training.data.classes import Label, numbered
from raylr.training.data.dataset import SPLITS, Contents, Piece, Report
from raylr.training.data.decoding import Decoder, First
from raylr.training.data.members import Member, Packing, opened

WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("val", "valid", "validation", "dev"),
}
IMAGES, LABELS = ("image", "img", "picture", "photo", "jpg", "png"), ("label", "labels", "class", "target", "cls")
SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif")
SHARDS = (".parquet", ".tar", ".tar.gz", ".tgz")
BATCH = 500


class Shard(Protocol):
    """One file of a source."""

    def names(self) -> Sequence[str]:
        """Return the names that it gives to the classes of its labels, if any."""

    def labels(self) -> Sequence[Label]:
        """Return the labels, in order."""

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield each image file, with a name for it, in the same order."""


@dataclass(frozen=True)
class Shards:
    """The shards below a folder; `name` is what they were given as, and `digest` that of a URI's copy."""

    name: str
    folder: Path
    files: tuple[str, ...]
    digest: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    def key(self) -> str:
        """Return a name made from the contents of a copy, or from paths, sizes and times of change."""
        stamps = [(file, (stat := (self.folder / file).stat()).st_size, stat.st_mtime_ns) for file in self.files]
        told = repr((self.digest or (str(self.folder.resolve()), stamps), self.options))
        slug = re.sub("[^A-Za-z0-9_-]+", "-", self.name.rstrip("/").rpartition("/")[2])[:40].strip("-") or "shards"
        return f"{slug}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def describe(self) -> DatasetInfo:
        contents = self.scan()
        num_train, num_test = (len(contents.labels[split]) for split in SPLITS)
        return DatasetInfo(self.name, num_train, num_test, contents.class_names, contents.image_shape)

    def scan(self, report: Report | None = None) -> Contents:
        """Read the labels, and the first image."""
        shards = {split: [self._opened(file) for file in files] for split, files in self._by_split().items()}
        labels = {split: [label for shard in parts for label in shard.labels()] for split, parts in shards.items()}
        for split in SPLITS:
            if not labels[split]:
                raise self._decoder.error(f"its shards of {split} hold no example; give others")
        class_names, numbers = numbered(labels, shards["train"][0].names(), self._decoder)
        first = self._decoder.first(*next(image for shard in shards["train"] for image in shard.images()))
        return Contents(class_names, first.shape, numbers, partial(self._decode, shards, first))

    def _by_split(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {kind: [] for kind in WORDS}
        for file in self.files:
            parts = re.split("[^a-z]+", file.lower())
            kinds = [kind for kind, words in WORDS.items() if set(words) & set(parts)]
            if len(kinds) != 1:
                raise self._decoder.error(
                    f"{file} is of {'no split' if not kinds else ' and '.join(kinds)} by its name; name shards and folders "
                    "by train and test, such as train-000.parquet"
                )
            found[kinds[0]].append(file)
        chosen = {"train": found["train"], "test": found["test"] or found["validation"]}
        for split, files in chosen.items():
            if not files:
                raise self._decoder.error(f"no shard of {split} is in it, but {self.files[0]}; add some")
        return chosen

    def _opened(self, file: str) -> Shard:
        path, options = self.folder / file, dict(self.options)
        if not _is_parquet(file):
            return WebDataset(self._decoder, path, file)
        if unknown := sorted(options.keys() - {"image", "label"}):
            raise ConfigError(
                f"data.options={unknown[0]}={options[unknown[0]]}: parquet files take image and label, columns"
            )
        return Parquet(self._decoder, path, file, options)

    def _decode(self, shards: Mapping[str, Sequence[Shard]], first: First) -> Iterator[Piece]:
        for split, parts in shards.items():
            place = 0
            for shard in parts:
                for name, data in shard.images():
                    yield Piece(split, np.array([place]), self._decoder.pixels(name, data, first)[None])
                    place += 1

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.name)


@dataclass(frozen=True)
class Parquet:
    """A parquet file with a column of encoded images, as bytes or as the `datasets` library writes them, and one of labels."""

    decoder: Decoder
    path: Path
    file: str
    columns: Mapping[str, Any]

    def names(self) -> Sequence[str]:
        def read(opened: Any) -> Sequence[str]:
            told = (opened.schema_arrow.metadata or {}).get(b"huggingface")
            features = json.loads(told)["info"]["features"] if told else {}
            return tuple(features.get(self._column(opened, "label", LABELS), {}).get("names", ()))

        found: Sequence[str] = self._read(read)
        return found

    def labels(self) -> Sequence[Label]:
        def read(opened: Any) -> Any:
            return opened.read([self._column(opened, "label", LABELS)]).column(0).to_pylist()

        found: Sequence[Label] = self._read(read)
        return found

    def images(self) -> Iterator[tuple[str, bytes]]:
        opened = self._read(lambda opened: opened)
        column = self._column(opened, "image", IMAGES)
        batches, row = opened.iter_batches(BATCH, columns=[column]), 0
        while (batch := self._guarded(partial(next, batches, None))) is not None:
            for value in batch.column(0).to_pylist():
                name = f"row {row} of {self.file}"
                data = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(data, bytes):
                    kind = "a path to a file" if isinstance(value, dict) else f"a {type(value).__name__}"
                    raise self.decoder.error(f"{name}: {column} is {kind}; write the bytes of image files into it")
                yield name, data
                row += 1

    def _column(self, opened: Any, role: str, usual: Sequence[str]) -> str:
        """Return the column of the images or of the labels."""
        there = opened.schema_arrow.names
        wanted = [str(self.columns[role])] if role in self.columns else usual
        found = [name for name in wanted if name in there]
        if not found:
            raise self.decoder.error(
                f"{self.file} has no column {' or '.join(wanted)}, but {', '.join(there)}; name it: "
                f"data.options={role}=COLUMN"
            )
        return found[0]

    def _read(self, read: Callable[[Any], Any]) -> Any:
        from pyarrow import parquet

        return self._guarded(lambda: read(parquet.ParquetFile(self.path)))

    def _guarded(self, read: Callable[[], Any]) -> Any:
        """Call what reads the file; a fault of it becomes one line."""
        from pyarrow import ArrowException

        try:
            return read()
        except (ArrowException, OSError) as error:
            raise self.decoder.error(f"{self.file} cannot be read: {first_line(error)}; get it anew") from error


@dataclass(frozen=True)
class WebDataset:
    """A tar file in which KEY.jpg (or .png, ...) and KEY.cls, or `label` in KEY.json, are an example."""

    decoder: Decoder
    path: Path
    file: str

    def names(self) -> Sequence[str]:
        return ()

    def labels(self) -> Sequence[Label]:
        with opened(self.decoder.source, self.path, ()) as packing:
            return [self._label(packing, key, parts) for key, parts in self._examples(packing)]

    def images(self) -> Iterator[tuple[str, bytes]]:
        with opened(self.decoder.source, self.path, ()) as packing:
            for _, parts in self._examples(packing):
                member = next(parts[suffix] for suffix in SUFFIXES if suffix in parts)
                yield f"{member.name} in {self.file}", packing.read(member)

    def _examples(self, packing: Packing) -> Iterator[tuple[str, dict[str, Member]]]:
        """Yield the members of each example by suffix: those that stand in a row under one key."""
        before, parts = "", dict[str, Member]()
        for member in packing.members():
            folder, _, name = member.name.rpartition("/")
            if member.is_folder or name.startswith("."):
                continue
            if member.fault:
                raise self.decoder.error(f"{member.name} in {self.file} {member.fault}")
            stem, _, suffix = name.partition(".")
            key = f"{folder}/{stem}"
            if key != before and parts:
                yield from self._whole(before, parts)
                parts = {}
            before = key
            parts[suffix.lower()] = member
        yield from self._whole(before, parts)

    def _whole(self, key: str, parts: dict[str, Member]) -> Iterator[tuple[str, dict[str, Member]]]:
        if any(suffix in parts for suffix in SUFFIXES):
            yield key.lstrip("/"), parts

    def _label(self, packing: Packing, key: str, parts: Mapping[str, Member]) -> Label:
        text: object = None
        if "cls" in parts:
            text = packing.read(parts["cls"]).decode("utf-8", "replace").strip()
        elif "json" in parts:
            try:
                text = json.loads(packing.read(parts["json"]))["label"]
            except (ValueError, KeyError, TypeError):
                raise self.decoder.error(f'{key}.json in {self.file} has no label; write {{"label": 3}}') from None
        if isinstance(text, str) and text:
            return int(text) if re.fullmatch("[0-9]{1,9}", text) else text
        if isinstance(text, int):
            return text
        raise self.decoder.error(f"{key} in {self.file} has no label; add {key}.cls, with its number or its name")


def _is_parquet(file: str) -> bool:
    return file.endswith(".parquet")


def shards_in(path: Path) -> list[str]:
    """Return the shards in a folder, and in those of its folders that are called data or as a split is.

    None where train/ has folders in it, which are classes.
    """
    if not path.is_dir():
        return [path.name] if _is_parquet(path.name) and path.is_file() else []
    inside = [path / name for name in ("data", *(word for words in WORDS.values() for word in words))]
    folders = [path, *(folder for folder in inside if folder.is_dir())]
    if any(one.is_dir() for one in (path / "train").glob("*")):
        return []
    names = [str((folder / name).relative_to(path)) for folder in folders for name in os.listdir(folder)]
    found = ([name for name in names if name.endswith(suffix)] for suffix in SHARDS)
    return sorted(next((one for one in found if one), []))
