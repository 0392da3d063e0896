"""The house: every module imports only what stands on its own floor or below."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.private_names import private_names

PACKAGE = Path(__file__).parents[1] / "raylr"
STDLIB = set(sys.stdlib_module_names)
# Every room by name, from the ground up; rooms of one floor do not know each other.
FLOORS = [
    ["errors"],
    ["lr", "storage"],
    ["config"],
    ["planning"],
    ["events"],
    ["torch_lr"],
    ["training", "reporting"],
    ["tasks"],
    ["running.ray_internals"],
    ["running.local_cluster"],
    ["running"],
    ["running.population"],
    ["api", "loop"],
    ["cli"],
    ["__init__", "__main__"],
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MAX_IN_ROOT = 6
ALL = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module: str) -> str:
    """The longest prefix of a module's name that is a room. KeyError for a module that has no place in the house."""
    parts = (module.removeprefix("raylr").removeprefix(".") or "__init__").split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    for prefix in prefixes:
        if prefix in FLOOR_OF:
            return prefix
    raise KeyError(f"{module} is in no room of FLOORS")


def imports(module: str) -> set[str]:
    """Names of all modules that a module imports, at its top or inside functions; type checking apart."""
    found = set()
    tree = ast.parse(ALL[module].read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in node.body
        for child in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in ALL else str(node.module) for name in names}
    return found


def outside(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)} - STDLIB - {"raylr"}


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Every circle that a walk along the arrows finds."""
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        return [error.args[1]]
    return []


@pytest.mark.parametrize("module", ALL)
def test_a_module_imports_only_its_own_room_and_those_on_floors_below(module: str) -> None:
    own = room_of(module)
    others = {name: room_of(name) for name in imports(module) if name in ALL}
    above = [name for name, room in others.items() if room != own and FLOOR_OF[room] >= FLOOR_OF[own]]
    assert not above


def test_a_module_without_a_room_is_found() -> None:
    with pytest.raises(KeyError, match=r"raylr\.loose is in no room"):
        room_of("raylr.loose")


def test_there_is_no_circle_of_imports_lazy_ones_included() -> None:
    assert not circles({name: imports(name) & ALL.keys() - {name} for name in ALL})
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_root_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_IN_ROOT


@pytest.mark.parametrize("module", [name for name in ALL if room_of(name) in ("errors", "lr")])
def test_the_policy_needs_the_standard_library_alone(module: str) -> None:
    assert not outside(module)


@pytest.mark.parametrize("module", ALL)
def test_ray_is_imported_in_running_alone_and_torch_where_it_trains(module: str) -> None:
    room = room_of(module).partition(".")[0]
    forbidden = {"ray"} if room != "running" else set()
    if room not in ("running", "training", "tasks", "torch_lr"):
        forbidden |= {"torch", "torchvision"}
    assert not outside(module) & forbidden


OUTSIDE_RAY_INTERNALS = [name for name in ALL if room_of(name) != "running.ray_internals"]


@pytest.mark.parametrize("module", OUTSIDE_RAY_INTERNALS)
def test_private_names_of_ray_are_in_ray_internals_alone(module: str) -> None:
    assert not private_names(ALL[module].read_text())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import ray._private.worker", "ray._private.worker"),
        ("from ray._raylet import RAY_NODE_ID_KEY", "ray._raylet.RAY_NODE_ID_KEY"),
        ("from ray.train._internal.session import _TrainingResult", "ray.train._internal.session._TrainingResult"),
        ("from ray.core.generated import gcs_pb2", "ray.core.generated.gcs_pb2"),
        ("from ray.autoscaler.v2 import sdk", "ray.autoscaler.v2.sdk"),
        ("from ray.experimental.internal_kv import internal_kv_get", "ray.experimental.internal_kv.internal_kv_get"),
        ("from ray import scripts", "ray.scripts"),
        ("from ray.tune.schedulers.pb2_utils import TV", "ray.tune.schedulers.pb2_utils.TV"),
        ("import ray\nray._raylet.KEY", "ray._raylet.KEY"),
        ("import ray as r\nr.util._private()", "r.util._private"),
        ("import ray\nray.get(one)._secret", "ray.get._secret"),
        ("actor.__ray_ready__.remote()", "__ray_ready__"),
        ("trial.run_metadata.last_result", "run_metadata"),
        ("import ray\nray.init(_temp_dir=here)", "_temp_dir="),
        ("import os\nos.environ['RAY_worker_niceness'] = '0'", "RAY_worker_niceness"),
        ("command = ['-m', 'ray.scripts.scripts', 'start']", "ray.scripts.scripts"),
        ("folder / 'ray_current_cluster'", "ray_current_cluster"),
        ("getattr(actor, '__ray_ready__')", "__ray_ready__"),
    ],
)
def test_a_private_name_of_ray_is_found(source: str, name: str) -> None:
    assert any(found.partition(": ")[2] == name for found in private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import ray\nray.util.get_node_ip_address()",
        "import ray\nray.__version__",
        "from ray.tune.schedulers import PopulationBasedTraining",
        "import os\nos.environ['RAY_ADDRESS']",
        "self._own.remote()",
    ],
)
def test_public_names_of_ray_are_not(source: str) -> None:
    assert not private_names(source)


def test_no_class_outside_ray_internals_replaces_a_private_method_of_ray() -> None:
    replaced = []
    for name in OUTSIDE_RAY_INTERNALS:
        if "ray" in outside(name):
            for made in vars(importlib.import_module(name)).values():
                bases = (
                    [base for base in inspect.getmro(made) if base.__module__.startswith("ray.")]
                    if inspect.isclass(made)
                    else []
                )
                if getattr(made, "__module__", "") == name:
                    replaced += [
                        f"{name}.{made.__name__}.{method}"
                        for method in vars(made)
                        if method.startswith("_")
                        and not method.startswith("__")
                        and any(hasattr(base, method) for base in bases)
                    ]
    assert not replaced


def test_jobs_are_thin() -> None:
    jobs = sorted((PACKAGE.parent / "jobs").glob("*.py"))
    assert jobs
    assert all(len(path.read_text().splitlines()) <= 60 for path in jobs)


def test_there_are_no_drawers_for_everything() -> None:
    assert not [path for path in ALL.values() if path.name in ("utils.py", "helpers.py", "common.py")]


def test_nothing_but_the_features_asks_for_a_version() -> None:
    asking = re.compile(r"import .*\brelease\b|facts\.release|version_info|\bpackaging\b")
    assert not [name for name, path in ALL.items() if asking.search(path.read_text())]
