import hashlib
import http.server
import io
import lzma
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylr.config import DataConfig
from raylr.errors import ConfigError
from raylr.training import data
from raylr.training.data import cifar
from raylr.training.data.cache import balanced_order
from raylr.training.data.synthetic import draw

REAL = Path(__file__).parents[3] / "shared/data/cifar10-jpeg.tar.xz"
SIZE = (5, 4)  # width, height


def picture(number: int, mode: str = "RGB", size: tuple[int, int] = SIZE) -> bytes:
    """A PNG of one colour that tells its number."""
    file = io.BytesIO()
    Image.new(mode, size, number if mode == "L" else (number, 2 * number, 255 - number)).save(file, "png")
    return file.getvalue()


def files(num_train: int = 6, num_test: int = 2, mode: str = "RGB") -> dict[str, bytes]:
    """Two classes; picture k of a class has number 10 * class + k, those of test/ 50 more."""
    counts = {"train": num_train, "test": num_test}
    return {
        f"{split}/{name}/{k}.png": picture(10 * label + k + 50 * (split == "test"), mode)
        for split, count in counts.items()
        for label, name in enumerate(("cat", "dog"))
        for k in range(count)
    }


def make_folder(path: Path, content: dict[str, bytes]) -> Path:
    for name, blob in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(blob)
    return path


def make_tar(path: Path, content: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as archive:
        for name, blob in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def make_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, blob in content.items():
            archive.writestr(name, blob)
    return path


MAKERS = {"folder": make_folder, "a.tar": make_tar, "a.tar.xz": make_tar, "a.zip": make_zip}


@pytest.fixture
def config(tmp_path):
    """A config of a source under tmp_path, with a cache of its own."""

    def make(source: Path | str, **values) -> DataConfig:
        return DataConfig(source=str(source), cache_dir=str(tmp_path / "cache"), root=str(tmp_path / "root"), **values)

    return make


def refusal(config: DataConfig) -> str:
    """The one line with which `prepare` refuses; nothing half-written is left."""
    with pytest.raises(ConfigError) as caught:
        data.prepare(config)
    assert "\n" not in str(caught.value)
    cache = Path(config.cache_dir)
    assert not cache.is_dir() or all(path.suffix == ".lock" for path in cache.iterdir())
    return str(caught.value)


# --- images from a folder or an archive


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_source_gives_the_same_data(tmp_path, config, kind):
    dataset_config = config(MAKERS[kind](tmp_path / kind, files()))
    info = data.prepare(dataset_config)
    assert (info.num_train, info.num_test, info.class_names, info.image_shape) == (12, 4, ("cat", "dog"), (4, 5, 3))
    assert info.data_sha256 == "e9d97b4976992e6cc75c5cf6b085681be4bb332d24b11678fc1cbc509ff7dd67"


def test_each_image_keeps_its_label_and_its_pixels(tmp_path, config):
    dataset_config = config(make_tar(tmp_path / "a.tar", files()))
    data.prepare(dataset_config)
    dataset = data.load(dataset_config)
    numbers = dataset.train_images[:, 0, 0, 0].tolist()
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert dataset.train_labels.tolist() == [number // 10 for number in numbers]
    assert dataset.test_labels.tolist() == [(number - 50) // 10 for number in dataset.test_images[:, 0, 0, 0].tolist()]
    expected = np.array([[number, 2 * number, 255 - number] for number in numbers])
    assert (dataset.train_images == expected[:, None, None, :]).all()


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path, config):
    dataset_config = config(make_folder(tmp_path / "a", files()))
    data.prepare(dataset_config)
    dataset = data.load(dataset_config)
    pixels = np.asarray(dataset.train_images, dtype=np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std(0), rtol=1e-9)


def test_grey_images_have_one_channel(tmp_path, config):
    dataset_config = config(make_zip(tmp_path / "a.zip", files(mode="L")))
    assert data.prepare(dataset_config).image_shape == (4, 5, 1)
    assert sorted(data.load(dataset_config).train_images[:, 3, 4, 0].tolist())[-1] == 15


def test_hidden_files_and_files_beside_the_classes_are_passed_over(tmp_path, config):
    content = files() | {"train/.DS_Store": b"x", "train/cat/._0.png": b"x", "README": b"x", "train/labels.csv": b"x"}
    assert data.prepare(config(make_folder(tmp_path / "a", content))).num_train == 12


def test_names_with_a_leading_dot_slash_are_found(tmp_path, config):
    content = {f"./{name}": blob for name, blob in files().items()}
    assert data.describe(config(make_tar(tmp_path / "a.tar", content))).num_train == 12


def test_describe_writes_nothing(tmp_path, config):
    info = data.describe(config(make_tar(tmp_path / "a.tar.xz", files()), train_examples=5))
    assert (info.num_train, info.num_test, info.image_shape, info.data_sha256) == (5, 4, (4, 5, 3), "")
    assert not (tmp_path / "cache").exists()


# --- subsets


def test_every_prefix_of_the_order_has_the_classes_in_their_proportions():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = balanced_order(labels, 0)
    assert sorted(order) == list(range(100))
    for length in range(1, 101):
        counts = np.bincount(labels[order[:length]], minlength=3)
        assert abs(counts - length * np.array([0.6, 0.3, 0.1])).max() <= 1
    assert (np.diff(order[labels[order] == 0]) < 0).any()  # shuffled within a class


def test_a_subset_is_a_prefix_with_a_checksum_of_its_own(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    whole_info, info = data.prepare(config(source)), data.prepare(config(source, train_examples=4, test_examples=2))
    whole, subset = data.load(config(source)), data.load(config(source, train_examples=4, test_examples=2))
    assert (info.num_train, info.num_test) == (len(subset.train_labels), len(subset.test_images)) == (4, 2)
    assert np.array_equal(subset.train_images, whole.train_images[:4])
    assert sorted(subset.train_labels) == [0, 0, 1, 1]
    assert info == subset.info
    assert info.data_sha256 != whole_info.data_sha256


def test_the_checksum_is_over_shape_images_and_labels(tmp_path, config):
    dataset_config = config(make_folder(tmp_path / "a", files()), train_examples=5)
    data.prepare(dataset_config)
    dataset = data.load(dataset_config)
    parts = [b"(4, 5, 3)", dataset.train_images.tobytes(), dataset.train_labels.tobytes()]
    parts += [dataset.test_images.tobytes(), dataset.test_labels.tobytes()]
    assert dataset.info.data_sha256 == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("field", ["train_examples", "test_examples"])
def test_more_examples_than_there_are_is_refused(tmp_path, config, field):
    source = make_folder(tmp_path / "a", files(num_train=2, num_test=2))
    for ask in (data.describe, data.prepare):
        with pytest.raises(ConfigError, match=rf"data.{field}=5 is more than data.source=.*a has; use at most 4$"):
            ask(config(source, **{field: 5}))


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test/dog/0.png": None}, "the class dog is in train/ but missing from test/; each is to be in both"),
        ({"train/dog/0.png": None}, "the class dog is in test/ but missing from train/"),
        ({"test/dog/0.png": None, "test/cat/0.png": None}, "there is no test/<class>/<image> in it, but nothing"),
        ({"train/cat/1.png": b"no image"}, "train/cat/1.png does not decode (unknown format); remove or replace it"),
        ({"train/cat/1.png": b""}, "train/cat/1.png does not decode (unknown format)"),
        ({"train/cat/1.png": picture(1)[:-30]}, "train/cat/1.png does not decode ("),
        ({"train/cat/1.png": picture(1, size=(7, 3))}, "train/cat/1.png is 3 x 7 pixels in RGB, but SPLIT/cat/0.png"),
        ({"train/cat/1.png": picture(1, "L")}, "train/cat/1.png is 4 x 5 pixels in grey, but SPLIT/cat/0.png is 4 x 5"),
        ({"train/cat/deep/1.png": picture(1)}, "train/cat/deep/1.png lies too deep; images are at train/"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["folder", "a.tar.xz"])
def test_bad_content_is_refused_by_name(tmp_path, config, kind, changes, message):
    content = {name: blob for name, blob in (files(1, 1) | changes).items() if blob is not None}
    source = MAKERS[kind](tmp_path / kind, content)
    first = "test" if kind == "folder" else "train"  # the first image as stored sets what the others must be
    assert refusal(config(source)).startswith(f"data.source={source}: {message.replace('SPLIT', first)}")


def test_an_empty_class_is_refused(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    (source / "train/ant").mkdir()
    assert "the class ant has no image in train/; add some, or remove the class" in refusal(config(source))


def test_an_image_with_transparency_is_refused(tmp_path, config):
    file = io.BytesIO()
    Image.new("RGBA", SIZE).save(file, "png")
    source = make_folder(tmp_path / "a", files() | {"train/cat/9.png": file.getvalue()})
    assert "train/cat/9.png is of mode RGBA; make it grey or RGB with 8 bits a channel" in refusal(config(source))


def test_another_layout_is_refused_with_what_was_found(tmp_path, config):
    source = make_zip(tmp_path / "a.zip", {f"mine/{name}": blob for name, blob in files().items()})
    assert "there is no train/<class>/<image> in it, but mine/train/cat/0.png" in refusal(config(source))


def test_a_link_in_an_archive_is_refused(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files(), {"train/cat/9.png": "/etc/passwd"})
    assert "train/cat/9.png is a link or a device; pack plain files only" in refusal(config(source))


def test_a_link_in_a_zip_is_refused(tmp_path, config):
    source = make_zip(tmp_path / "a.zip", files())
    with zipfile.ZipFile(source, "a") as archive:
        info = zipfile.ZipInfo("train/cat/9.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "train/cat/9.png is a link or a device" in refusal(config(source))


def test_a_name_that_is_there_twice_is_refused(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files())
    with tarfile.open(source, "a") as archive:
        archive.addfile(tarfile.TarInfo("train/cat/0.png"))
    assert "some file is in it twice" in refusal(config(source))


def test_a_file_that_is_too_large_for_an_image_is_not_read(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files())
    with tarfile.open(source, "a") as archive:
        info = tarfile.TarInfo("train/cat/9.png")
        info.size = 2**40
        archive.fileobj.write(info.tobuf())
    assert "train/cat/9.png has 1099511627776 bytes; an image has at most 67108864" in refusal(config(source))


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8])
def test_a_truncated_archive_is_refused(tmp_path, config, kind, share):
    source = MAKERS[kind](tmp_path / kind, files(20, 20))
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    assert refusal(config(source)).startswith(f"data.source={source} cannot be read: it is damaged or truncated (")


def test_a_tar_cut_between_two_members_is_refused(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files(num_test=9))
    source.write_bytes(source.read_bytes()[: 1024 * 27])  # a header and a padded file are 1024 bytes
    assert "damaged or truncated (unexpected end of data); get it anew" in refusal(config(source))


def test_a_tar_with_a_broken_header_is_refused(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files(num_test=9))
    blob = bytearray(source.read_bytes())
    blob[1024 * 28 : 1024 * 28 + 100] = b"x" * 100
    source.write_bytes(blob)
    assert "damaged or truncated (no end mark)" in refusal(config(source))


def test_a_flipped_bit_in_a_compressed_archive_is_refused(tmp_path, config):
    source = tmp_path / "a.tar.xz"
    blob = bytearray(lzma.compress(make_tar(tmp_path / "a.tar", files()).read_bytes()))
    blob[len(blob) // 2] ^= 1
    source.write_bytes(blob)
    assert "is damaged or truncated" in refusal(config(source))


def test_a_path_that_does_not_exist_is_refused(config):
    assert refusal(config("no/such.tar")) == (
        "data.source=no/such.tar does not exist; give a folder or an archive, or auto, cifar10 or synthetic"
    )


def test_a_file_of_another_kind_is_refused(config):
    assert "is neither a folder nor an archive (.tar, .tar.xz," in refusal(config(__file__))


# --- links, and names that are not what they seem


def make_linked(path: Path) -> Path:
    """`files()` of which a class of train/ is a link to a folder, a class of test/ a chain of them, and one file too."""
    make_folder(path, files())
    (path / "elsewhere").mkdir()
    (path / "train/dog").rename(path / "elsewhere/dog")
    (path / "train/dog").symlink_to(path / "elsewhere/dog", target_is_directory=True)
    (path / "test/dog").rename(path / "elsewhere/dogs of test")
    (path / "elsewhere/second").symlink_to("dogs of test")
    (path / "test/dog").symlink_to("../elsewhere/second")
    (path / "train/cat/0.png").rename(path / "elsewhere/zero.png")
    (path / "train/cat/0.png").symlink_to("../../elsewhere/zero.png")
    return path


SHA256 = "e9d97b4976992e6cc75c5cf6b085681be4bb332d24b11678fc1cbc509ff7dd67"  # of files()


def test_links_to_folders_and_files_are_followed_as_torchvision_does(tmp_path, config):
    from torchvision.datasets import ImageFolder

    source = make_linked(tmp_path / "a")
    info = data.prepare(config(source))
    theirs = ImageFolder(source / "train")
    assert (info.class_names, info.num_train) == (tuple(theirs.classes), len(theirs)) == (("cat", "dog"), 12)
    assert info.data_sha256 == SHA256


def test_what_a_link_leads_to_is_part_of_the_cache_key(tmp_path, config):
    dataset_config = config(make_linked(tmp_path / "a"))
    before = data.prepare(dataset_config)
    (tmp_path / "a/elsewhere/dog/7.png").write_bytes(picture(17))
    after = data.prepare(dataset_config)
    assert (before.num_train, after.num_train) == (12, 13)


def test_a_source_whose_folders_are_all_links_is_read(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    (tmp_path / "b").mkdir()
    for split in ("train", "test"):
        (tmp_path / "b" / split).symlink_to(source / split)
    (tmp_path / "c").symlink_to("b")
    assert data.prepare(config(tmp_path / "c")).data_sha256 == SHA256


@pytest.mark.parametrize("target", [".", "..", "../..", "../../elsewhere"])
def test_a_loop_of_links_inside_a_class_ends_there(tmp_path, config, target):
    source = make_folder(tmp_path / "a", files())
    (source / "elsewhere").symlink_to("train")
    (source / "train/cat/loop").symlink_to(target)
    assert data.prepare(config(source)).data_sha256 == SHA256


def test_a_class_that_is_a_loop_is_named(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    (source / "train/loop").symlink_to("../train")
    line = f"train/loop is a link that leads back to {source}/train, which holds it; mend or remove it"
    assert refusal(config(source)) == f"data.source={source}: {line}"


@pytest.mark.parametrize("name", ["train", "test/cat", "train/dog/9.png"])
def test_a_dangling_link_is_named(tmp_path, config, name):
    source = make_folder(tmp_path / "a", files())
    if name != "train/dog/9.png":
        (source / name).rename(source / "away")
    (source / name).symlink_to("/nowhere")
    line = f"{name} is a link to /nowhere, which cannot be followed (No such file or directory); mend or remove it"
    for ask in (data.describe, data.prepare):
        with pytest.raises(ConfigError) as caught:
            ask(config(source))
        assert str(caught.value) == f"data.source={source}: {line}"


def test_dangling_links_where_no_image_is_looked_for_are_passed_over(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    for name in ("README", "train/cat/.hidden", "train/cat/deep"):
        (source / name).symlink_to(name)  # to itself
    (source / "train/cat/deep").unlink()
    assert data.prepare(config(source)).data_sha256 == SHA256


def test_a_source_that_is_a_dangling_link_is_told(tmp_path, config):
    (tmp_path / "a").symlink_to("/nowhere")
    assert f"{tmp_path}/a is a link to /nowhere, which cannot be followed; mend" in refusal(config(tmp_path / "a"))


def test_a_folder_of_another_layout_is_not_walked_to_its_end(tmp_path, config, monkeypatch):
    source = make_folder(tmp_path / "a", {f"{number}/mine/0.png": b"x" for number in range(50)})
    listed, whole = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or whole(path))
    assert "there is no train/<class>/<image> in it, but 0/mine/0.png" in refusal(config(source))
    assert len(listed) < 10, "of 51 folders"


def test_what_lies_beside_the_splits_is_no_part_of_the_data(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    data.prepare(config(source))
    make_folder(source / "results/train", {"0.txt": b"x"})
    calls = []
    assert data.prepare(config(source), lambda *call: calls.append(call)).data_sha256 == SHA256
    assert not calls


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    os.mkfifo(source / "train/cat/9.png")
    assert "train/cat/9.png is a pipe, a socket or a device; mend or remove it" in refusal(config(source))


def make_linked_tar(path: Path) -> Path:
    """`files()` packed by tar from a folder with links, and a hard link in place of a file."""
    folder = make_folder(path.with_suffix(".folder"), files())
    (folder / "aside").mkdir()
    (folder / "train/dog").rename(folder / "aside/dog")
    (folder / "train/dog").symlink_to("../aside/dog")
    (folder / "test/dog").rename(folder / "aside/deep")
    (folder / "aside/chain").symlink_to("deep")
    (folder / "test/dog").symlink_to("../aside/../aside/chain")
    (folder / "train/cat/0.png").rename(folder / "aside/zero.png")
    os.link(folder / "aside/zero.png", folder / "train/cat/0.png")
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for entry in sorted(folder.rglob("*")):
                info = zipfile.ZipInfo(str(entry.relative_to(folder)))
                if entry.is_symlink():
                    info.external_attr = 0o120777 << 16
                    archive.writestr(info, os.readlink(entry))
                elif entry.is_file():
                    archive.writestr(info, entry.read_bytes())
        return path
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, ".")
    return path


@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
def test_links_within_an_archive_are_followed(tmp_path, config, kind):
    info = data.prepare(config(make_linked_tar(tmp_path / kind)))
    assert (info.num_train, info.num_test, info.class_names, info.data_sha256) == (12, 4, ("cat", "dog"), SHA256)


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("train/ant", "nowhere", "train/ant is a link to nowhere, which cannot be followed (it is not in the archive); m"),
        ("train/cat/9.png", "../../x.png", "is a link to ../../x.png, which cannot be followed (it is not in the archive)"),
        ("train/ant", "../../..", "train/ant is a link or a device; pack plain files only (it leads to ../../..)"),
        ("train/ant", "ant", "train/ant is a link or a device; pack plain files only (it leads to ant)"),
        ("train/ant", ".", "train/ant is a link that leads back to train, which holds it; mend or remove it"),
        ("train/ant", "..", "train/ant is a link that leads back to its top, which holds it; mend or remove it"),
    ],
)  # fmt: skip
def test_a_link_in_an_archive_that_leads_nowhere_is_named(tmp_path, config, name, target, says):
    assert says in refusal(config(make_tar(tmp_path / "a.tar", files(), {name: target})))


def test_links_in_circles_below_a_class_of_an_archive_end(tmp_path, config):
    links = {"train/cat/loop": "..", "aside/one": "../train/dog", "train/dog/two": "../../aside"}
    assert data.prepare(config(make_tar(tmp_path / "a.tar", files(), links))).data_sha256 == SHA256


def test_a_hard_link_to_what_is_not_in_the_archive_is_named(tmp_path, config):
    source = make_tar(tmp_path / "a.tar", files())
    with tarfile.open(source, "a") as archive:
        info = tarfile.TarInfo("train/cat/9.png")
        info.type, info.linkname = tarfile.LNKTYPE, "train/cat/none.png"
        archive.addfile(info)
    assert "train/cat/9.png is a link to none.png, which cannot be followed" in refusal(config(source))


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (8, 9, "train/cat/0.png is packed with method 9 (deflate64), which cannot be read here; pack it with deflate"),
        (8, 77, "train/cat/0.png is packed with method 77 (unknown), which cannot be read here"),
        (6, 1, "train/cat/0.png is encrypted; pack it without a password"),
    ],
)
def test_a_zip_that_is_packed_in_another_way_is_not_called_damaged(tmp_path, config, offset, value, says):
    source = make_zip(tmp_path / "a.zip", files())
    blob = bytearray(source.read_bytes())
    blob[offset] = value  # of the first file's own header, and of its entry in the directory
    blob[blob.index(b"PK\x01\x02") + 2 + offset] = value
    source.write_bytes(blob)
    assert refusal(config(source)).startswith(f"data.source={source}: {says}")


def test_a_zip_of_a_later_version_is_not_called_damaged(tmp_path, config):
    source = make_zip(tmp_path / "a.zip", files())
    blob = bytearray(source.read_bytes())
    blob[blob.index(b"PK\x01\x02") + 6] = 99
    source.write_bytes(blob)
    assert "cannot be read: it is packed in a way that is not known here (zip file version 9.9)" in refusal(
        config(source)
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_not_called_damaged(tmp_path, config):
    source = make_folder(tmp_path / "a", files())
    (source / "train/cat").chmod(0)
    line = refusal(config(source))
    (source / "train/cat").chmod(0o700)
    assert f"cannot be read: {source}/train/cat: Permission denied; mend that" in line


def name_class(kind: str, path: Path, name: bytes) -> Path:
    """`files()` in which the class dog has another name."""
    content = {one.replace("dog", os.fsdecode(name)): blob for one, blob in files().items()}
    return MAKERS[kind](path / kind, content)


@pytest.mark.parametrize("kind", ["folder", "a.tar"])
def test_a_class_whose_name_is_not_utf8_is_refused_when_it_is_listed(tmp_path, config, kind):
    source = name_class(kind, tmp_path, b"caf\xe9")
    for ask in (data.describe, data.prepare):
        with pytest.raises(ConfigError) as caught:
            ask(config(source))
        line = r"the name of the class b'caf\xe9' is not UTF-8; rename its folder"
        assert str(caught.value) == f"data.source={source}: {line}"
    assert not (tmp_path / "cache").exists() or not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_class_whose_name_is_utf8_beyond_ascii_is_kept(tmp_path, config):
    dataset_config = config(name_class("folder", tmp_path, "köter".encode()))
    assert data.prepare(dataset_config).class_names == data.describe(dataset_config).class_names == ("cat", "köter")


@pytest.mark.parametrize("kind", MAKERS)
def test_classes_that_differ_by_unicode_normalisation_only_are_told(tmp_path, config, kind):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    content = {
        name.replace("dog", composed if name.startswith("train") else decomposed): blob
        for name, blob in files().items()
    }
    line = refusal(config(MAKERS[kind](tmp_path / kind, content)))
    assert "differ by Unicode normalisation only, 'cafe\\u0301' and 'caf\\xe9'; rename one as the other" in line


# --- the cache


def test_a_prepared_source_is_described_and_loaded_without_its_images(tmp_path, config):
    dataset_config = config(make_tar(tmp_path / "a.tar", files()))
    info, stat = data.prepare(dataset_config), (tmp_path / "a.tar").stat()
    (tmp_path / "a.tar").write_bytes(b"x" * stat.st_size)
    os.utime(tmp_path / "a.tar", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data.describe(dataset_config) == info == data.load(dataset_config).info == data.prepare(dataset_config)


def test_a_source_is_named_as_it_was_given(tmp_path, config, monkeypatch):
    absolute = config(make_tar(tmp_path / "a.tar", files()))
    monkeypatch.chdir(tmp_path)
    relative = absolute.model_copy(update={"source": "a.tar"})
    assert data.prepare(absolute).source == str(tmp_path / "a.tar")
    assert (data.describe(relative).source, data.load(relative).info.source) == ("a.tar", "a.tar")


@pytest.mark.parametrize("kind", ["folder", "a.tar"])
def test_a_changed_source_is_decoded_anew(tmp_path, config, kind):
    dataset_config = config(MAKERS[kind](tmp_path / kind, files()))
    before = data.prepare(dataset_config)
    MAKERS[kind](tmp_path / kind, files() | {"train/cat/9.png": picture(9)})
    after = data.prepare(dataset_config)
    assert (before.num_train, after.num_train) == (12, 13)


def test_progress_ends_at_the_number_of_images(tmp_path, config):
    calls = []
    data.prepare(config(make_tar(tmp_path / "a.tar", files())), lambda *call: calls.append(call))
    assert calls == [(16, 16)]


PREPARE = """
import sys
from raylr.config import DataConfig
from raylr.training import data
config = DataConfig.model_validate_json(sys.argv[1])
calls = []
print("ready", flush=True)
input()
print(data.prepare(config, lambda *call: calls.append(call)).data_sha256, len(calls))
"""


def test_of_several_processes_one_decodes_and_all_get_the_data(tmp_path, config):
    text = config(make_tar(tmp_path / "a.tar", files(40, 10))).model_dump_json()
    command = [sys.executable, "-c", PREPARE, text]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert len({sha256 for sha256, _ in answers}) == 1
    assert sorted(calls for _, calls in answers) == ["0", "0", "1"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path, config):
    dataset_config = config(make_tar(tmp_path / "a.tar", files()))
    data.prepare(dataset_config)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    folder.rename(folder.with_name(f"{folder.name}.part"))
    (folder.with_name(f"{folder.name}.part") / "train_images.npy").write_bytes(b"half")
    data.prepare(dataset_config)
    data.verify(dataset_config)
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [folder]


@pytest.fixture
def cached(tmp_path, config):
    """A prepared config, and the folder of its cache."""
    dataset_config = config(make_tar(tmp_path / "a.tar", files()))
    data.prepare(dataset_config)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    return dataset_config, folder


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("cache.json", lambda blob: blob[:-9], "it is missing or not what was written"),
        ("train_images.npy", lambda blob: blob[:-1], "it is missing or has not the 848 bytes that were written"),
        ("test_images.npy", lambda blob: b"x" * len(blob), "its header is not what was written"),
        (
            "test_images.npy",
            lambda blob: blob.replace(b"(4, 4, 5, 3)", b"(4, 5, 4, 3)"),
            "its header is not what was written",
        ),
        ("train_labels.npy", lambda blob: blob[:-1] + b"\1", "its checksum differs"),
    ],
)
def test_a_damaged_cache_is_refused_with_the_way_to_make_it_anew(cached, name, change, why):
    config, folder = cached
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    for ask in (data.describe, data.prepare, data.load, data.verify):
        with pytest.raises(ConfigError) as caught:
            ask(config)
        assert str(caught.value) == (
            f"data.cache_dir={folder.parent}: {folder / name} is damaged, {why}; "
            f"to make it anew, remove the folder {folder} and run 'raylr data prepare'"
        )


def test_verify_finds_a_flipped_bit(cached):
    config, folder = cached
    data.verify(config)
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    data.load(config)
    with pytest.raises(
        ConfigError, match=r"train_images.npy is damaged, its checksum differs; to make it anew, remove"
    ):
        data.verify(config)


def test_the_images_are_mapped_and_cannot_be_changed_on_disk(cached):
    config, _ = cached
    images = data.load(config).train_images
    assert isinstance(images, np.memmap)
    images[:] = 0
    data.verify(config)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    config = DataConfig(source="synthetic", cache_dir=str(tmp_path / "file/cache"))
    with pytest.raises(
        ConfigError, match=r"data.cache_dir=.*/file/cache cannot be written \(Not a directory\); give another"
    ):
        data.prepare(config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\); give another folder"):
        data.prepare(DataConfig(source="synthetic", cache_dir=str(tmp_path / "cache")))


def test_what_is_not_prepared_cannot_be_loaded(config):
    for ask in (data.load, data.verify):
        with pytest.raises(
            ConfigError, match=r"data.source=auto is not prepared in data.cache_dir=.*; run 'raylr data prepare'"
        ):
            ask(config("auto"))


# --- synthetic


def test_synthetic_images_are_the_same_on_every_machine():
    assert (
        hashlib.sha256(draw(0, np.arange(1000)).tobytes()).hexdigest()
        == "44e2640a2f642e0b9be483ce56817b820c6e2317fad4d1c78e558d054e6ff890"
    )


def test_synthetic_classes_cannot_be_told_by_colour_or_brightness():
    """Nearest class mean, on the whole image: a little above chance, which is 0.1."""
    train, test = draw(0, np.arange(3000)), draw(1, np.arange(1000))
    means = np.stack([train[label::10].mean(0).ravel() for label in range(10)])
    distances = ((test.reshape(1000, 1, -1) - means) ** 2).sum(2)
    accuracy = (distances.argmin(1) == np.arange(1000) % 10).mean()
    assert accuracy < 0.3


def test_synthetic_is_prepared_in_ten_balanced_classes(tmp_path_factory):
    config = DataConfig(source="synthetic", cache_dir=str(tmp_path_factory.mktemp("cache")), test_examples=500)
    assert data.describe(config).num_train == 10_000
    info = data.prepare(config)
    assert (info.num_train, info.num_test, len(info.class_names), info.image_shape) == (10_000, 500, 10, (32, 32, 3))
    assert np.bincount(data.load(config).test_labels).tolist() == [50] * 10


# --- CIFAR-10 and auto


def make_cifar(root: Path) -> Path:
    """Six small files in CIFAR-10's format: image k of a file is red in its first row and has green k."""
    folder = root / cifar.FOLDER
    folder.mkdir(parents=True)
    for number, name in enumerate([*cifar.FILES["train"], *cifar.FILES["test"]]):
        images = np.zeros((20, 3, 32, 32), dtype=np.uint8)
        images[:, 0, 0], images[:, 1], images[:, 2] = 255, np.arange(20)[:, None, None], number
        batch = {"data": images.reshape(20, -1), "labels": (np.arange(20) % 10).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    return folder


def test_cifar_batches_are_read_in_rows_of_rgb_pixels(tmp_path):
    contents = cifar.contents(make_cifar(tmp_path))
    pieces = list(contents.pieces())
    assert [piece.split for piece in pieces] == ["train"] * 5 + ["test"]
    assert pieces[4].places.tolist() == list(range(80, 100))
    assert pieces[4].images[3, 0, 7].tolist() == [255, 3, 4]
    assert pieces[5].images[2, 1, 7].tolist() == [0, 2, 5]
    assert contents.labels["train"].tolist() == list(range(10)) * 10


def test_files_that_are_not_cifar10_are_refused(tmp_path, config):
    make_cifar(tmp_path / "root")
    assert data.describe(config("cifar10")).note == ""
    for source in ("cifar10", "auto"):
        line = refusal(config(source))
        assert line.startswith(f"data.root={tmp_path}/root: ")
        assert "data_batch_1 is missing or damaged; remove it all and run again" in line


@pytest.mark.parametrize("source", ["cifar10", "auto"])
def test_a_truncated_archive_of_cifar10_is_an_error_and_no_reason_for_synthetic_images(tmp_path, config, source):
    (tmp_path / "root").mkdir()
    archive = tmp_path / "root/cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b\x08" + bytes(997))
    for ask in (data.describe, data.prepare):
        with pytest.raises(
            ConfigError, match=r"^data\.root=.*/cifar-10-python\.tar\.gz is damaged or truncated, "
        ) as caught:
            ask(config(source))
        assert str(caught.value).endswith("; get it anew, or remove it")
    assert archive.read_bytes()[:1] == b"\x1f"  # it is the user's


def test_an_archive_of_cifar10_with_a_wrong_checksum_is_an_error(tmp_path, config):
    (tmp_path / "root").mkdir()
    archive = tmp_path / "root/cifar-10-python.tar.gz"
    archive.touch()
    os.truncate(archive, 170_498_071)
    assert f"{archive} is damaged or truncated, its MD5 is another; get it anew" in refusal(config("auto"))


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_a_dangling_link_in_place_of_cifar10_is_an_error(tmp_path, config, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / name).symlink_to("/nowhere")
    for ask in (data.describe, data.prepare):
        with pytest.raises(ConfigError, match=rf"{name} is a link that leads nowhere, or of another kind; get it"):
            ask(config("auto"))


def test_our_list_of_cifar_is_that_of_torchvision():
    from torchvision.datasets import CIFAR10

    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    assert (CIFAR10.url, CIFAR10.base_folder) == (cifar.URL, cifar.FOLDER)
    assert [*cifar.FILES["train"], *cifar.FILES["test"]] == names


def test_auto_is_described_as_cifar10_that_would_be_downloaded(config):
    info = data.describe(config("auto", train_examples=100))
    assert (info.source, info.num_train, info.num_test, info.class_names[3]) == ("cifar10", 100, 10_000, "cat")
    assert info.note.endswith("it would be downloaded; where that fails, synthetic images take its place")


@pytest.fixture
def closed_url():
    """A URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


def test_a_server_that_answers_is_reachable(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert cifar.unreachable(f"http://127.0.0.1:{server.server_port}/", 10.0) == ""
        assert "404" in cifar.unreachable(f"http://127.0.0.1:{server.server_port}/none", 10.0)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_refuses_is_told(closed_url, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "Connection refused" in cifar.unreachable(closed_url, 10.0)


def test_a_server_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        reason = cifar.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.3)
    assert "no answer within 0.3 s" in reason or "timed out" in reason
    assert time.monotonic() - started < 5


@pytest.fixture
def no_network(monkeypatch, closed_url):
    """Send every request to a proxy that is not there."""
    monkeypatch.setenv("https_proxy", closed_url)
    monkeypatch.setenv("no_proxy", "")


def test_cifar10_without_a_network_is_refused_soon(config, no_network):
    started = time.monotonic()
    line = refusal(config("cifar10"))
    assert time.monotonic() - started < 15
    assert line.startswith("data.source=cifar10: CIFAR-10 is not in data.root=")
    assert "cannot be downloaded (urlopen error [Errno 111] Connection refused)" in line
    assert line.endswith("put its files there, or use data.source=synthetic")


def test_auto_without_a_network_says_loudly_that_it_is_synthetic(config, no_network):
    with pytest.warns(
        UserWarning, match=r"the images are SYNTHETIC, not CIFAR-10: CIFAR-10 is not in data.root=.*cannot"
    ):
        info = data.prepare(config("auto"))
    assert info.source == "synthetic"
    assert info.note.startswith("the images are SYNTHETIC, not CIFAR-10: CIFAR-10 is not in data.root=")
    assert data.load(config("auto")).info.note == "the images are SYNTHETIC, not CIFAR-10"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.prepare(config("synthetic")).data_sha256 == info.data_sha256


# --- the real thing


@pytest.fixture(scope="module")
def real_config(tmp_path_factory):
    if not REAL.is_file():
        pytest.skip("the archive of CIFAR-10 as JPEG is not beside the repository")
    config = DataConfig(source=str(REAL), cache_dir=str(tmp_path_factory.mktemp("cache")))
    data.prepare(config)
    return config


def test_cifar10_as_jpeg_has_its_known_numbers(real_config):
    dataset = data.load(real_config)
    assert (dataset.info.num_train, dataset.info.num_test, dataset.info.image_shape) == (50_000, 10_000, (32, 32, 3))
    assert dataset.info.class_names == cifar.CLASS_NAMES
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10
    # the published mean and deviation of CIFAR-10; JPEG moves them a little
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4822, 0.4465), atol=1e-3)
    np.testing.assert_allclose(dataset.std, (0.2470, 0.2435, 0.2616), atol=3e-3)


def test_one_image_of_cifar10_is_that_of_the_archive(real_config):
    with tarfile.open(REAL) as archive:
        member = next(member for member in archive if member.name.startswith("train/bird/"))
        pixels = np.asarray(Image.open(io.BytesIO(archive.extractfile(member).read())))
    dataset = data.load(real_config)
    found = np.flatnonzero((dataset.train_images == pixels).all((1, 2, 3)))
    assert dataset.train_labels[found].tolist() == [2]


def private_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def test_a_rank_that_reads_every_image_has_no_copy_of_its_own(real_config):
    before = private_megabytes()
    dataset = data.load(real_config)
    for start in range(0, 50_000, 1000):
        assert dataset.train_images[start : start + 1000].max() > 0
    assert private_megabytes() - before < 20  # the images have 154
