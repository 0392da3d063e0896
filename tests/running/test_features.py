"""What the probe finds in an installed Ray, and what a run then does, says or refuses. No Ray is started."""

import io
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from raylr.config import Config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import ALL_FEATURES, DatasetInfo, Features, Hardware, refuse_older, release
from raylr.planning.resolve import resolve
from raylr.reporting.population import PopulationDisplay
from raylr.running.population.driver import Exploration, checked_space
from raylr.running.ray_internals.features import FEATURES, NEEDED, features, features_of, lacking
from raylr.running.ray_internals.gcs import refuse_mismatch, refuse_other_versions
from raylr.running.ray_internals.overriding import overriding
from raylr.storage import run_folder

DATA = DatasetInfo("synthetic", 1000, 100, tuple("abcdefghij"), (32, 32, 3))
CPU = Hardware(bf16=False, num_gpus=0)
OLD = Features("2.54.0", replace_one_worker=False, elastic=False, local_nodes=False)
COMMANDS = [
    ["plan"],
    ["train"],
    ["explore"],
    ["cluster", "up"],
    ["submit", "--address", "http://127.0.0.1:1", "--working-dir", str(Path(__file__).parents[2])],
]


def installed() -> Path:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files of the installed Ray that the probe reads, and nothing else; it cannot be imported."""
    package = tmp_path / "ray"
    files = {file for names in (NEEDED, *FEATURES.values()) for file in names}
    for file in ("_version.py", *files):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(installed() / file, package / file)
    (package / "__init__.py").write_text("raise SystemExit('ray was imported')\n")
    return package


def of_version(package: Path, number: str) -> Path:
    (package / "_version.py").write_text(f'commit = "0"\nversion = "{number}"\n')
    return package


def raylr(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with the packages under `path` before all others."""
    return subprocess.run(
        [sys.executable, "-m", "raylr", *arguments], capture_output=True, text=True, timeout=60, cwd=path,
        env={**os.environ, "PYTHONPATH": f"{path}:{Path(__file__).parents[2]}", "RAY_ADDRESS": ""},
    )  # fmt: skip


def resolved(offered: Features, **values: object) -> dict[str, str]:
    """The story of a plan, with its failure mode."""
    plan, _ = resolve(Config(**values), DATA, CPU, features=offered)
    return {"mode": plan.failure_mode} | {line.what: f"{line.value} ({line.why})" for line in plan.story}


def test_the_probe_of_the_installed_ray_finds_what_is_known_of_its_version(tree):
    found = features()
    known = {"replace_one_worker": (2, 56), "elastic": (2, 55), "local_nodes": (2, 55), "quiet_agent": (2, 54)}
    assert found == features_of(tree)
    assert set(found.missing) == {name for name, since in known.items() if release(found.ray) < since}


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for names in FEATURES.values() for file, wanted in names.items() for name in wanted]
)
def test_a_renamed_name_takes_its_feature_away_and_no_other(tree, file, name):
    path, word = tree / file, name.lstrip("!").strip('"').rpartition(".")[2] if '"' not in name else name.strip('!"')
    text = path.read_text()
    path.write_text(f"{text}\n# {word}\n" if name.startswith("!") else text.replace(word, word[::-1]))
    lost = {feature for feature, names in FEATURES.items() if name in names.get(file, ())}
    assert lost <= set(features_of(tree).missing)
    others = {feature for feature, names in FEATURES.items() if file not in names}
    assert not others & set(features_of(tree).missing) - set(features().missing)


@pytest.mark.parametrize(
    ("text", "name", "there"),
    [
        ("class A(B):\n    def f(self):\n        pass\n", "A.f", True),
        ("class A(B):\n    async def f(self):\n        pass\n", "A.f", True),
        ("class A:\n    f: int = 1\n", "A.f", True),
        ("class A(\n    B,\n):\n    def f(self):\n        pass\n", "A.f", True),
        ("class A:\n    def __init__(self):\n        self.f = 1\n", "A.f", True),
        ("class A:\n    pass\n\nclass C:\n    def f(self):\n        pass\n", "A.f", False),
        ("class AB:\n    def f(self):\n        pass\n", "A.f", False),
        ("class A:\n    def g(self):\n        # f\n        return self.f\n", "A.f", False),
        ("class A:\n    def ff(self):\n        pass\n", "A.f", False),
        ("from x import f\n", "f", True),
        ("from x import (\n    e,\n    f,\n)\n", "f", True),
        ("def f():\n    pass\n", "f", True),
        ("f = 1\n", "f", True),
        ("# f = 1\nff = 1\n", "f", False),
        ("say f", '"say f"', True),
        ("say f", '!"say f"', False),
        ("say g", '!"say f"', True),
        ("", '!"say f"', False),
    ],
)
def test_names_are_found_where_they_are_defined(tmp_path, text, name, there):
    (tmp_path / "file.py").write_text(text)
    assert lacking(tmp_path, {"file.py": (name,)}) == ([] if there else [f"file.py: {name}"])
    assert lacking(tmp_path, {"none.py": (name,)}) == [f"none.py: {name}"]


def test_a_ray_that_is_too_old_or_not_there_is_refused(tree):
    with pytest.raises(
        ConfigError, match=r"^ray=2\.52\.1: 2\.52\.1 is installed, and raylr needs 2\.53 or newer; pip install"
    ):
        features_of(of_version(tree, "2.52.1"))
    with pytest.raises(ConfigError, match=r"^ray=none: not installed, and raylr needs 2\.53 or newer"):
        features_of(None)
    assert features_of(of_version(tree, "2.53.0rc1")).ray == "2.53.0rc1"


def test_a_ray_without_what_nothing_stands_in_for_is_refused_by_the_name(tree):
    path = tree / "actor.py"
    path.write_text(path.read_text().replace("__ray_ready__", "__ray_up__"))
    with pytest.raises(
        ConfigError, match=r"^ray=2\.\S+ has no actor\.py: \S+ __ray_ready__\S+, which raylr needs; use ray 2\.53 to"
    ):
        features_of(tree)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_verb_that_needs_ray_refuses_an_old_one_in_one_line(tree, command):
    done = raylr(of_version(tree, "2.52.0").parent, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'error: ray=2.52.0: 2.52.0 is installed, and raylr needs 2.53 or newer; pip install "ray>=2.53"\n'
    )
    assert not list(tree.parent.glob("runs/*"))


def test_a_torch_that_is_too_old_is_refused_in_one_line(tmp_path):
    known = tmp_path / "torch-2.8.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.8.0+cpu\n")
    done = raylr(tmp_path, "train", "--data.source", "synthetic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'error: torch=2.8.0+cpu: 2.8.0+cpu is installed, and raylr needs 2.9 or newer; pip install "torch>=2.9"\n'
    )


def test_versions_compare_by_their_numbers():
    refuse_older("torch", "2.10.0a0+git", "2.9")
    with pytest.raises(ConfigError, match=r"torch=1\.13"):
        refuse_older("torch", "1.13", "2.9")


def test_a_plan_imports_neither_ray_nor_torch_and_names_the_ray(tree):
    done = raylr(tree.parent, "plan", "--data.source", "synthetic")
    assert done.returncode == 0, done.stderr
    assert f"{features().ray}: {features().summary()}" in " ".join(done.stdout.split())
    program = "import sys, raylr; raylr.plan(raylr.Config()); print({'ray', 'torch'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "set()\n"


def test_a_newer_ray_is_warned_of_and_the_probe_decides(tree):
    found = features_of(of_version(tree, "2.61.0"))
    assert found.missing == features().missing
    plan, _ = resolve(Config(), DATA, CPU, features=found)
    assert plan.warnings[0].startswith("Ray 2.61.0 is newer than 2.60, the newest that was tested")
    plan, _ = resolve(Config(), DATA, CPU, features=features_of(of_version(tree, "2.60.3")))
    assert not any("newer" in warning for warning in plan.warnings)


def test_a_population_says_in_its_plan_what_this_ray_cannot_do(tmp_path):
    space = checked_space(PopulationConfig(trials=2, workers=1), DATA, CPU, OLD)
    assert space.plan.failure_mode == "restart"
    note, _ = Exploration(space).planned(run_folder(str(tmp_path), "p")).notes  # and what trials are compared on
    assert note.startswith("Ray 2.54.0: a lost worker restarts all (until 2.56); ")
    shown = io.StringIO()
    display = PopulationDisplay(Console(file=shown, width=200))
    display(Exploration(space).planned(run_folder(str(tmp_path), "p")))
    assert note in shown.getvalue()
    assert Features("2.60.0").notes() == ()
    assert Features("2.61.0").notes()[0].startswith("Ray 2.61.0 is newer than 2.60")


def test_without_replacing_one_worker_the_plan_restarts_all_and_says_why():
    assert resolved(ALL_FEATURES)["mode"] == "continue"
    story = resolved(OLD)
    assert story["mode"] == "restart"
    assert story["lost worker"] == (
        "restart: all start again from the newest checkpoint (Ray 2.54.0 replaces no single worker)"
    )
    assert story["Ray"].startswith(
        "2.54.0: a lost worker restarts all (until 2.56); no --workers MIN:MAX (until 2.55); "
        "local clusters of one node (until 2.55)"
    )


def test_where_ray_tells_of_no_node_that_is_about_to_go_a_changing_number_of_workers_restarts_all_and_the_plan_says_why():
    blind = Features("2.61.0", drains=False)
    story = resolved(blind, workers="1:4")
    assert resolved(ALL_FEATURES, workers="1:4")["mode"] == "continue"
    assert story["mode"] == "restart"
    assert story["lost worker"] == (
        "restart: all start again from the newest checkpoint (Ray 2.61.0 tells of no node that is about to go)"
    )
    assert "a node that comes or goes restarts all" in story["Ray"]
    with pytest.raises(
        ConfigError, match=r"^failure\.mode=continue needs Ray 2\.53 to 2\.60, and 2\.61\.0 is installed"
    ):
        resolved(blind, workers="1:4", failure={"mode": "continue"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"workers": "1:4"},
            "workers=1:4 needs Ray 2.55, and 2.54.0 is installed; use a fixed number, such as 4",
        ),
        (
            {"failure": {"mode": "continue"}},
            "failure.mode=continue needs Ray 2.56, and 2.54.0 is installed; use failure.mode=restart",
        ),
    ],
)
def test_what_an_old_ray_cannot_do_is_refused_with_the_version_that_has_it(values, message):
    with pytest.raises(ConfigError) as refused:
        resolved(OLD, **values)
    assert str(refused.value) == message


def test_what_a_newer_ray_has_lost_is_refused_with_the_versions_that_have_it():
    lost = Features("2.61.0", elastic=False)
    with pytest.raises(ConfigError, match=r"^workers=1:4 needs Ray 2\.55 to 2\.60, and 2\.61\.0 is installed"):
        resolved(lost, workers="1:4")
    assert "no --workers MIN:MAX (gone since 2.60)" in resolved(lost)["Ray"]


@pytest.mark.parametrize(
    ("search", "lost", "message"),
    [
        ("pb2", "pb2_kernel", "search=pb2 needs Ray 2.53 to 2.60, and 2.61.0 is installed; use --search pbt"),
        (
            "pbt",
            "pbt",
            "search=pbt needs Ray 2.53 to 2.60, and 2.61.0 is installed; use --search fire, asha, grid or random",
        ),
        ("random", "population", "trials=4 needs Ray 2.53 to 2.60, and 2.61.0 is installed; use raylr train"),
    ],
)
def test_a_search_whose_parts_are_gone_is_refused_by_name(search, lost, message):
    if search == "pb2":
        pytest.importorskip("sklearn", reason="the extra raylr[pb2] is not installed")
    config = PopulationConfig(search=search, trials=4, workers=1)
    assert checked_space(config, DATA, CPU).plan
    with pytest.raises(ConfigError) as refused:
        checked_space(config, DATA, CPU, Features("2.61.0", **{lost: False}))
    assert str(refused.value) == message


def test_a_local_cluster_of_several_nodes_is_refused_where_they_share_a_folder(tree):
    script = tree / "scripts" / "scripts.py"
    script.write_text(f"{script.read_text()}\n# `--head` is a required flag to use `--temp-dir`\n")
    done = raylr(of_version(tree, "2.54.0").parent, "cluster", "up", "--name", "refused", "--nodes", "2")
    assert done.returncode == 2
    assert done.stderr == "error: nodes=2 needs Ray 2.55, and 2.54.0 is installed; use --nodes 1\n"


def test_a_renamed_method_of_a_base_class_is_found_when_ours_is_made():
    class Base:
        known = None

        def _poll(self) -> None: ...

    @overriding("own")
    class Good(Base):
        known = 1
        own = 2

        def _poll(self) -> None: ...

    assert Good.known == 1
    with pytest.raises(
        RaylrError, match=r"^ray=\S+ has no Base\._look, which raylr replaces; use another version of Ray$"
    ):

        @overriding("own")
        class Bad(Base):
            def _look(self) -> None: ...


def test_a_cluster_of_other_versions_is_refused_in_one_line_with_both(monkeypatch):
    import ray

    ours = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    refuse_other_versions("10.0.0.1:6379", ours)
    for field, other in (("ray_version", "2.51.0"), ("python_version", "3.8.1")):
        theirs = {**ours, field: other}
        with pytest.raises(ConfigError) as refused:
            refuse_other_versions("10.0.0.1:6379", theirs)
        assert str(refused.value) == (
            f"address=10.0.0.1:6379 runs Ray {theirs['ray_version']} on Python {theirs['python_version']}, and this driver "
            f"has Ray {ours['ray_version']} on Python {ours['python_version']}; use the cluster's versions"
        )
    monkeypatch.setenv(
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor"
    )  # Ray's own way to say that patches may differ
    refuse_other_versions("10.0.0.1:6379", {**ours, "python_version": f"3.{sys.version_info[1]}.99"})


def test_the_mismatch_that_ray_itself_tells_in_ten_lines_is_told_in_one():
    import ray
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as told:
        check_version_info({"ray_version": "2.51.0", "python_version": "3.8.1"}, "here")
    with pytest.raises(ConfigError) as refused:
        refuse_mismatch("auto", told.value)
    assert str(refused.value).startswith("address=auto runs Ray 2.51.0 on Python 3.8.1, and this driver has Ray ")
    assert ray.__version__ in str(refused.value)
    refuse_mismatch("auto", RuntimeError("something else"))
