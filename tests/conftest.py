"""Fixtures that several test files share: what costs seconds to start is started once."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ranks() -> Iterator["object"]:
    """Four plain processes with torch imported, to play the ranks of a group."""
    from tests.ranks import Ranks

    pool = Ranks()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A URI on a store of our own, and the environment in which it is found."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        from pyarrow import fs

        store, _ = fs.FileSystem.from_uri("s3://shelf?allow_bucket_creation=true")
        store.create_dir("shelf")
        yield "s3://shelf/runs"
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system of 1 MB, which holds no checkpoint of the smallest model, and what gives it another size."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "raylr", path]).returncode:
        pytest.skip("only root may mount a small file system")
    yield path, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True) and None
    subprocess.run(["umount", path], check=True)
