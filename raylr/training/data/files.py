"""Find what the files at a path are: shards, or images in a folder or an archive."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylr.config.sources import FILE
from raylr.errors import ConfigError
from raylr.training.data.dataset import Source
from raylr.training.data.fetching import Copy
from raylr.training.data.patterns import base_of, expanded, is_pattern
from raylr.training.data.pictures import Pictures
from raylr.training.data.shards import SHARDS, Shards, shards_in


def source_at(name: str, options: Mapping[str, Any]) -> Source:
    """Return the source of a path or of a pattern of paths."""
    path = Path(name.removeprefix(FILE)).expanduser()
    if is_pattern(str(path)) and not path.exists():
        return _of_pattern(name, str(path), options)
    return _of_files(name, path, options)


def source_of(copy: Copy, options: Mapping[str, Any]) -> Source:
    """Return the source of the files that were fetched from a URI."""
    return _of_files(copy.uri, copy.path, options, copy)


def _of_files(name: str, path: Path, options: Mapping[str, Any], copy: Copy | None = None) -> Source:
    digest = copy.digest if copy is not None else ""
    if shards := shards_in(path):
        folder = path if path.is_dir() else path.parent
        return Shards(name, folder, tuple(shards), digest, tuple(options.items()))
    refuse_options(name, options)
    return Pictures(name, path if copy is not None else None, digest)


def _of_pattern(name: str, pattern: str, options: Mapping[str, Any]) -> Source:
    base, found = base_of(pattern), list[str]()
    for one in expanded(pattern, f"data.source={name}"):
        there = glob.glob(one, recursive=True)
        if not there:
            raise ConfigError(f"data.source={name}: {one} is not there; give a pattern of files that are")
        found += there
    files = sorted({str(Path(one).relative_to(base)) for one in found})
    if wrong := [file for file in files if not file.endswith(SHARDS)]:
        raise ConfigError(f"data.source={name}: {wrong[0]} is no shard; a pattern names {', '.join(SHARDS)} files")
    return Shards(name, Path(base), tuple(files), "", tuple(options.items()))


def refuse_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options of a source that takes none."""
    if options:
        raise ConfigError(
            f"data.options={next(iter(options))}: data.source={name} takes none; they are for a dataset of one's own, and "
            "columns of parquet files"
        )
