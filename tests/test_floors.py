"""The house: every module imports only what stands on its own floor or below."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "raylr"
STDLIB = set(sys.stdlib_module_names)
# The longest prefix of a module's name gives its floor.
FLOORS = {
    "raylr.errors": 0,
    "raylr.lr": 0,
    "raylr.fields": 1,
    "raylr.config": 1,
    "raylr.defaults": 1,
    "raylr.run_plan": 1,
    "raylr.choose_lr": 1,
    "raylr.story": 1,
    "raylr.resolve": 1,
    "raylr.settings": 1,
    "raylr.population_config": 1,
    "raylr.storage": 1,
    "raylr.object_storage": 1,
    "raylr.training": 2,
    "raylr.running": 3,
    "raylr.reporting": 3,
    "raylr.planning": 4,
    "raylr.cli_options": 4,
    "raylr.cli_cluster": 4,
    "raylr.cli": 4,
    "raylr.__main__": 4,
    "raylr": 4,
}
ALL = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def floor_of(module: str) -> int:
    while module not in FLOORS:
        module, _, _ = module.rpartition(".")
    return FLOORS[module]


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


@pytest.mark.parametrize("module", ALL)
def test_a_floor_imports_only_its_own_and_those_below(module: str) -> None:
    above = [name for name in imports(module) if name in ALL and floor_of(name) > floor_of(module)]
    assert not above


@pytest.mark.parametrize("module", [name for name in ALL if floor_of(name) == 0])
def test_the_ground_floor_needs_the_standard_library_alone(module: str) -> None:
    assert not outside(module)


@pytest.mark.parametrize("module", ALL)
def test_ray_is_imported_in_running_and_torch_in_training_and_running_only(module: str) -> None:
    forbidden = {"ray"} if not module.startswith("raylr.running") else set()
    if not module.startswith(("raylr.running", "raylr.training")):
        forbidden |= {"torch", "torchvision"}
    assert not outside(module) & forbidden


@pytest.mark.parametrize("module", [name for name in ALL if name.startswith("raylr.reporting")])
def test_reporting_knows_neither_training_nor_running(module: str) -> None:
    assert not [name for name in imports(module) if name.startswith(("raylr.training", "raylr.running"))]


def test_jobs_are_thin() -> None:
    jobs = sorted((PACKAGE.parent / "jobs").glob("*.py"))
    assert jobs
    assert all(len(path.read_text().splitlines()) <= 60 for path in jobs)


def test_there_are_no_drawers_for_everything() -> None:
    assert not [path for path in ALL.values() if path.name in ("utils.py", "helpers.py", "common.py")]
