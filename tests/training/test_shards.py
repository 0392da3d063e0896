"""Parquet and WebDataset shards, and folders with metadata.csv: the data of plain folders, or one line."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from raylr.config import DataConfig
from raylr.errors import ConfigError
from raylr.training import data

COUNTS = {"train": 5, "test": 2}  # of each class
NAMES = ("cat", "dog")


def picture(split: str, label: int, number: int, size: tuple[int, int] = (5, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (10 * label + number + 50 * (split == "test"), 2, 3)).save(file, "png")
    return file.getvalue()


def examples(split: str) -> list[tuple[bytes, int]]:
    """The images of both classes in turn, with their labels."""
    return [(picture(split, label, number), label) for number in range(COUNTS[split]) for label in range(2)]


def halves(split: str) -> list[list[tuple[bytes, int]]]:
    whole = examples(split)
    return [whole[:3], whole[3:]]


@pytest.fixture
def config(tmp_path: Path):
    return lambda source, **values: DataConfig(source=str(source), cache_dir=str(tmp_path / "cache"), **values)


@pytest.fixture
def make(tmp_path: Path):
    """Make a source of a kind; the data are the same."""

    def made(kind: str, *given) -> Path:
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        MAKERS[kind](folder, *given)
        return folder

    return made


def write_parquet(path: Path, rows: list[tuple[bytes, object]], image="image", label="label", metadata=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({label: [one for _, one in rows], image: [{"bytes": one, "path": "x.png"} for one, _ in rows]})
    parquet.write_table(table.replace_schema_metadata(metadata), path)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, blob in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))


def plain(folder: Path) -> None:
    for split in COUNTS:
        for place, (blob, label) in enumerate(examples(split)):
            path = folder / split / NAMES[label] / f"{place:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)


def hub(folder: Path) -> None:
    """As the Hugging Face Hub has it: names of classes in the schema, and validation in place of test."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, name in (("train", "train"), ("test", "validation")):
        for number, rows in enumerate(halves(split)):
            write_parquet(folder / "data" / f"{name}-{number:05}-of-00002.parquet", rows, metadata=told)


def names(folder: Path) -> None:
    """Labels that are names, images that are plain bytes, in a folder of each split."""
    for split in COUNTS:
        rows = examples(split)
        (folder / split).mkdir()
        table = pa.table({"img": [one for one, _ in rows], "class": [NAMES[label] for _, label in rows]})
        parquet.write_table(table, folder / split / "part-0.parquet")


def webdataset(folder: Path) -> None:
    for split in COUNTS:
        for number, rows in enumerate(halves(split)):
            members = {}
            for place, (blob, label) in enumerate(rows):
                members |= {f"x/{place:04}.png": blob, f"x/{place:04}.cls": str(label).encode()}
            write_tar(folder / f"{split}-{number:03}.tar", members)


def webdataset_json(folder: Path) -> None:
    for split in COUNTS:
        members = {}
        for place, (blob, label) in enumerate(examples(split)):
            told = json.dumps({"label": NAMES[label]}).encode()
            members |= {f"{place}.json": told, f"{place}.seg.png": b"other", f"{place}.JPG": blob}
        write_tar(folder / split / "0.tar.gz", members)


def tables(folder: Path) -> None:
    for split in COUNTS:
        (folder / split / "deep").mkdir(parents=True)
        lines = ["file_name,label"]
        for place, (blob, label) in enumerate(examples(split)):
            (folder / split / "deep" / f"{place:03}.png").write_bytes(blob)
            lines.append(f"deep/{place:03}.png,{NAMES[label]}")
        (folder / split / "deep" / "unlisted.png").write_bytes(b"x")
        (folder / split / "metadata.csv").write_text("\n".join(lines))


def one_table(folder: Path) -> None:
    rows = []
    for split in COUNTS:
        (folder / split).mkdir()
        for place, (blob, label) in enumerate(examples(split)):
            (folder / split / f"{place:03}.png").write_bytes(blob)
            rows.append({"file_name": f"{split}/{place:03}.png", "kind": NAMES[label]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


MAKERS = {one.__name__: one for one in (plain, hub, names, webdataset, webdataset_json, tables, one_table)}


def pairs(source: DataConfig) -> list[tuple[str, int, int]]:
    """The examples by split, first pixel and label."""
    data.prepare(source)
    found = data.load(source)
    parts = ("train", found.train_images, found.train_labels), ("test", found.test_images, found.test_labels)
    return sorted(
        (split, int(image[0, 0, 0]), int(label)) for split, *both in parts for image, label in zip(*both, strict=True)
    )


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_gives_the_same_examples(config, make, kind):
    source = config(make(kind))
    info = data.describe(source)
    assert (info.num_train, info.num_test, info.image_shape) == (10, 4, (4, 5, 3))
    assert info.class_names == (("0", "1") if kind == "webdataset" else NAMES)
    assert pairs(source) == pairs(config(make("plain") if kind != "plain" else source.source))


def test_labels_that_are_numbers_are_ordered_by_size(config, tmp_path):
    for split in COUNTS:
        (tmp_path / "a" / split).mkdir(parents=True)
        lines = ["file_name,label"]
        for label in range(11):
            (tmp_path / "a" / split / f"{label}.png").write_bytes(picture(split, 0, label))
            lines.append(f"{label}.png,{label}")
        (tmp_path / "a" / split / "metadata.csv").write_text("\n".join(lines))
    assert data.prepare(config(tmp_path / "a")).class_names == tuple(map(str, range(11)))
    assert [(pixel, label) for split, pixel, label in pairs(config(tmp_path / "a")) if split == "train"] == [
        (number, number) for number in range(11)
    ]


def test_columns_are_named_by_options(config, tmp_path):
    for split in COUNTS:
        rows = [(blob, 1 - label) for blob, label in examples(split)]
        write_parquet(tmp_path / "a" / f"{split}.parquet", rows, "scan", "grade")
    line = (
        r"test.parquet has no column label or labels or class or target or cls, but grade, scan; name it: data.options="
    )
    with pytest.raises(ConfigError, match=line.replace("test", "train")):
        data.prepare(config(tmp_path / "a"))
    assert data.prepare(config(tmp_path / "a", options="image=scan, label=grade")).num_train == 10


def test_a_pattern_names_shards_here_and_on_an_object_store(config, make, bucket):
    from pyarrow import fs

    folder = make("webdataset")
    same = data.prepare(config(folder)).data_sha256
    assert data.prepare(config(f"{folder}/{{train,test}}-{{000..001}}.tar")).data_sha256 == same
    store, root = fs.FileSystem.from_uri(bucket)
    for path in folder.glob("*.tar"):
        with store.open_output_stream(f"{root}/shards/{path.name}") as stream:
            stream.write(path.read_bytes())
    for pattern in ("shards", "shards/*-*.tar", "shards/{train,test}-00?.tar".replace("?", "[01]")):
        assert data.prepare(config(f"{bucket}/{pattern}")).data_sha256 == same


def test_a_cache_is_that_of_its_shards(config, make):
    folder = make("hub")
    first = data.prepare(config(folder))
    path = folder / "data" / "train-00000-of-00002.parquet"
    write_parquet(path, [(blob, label) for blob, label in halves("train")[0]][:2])
    assert data.prepare(config(folder)).num_train == first.num_train - 1


def broken_parquet(folder: Path) -> None:
    hub(folder)
    path = folder / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def no_split(folder: Path) -> None:
    write_parquet(folder / "part-0.parquet", examples("train"))


def two_splits(folder: Path) -> None:
    write_parquet(folder / "train" / "test-0.parquet", examples("train"))


def no_test(folder: Path) -> None:
    write_parquet(folder / "train-0.parquet", examples("train"))


def paths(folder: Path) -> None:
    for split in COUNTS:
        write_parquet(folder / f"{split}.parquet", [(None, label) for _, label in examples(split)])


def fractions(folder: Path) -> None:
    for split in COUNTS:
        write_parquet(folder / f"{split}.parquet", [(blob, label / 2) for blob, label in examples(split)])


def unknown_name(folder: Path) -> None:
    for split in COUNTS:
        names_ = {"train": "cat", "test": "owl"}
        write_parquet(folder / f"{split}.parquet", [(blob, names_[split]) for blob, _ in examples(split)])


def sizes(folder: Path) -> None:
    write_parquet(folder / "train.parquet", [*examples("train"), (picture("train", 0, 0, (6, 4)), 0)])
    write_parquet(folder / "test.parquet", examples("test"))


def no_label(folder: Path) -> None:
    webdataset(folder)
    write_tar(folder / "train-000.tar", {"a.png": picture("train", 0, 0)})


def cut_tar(folder: Path) -> None:
    webdataset(folder)
    path = folder / "train-000.tar"
    path.write_bytes(path.read_bytes()[:-11000])


def gone(folder: Path) -> None:
    tables(folder)
    (folder / "train" / "deep" / "000.png").unlink()


def no_column(folder: Path) -> None:
    tables(folder)
    (folder / "train" / "metadata.csv").write_text("file_name,a,b\n0.png,1,2")


def no_row(folder: Path) -> None:
    tables(folder)
    (folder / "train" / "metadata.csv").write_text("file_name,label\n")


def half_a_row(folder: Path) -> None:
    tables(folder)
    (folder / "train" / "metadata.csv").write_text("file_name,label\ndeep/000.png,cat\ndeep/001.png\n")


def no_json(folder: Path) -> None:
    one_table(folder)
    (folder / "metadata.jsonl").write_text("{'file_name': 1}")


def one_split(folder: Path) -> None:
    tables(folder)
    (folder / "test" / "metadata.csv").unlink()


@pytest.mark.parametrize(
    ("maker", "line"),
    [
        (broken_parquet, "train-00001-of-00002.parquet cannot be read: "),
        (
            no_split,
            "part-0.parquet is of no split by its name; name shards and folders by train and test, such as train-",
        ),
        (two_splits, "train/test-0.parquet is of train and test by its name; name"),
        (no_test, "no shard of test is in it, but train-0.parquet; add some"),
        (paths, "row 0 of train.parquet: image is a path to a file; write the bytes of image files into it"),
        (fractions, "the label of example 0 of train is 0.0; give whole numbers from 0, or names, to all"),
        (unknown_name, "example 0 of test is of the class owl, of which train has none; add some"),
        (
            sizes,
            "row 10 of train.parquet is 4 x 6 pixels in RGB, but row 0 of train.parquet is 4 x 5 pixels in RGB; all ",
        ),
        (no_label, "a in train-000.tar has no label; add a.cls, with its number or its name"),
        (cut_tar, "cannot be read: it is damaged or truncated"),
        (gone, "train/metadata.csv names train/deep/000.png, which is not there; add it, or take it out of the table"),
        (no_column, "train/metadata.csv has the columns file_name, a, b; it needs file_name and label"),
        (no_row, "train/metadata.csv has no row; write file_name and label of each image into it"),
        (half_a_row, "train/metadata.csv, line 3: it lacks file_name or label; write both"),
        (no_json, "metadata.jsonl cannot be read ("),
        (one_split, "no table names an image below test/; add test/metadata.csv"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(config, tmp_path, maker, line):
    maker(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        data.prepare(config(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"data.source={tmp_path}")


def test_options_of_a_source_that_takes_none_are_refused(config, make):
    for source in ("synthetic", make("plain")):
        with pytest.raises(
            ConfigError, match=r"data.options=fold: data.source=.* takes none; they are for a dataset of"
        ):
            data.prepare(config(source, options="fold=2"))
    with pytest.raises(ConfigError, match=r"data.options=fold=2: parquet files take image and label, columns"):
        data.prepare(config(make("hub"), options="fold=2"))


def test_a_pattern_of_files_that_are_not_there_or_no_shards_is_refused(config, make):
    folder = make("webdataset")
    with pytest.raises(ConfigError, match=r"train-002.tar is not there; give a pattern of files that are"):
        data.describe(config(f"{folder}/train-{{000..002}}.tar"))
    (folder / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"a.txt is no shard; a pattern names .parquet, .tar, .tar.gz, .tgz files"):
        data.describe(config(f"{folder}/*"))


def test_an_image_of_many_rows_is_read_in_batches(config, tmp_path):
    """More rows than are read at once, each with its own pixel."""
    rows = [(picture("train", 0, number % 200), number % 2) for number in range(1100)]
    write_parquet(tmp_path / "a" / "train.parquet", rows)
    write_parquet(tmp_path / "a" / "test.parquet", rows[:2])
    data.prepare(config(tmp_path / "a"))
    dataset = data.load(config(tmp_path / "a"))
    assert np.bincount(dataset.train_images[:, 0, 0, 0]).tolist() == [6] * 100 + [5] * 100
    assert (dataset.train_images[:, 0, 0, 0] % 2 == dataset.train_labels).all()
