"""What travels with a job, and the arguments under which it is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raylr
from raylr.cli.program import program
from raylr.cli.submit import _asked
from raylr.config.own_files import own_files
from raylr.errors import ConfigError
from raylr.running import packing
from raylr.running.packing import pack

POLICY = '{"no": "policy"}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's: own modules that import each other in every way, and what does not belong to them."""
    files = {
        "mine/__init__.py": "",
        "mine/net.py": "from . import parts\nfrom .deep.more import x\nimport helper\nimport torch\n",
        "mine/parts.py": "def f():\n    import mine.late\n",
        "mine/late.py": "from raylr.lr import Policy\n",
        "mine/deep/more.py": "from ..above import f\nx = 1\n",
        "mine/above.py": "f = 1\n",
        "mine/unused.py": "",
        "helper.py": "import other.leaf\n",
        "other/leaf.py": "",  # of a folder without __init__.py
        "loose/loss.py": "import beside\n",
        "loose/beside.py": "",
        "big.bin": "x",
        "runs/one/ledger.jsonl": "x",
        "conf/c.yaml": "model: {name: 'mine.net:make'}\nloss: {name: 'helper:loss'}\ndata: {source: synthetic}\n",
        "policy.json": POLICY,
    }
    for name, text in files.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def packed(into: Path, *words: str, is_here: bool = False, includes: list[Path] | None = None) -> tuple[str, set[str]]:
    """The job's arguments and the files that travel, without raylr's own."""
    asked, config = _asked(words, program(words))
    into.mkdir()
    found = pack(asked, config, into, includes or [], is_here)
    files = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    own = {name for name in files if not name.startswith("raylr")}
    return " ".join(found.arguments(type(config))), own


def test_own_modules_and_what_they_import_travel_and_nothing_else(project: Path, tmp_path: Path) -> None:
    arguments, files = packed(tmp_path / "job", "conf/c.yaml", "--workers", "4", "--storage", "/shared/runs")
    assert files == {
        "conf/c.yaml", "mine/__init__.py", "mine/net.py", "mine/parts.py", "mine/late.py", "mine/deep/more.py", "mine/above.py",
        "helper.py", "other/leaf.py",
    }  # fmt: skip
    assert arguments == "train conf/c.yaml --storage /shared/runs --workers 4"


def test_a_file_with_an_object_travels_with_what_lies_beside_it(project: Path) -> None:
    assert own_files({"hooks": ["loose/loss.py:f"]}, project).keys() == {Path("loose/loss.py"), Path("loose/beside.py")}
    assert own_files("torch.nn:Module, math:sin, nowhere.at:all, http://x:8265, 1:4", project) == {}
    (project / "loose/loss.py").write_text("def (")
    with pytest.raises(ConfigError, match=r"loss\.py cannot be read as Python: .*; mend it"):
        own_files("loose/loss.py:f", project)


@pytest.mark.parametrize("place", ["loose/loss.py", "{project}/loose/loss.py", "../elsewhere/loss.py"])
def test_a_dataset_and_a_transform_of_ones_own_travel(project: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(project / "loose", tmp_path / "elsewhere")
    words = ["--data.source", f"{place.format(project=project)}:Photos", "--data.transform", "helper:f, RandAugment"]
    arguments, files = packed(tmp_path / "job", *words)
    folder = "" if place.startswith("..") else "loose/"
    assert files == {f"{folder}loss.py", f"{folder}beside.py", "helper.py", "other/leaf.py"}
    assert f"--data.source {folder}loss.py:Photos" in arguments
    arguments, _ = packed(tmp_path / "here", *words, is_here=True)
    assert f"--data.source {Path(os.path.abspath(place.format(project=project)))}:Photos" in arguments


def test_the_package_that_runs_here_travels_and_is_the_one_that_a_job_imports(project: Path, tmp_path: Path) -> None:
    packed(tmp_path / "job", "--data.source", "synthetic")
    told = subprocess.run(
        [sys.executable, "-SB", "-c", "import raylr, importlib.metadata as m; print(raylr.__file__, m.version('raylr'))"],
        cwd=tmp_path / "job", capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path / "job")},
    )  # fmt: skip
    from importlib.metadata import version

    assert told.stdout.split() == [str(tmp_path / "job/raylr/__init__.py"), version("raylr")], told.stderr
    here = Path(raylr.__file__).parent
    wanted = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    there = tmp_path / "job/raylr"
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == wanted


def test_flags_keep_their_values_whatever_these_look_like(project: Path, tmp_path: Path) -> None:
    words = ["--no-optimizer.nesterov", "--guard.enabled", "--lr.shape", "step(every=4ep, gamma=0.5)", "--fresh"]
    words += ["--optimizers.a.match", "*", "--optimizers.a.optimizer.no-nesterov"]
    arguments, _ = packed(tmp_path / "job", *words[2:])
    assert "--lr.shape step(every=4ep, gamma=0.5)" in arguments
    assert "--optimizers.a.optimizer.no-nesterov" in arguments
    assert "--fresh" in arguments
    words = [*arguments.split(" --lr.shape ")[0].split(), "--seed", "3"]
    again, config = _asked(words, program(words))
    assert (again.verb, config.seed, config.fresh) == ("train", 3, True)


def test_explore_is_a_verb_of_its_own(project: Path, tmp_path: Path) -> None:
    arguments, _ = packed(tmp_path / "job", "explore", "--trials", "8", "--storage", "/shared")
    assert arguments == "explore --trials 8 --storage /shared" or arguments == "explore --storage /shared --trials 8"


def test_files_that_the_config_names_travel(project: Path, tmp_path: Path) -> None:
    arguments, files = packed(tmp_path / "job", "--policy", str(project / "policy.json"))
    assert arguments == "train --policy policy.json"
    assert files == {"policy.json"}
    outside = tmp_path / "elsewhere.json"
    outside.write_text(POLICY)
    assert packed(tmp_path / "job2", "--policy", "../elsewhere.json") == (
        "train --policy elsewhere.json",
        {"elsewhere.json"},
    )


def test_a_small_folder_of_data_travels_and_a_large_one_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "images/train/a").mkdir(parents=True)
    (project / "images/train/a/1.png").write_bytes(b"x" * 2000)
    arguments, files = packed(tmp_path / "job", "--data.source", "images")
    assert (arguments, files) == ("train --data.source images", {"images/train/a/1.png"})
    absolute = str(project / "images")
    assert packed(tmp_path / "job2", "--data.source", absolute) == (f"train --data.source {absolute}", set())
    monkeypatch.setattr(packing, "MAX_BYTES", 1000)
    with pytest.raises(
        ConfigError, match=r"^data\.source=images has 0 MB, and at most .* MB travel with a job; put it"
    ):
        packed(tmp_path / "job3", "--data.source", "images")


def test_paths_of_this_machine_are_made_absolute_for_a_cluster_on_it(project: Path, tmp_path: Path) -> None:
    arguments, files = packed(tmp_path / "job", "--policy", "policy.json", is_here=True)
    assert files == set()
    assert f"--policy {project}/policy.json --storage {project}/runs --data.root {project}/data" in arguments


def test_what_is_included_travels_too(project: Path, tmp_path: Path) -> None:
    _, files = packed(tmp_path / "job", includes=[Path("big.bin"), Path("other")])
    assert files == {"big.bin", "other/leaf.py"}
    with pytest.raises(ConfigError, match=r"^include=none is not here; give a path that is"):
        packed(tmp_path / "job2", includes=[Path("none")])


def test_the_url_of_a_webhook_travels_in_a_file_and_not_in_the_command(project: Path, tmp_path: Path) -> None:
    arguments, files = packed(tmp_path / "job", "--alerts.url", "https://example.org/secret")
    assert (arguments, files) == ("train --alerts.url-file alerts-url.txt", {"alerts-url.txt"})
    held = tmp_path / "job/alerts-url.txt"
    assert held.read_text() == "https://example.org/secret\n"
    assert held.stat().st_mode & 0o777 == 0o600


def test_the_record_of_a_run_is_read_as_one_on_the_cluster(project: Path, tmp_path: Path) -> None:
    record = project / "runs/one/config.json"
    record.write_text('{"name": "one", "epochs": 2.0, "fresh": true}')
    (record.parent / "policy.json").write_text("{}")
    with pytest.warns(UserWarning, match="fresh=True was for the start that wrote it"):
        arguments, files = packed(tmp_path / "job", "runs/one/config.json")
    assert arguments == "train runs/one/config.json"
    assert files == {"runs/one/config.json", "runs/one/policy.json"}
