"""Resolve `data.source` to a source, and give the part of its images that the config asks for."""

import warnings
from dataclasses import replace

from raylr.config import DataConfig
from raylr.config.sources import is_own, is_path, is_remote, options_of
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo
from raylr.training.data import cache, fetching
from raylr.training.data.cifar import Cifar10, UnavailableError
from raylr.training.data.dataset import Dataset, Listed, Report, Source
from raylr.training.data.files import refuse_options, source_at, source_of
from raylr.training.data.own import OwnData
from raylr.training.data.synthetic import Synthetic
from raylr.training.data.validation import num_held_out

STAND_IN = "the images are SYNTHETIC, not CIFAR-10"


def describe(config: DataConfig, report: Report | None = None) -> DatasetInfo:
    """Describe the source from its cache or by listing names; decodes, downloads and writes nothing where that tells enough.

    The files of a URI are fetched, and a dataset of one's own is decoded: nothing else tells what they hold.
    """
    source = _wanted(config, report)
    folder = cache.folder_of(config.cache_dir, source)
    if not isinstance(source, Listed):
        cache.make(folder, source, report)
    if cache.is_made(folder) or not isinstance(source, Listed):
        info = _info(source, *cache.open_cache(folder))
    else:
        info = source.describe()
    if config.source == "auto" and info.note:
        info = replace(info, note=f"{info.note}; where that fails, synthetic images take its place")
    return _limited(info, config)


def prepare(config: DataConfig, report: Report | None = None) -> DatasetInfo:
    """Decode the source into this node's cache, unless it is there; every rank may call it, one rank decodes.

    `auto` becomes cifar10 if that is here or can be downloaded, else synthetic, with a note and a warning: hand the
    answer's `source` on, so that all nodes use the same. `report(done, total, what)` is called now and then.
    """
    source = _wanted(config, report)
    try:
        cache.make(cache.folder_of(config.cache_dir, source), source, report)
    except UnavailableError as error:
        if config.source != "auto":
            raise ConfigError(
                f"data.source=cifar10: {error}; put its files there, or use data.source=synthetic"
            ) from error
        warnings.warn(f"{STAND_IN}: {error}", stacklevel=2)
        info = prepare(config.model_copy(update={"source": "synthetic"}), report)
        return replace(info, note=f"{STAND_IN}: {error}")
    return _open(config, source).info


def load(config: DataConfig) -> Dataset:
    """Map the cache that `prepare` made on this node. Checks sizes, headers and labels of the cache; `verify` all of it."""
    return _open(config, _prepared(config))


def verify(config: DataConfig) -> None:
    """Compare every byte of the cache, and of a URI's copy, with its checksums. ConfigError names the file that differs."""
    if is_remote(config.source) and (copy := fetching.copy_of(config.source, config.cache_dir)) is not None:
        fetching.verify(copy)
    cache.check_all(cache.folder_of(config.cache_dir, _prepared(config)))


def _wanted(config: DataConfig, report: Report | None = None) -> Source:
    """Return the source that the config names, the files of a URI fetched; for `auto` the first choice."""
    if is_remote(config.source):
        return source_of(fetching.fetch(config.source, config.cache_dir, report), options_of(config.options))
    return _local(config)


def _local(config: DataConfig) -> Source:
    options = options_of(config.options)
    if is_path(config.source):
        return source_at(config.source, options)
    if is_own(config.source):
        return OwnData(config.source, config.root, config.cache_dir, tuple(options.items()))
    refuse_options(config.source, options)
    return Synthetic() if config.source == "synthetic" else Cifar10(config.root)


def _prepared(config: DataConfig) -> Source:
    """Return the source whose cache exists, without asking any store; for `auto` the first that has one."""
    sources: list[Source] = []
    if not is_remote(config.source):
        sources = [_local(config), *([Synthetic()] if config.source == "auto" else [])]
    elif (copy := fetching.copy_of(config.source, config.cache_dir)) is not None:
        sources = [source_of(copy, options_of(config.options))]
    for source in sources:
        if cache.is_made(cache.folder_of(config.cache_dir, source)):
            return source
    raise ConfigError(
        f"data.source={config.source} is not prepared in data.cache_dir={config.cache_dir}; run 'raylr data prepare'"
    )


def _open(config: DataConfig, source: Source) -> Dataset:
    """Map the examples that the config asks for."""
    sidecar, arrays = cache.open_cache(cache.folder_of(config.cache_dir, source))
    info = _limited(_info(source, sidecar, arrays), config)
    if not info.data_sha256:
        num_train = info.num_train + info.num_validation
        info = replace(info, data_sha256=cache.data_sha256(arrays, num_train, info.num_test))
    if config.source == "auto" and info.source == "synthetic":
        info = replace(info, note=STAND_IN)
    return Dataset(
        info,
        arrays["train_images"][: info.num_train + info.num_validation],
        arrays["test_images"][: info.num_test],
        arrays["train_labels"][: info.num_train + info.num_validation],
        arrays["test_labels"][: info.num_test],
        sidecar.mean,
        sidecar.std,
    )


def _info(source: Source, sidecar: cache.Sidecar, arrays: cache.Arrays) -> DatasetInfo:
    counts = len(arrays["train_images"]), len(arrays["test_images"])
    info = DatasetInfo(source.name, *counts, sidecar.class_names, sidecar.image_shape, sidecar.data_sha256)
    return replace(info, mean=sidecar.mean, std=sidecar.std)


def _limited(info: DatasetInfo, config: DataConfig) -> DatasetInfo:
    """Return the info of the subset that the config asks for, without the checksum of the whole."""
    wanted = (config.train_examples, config.test_examples)
    for field, number, there in zip(
        ("train_examples", "test_examples"), wanted, (info.num_train, info.num_test), strict=True
    ):
        if number is not None and number > there:
            raise ConfigError(f"data.{field}={number} is more than data.source={info.source} has; use at most {there}")
    num_train, num_test = wanted[0] or info.num_train, wanted[1] or info.num_test
    whole = (num_train, num_test) == (info.num_train, info.num_test)
    held_out = num_held_out(config.validation, num_train, len(info.class_names))
    return replace(
        info,
        num_train=num_train - held_out,
        num_validation=held_out,
        num_test=num_test,
        data_sha256=info.data_sha256 if whole else "",
    )
