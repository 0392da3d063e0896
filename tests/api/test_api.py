"""What `import raylr` offers, and how little it loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import raylr
from raylr.config import Config
from raylr.errors import ConfigError


def loaded_by(code: str, cwd: Path) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    report = "import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=cwd, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_raylr_loads_nothing_but_itself(tmp_path: Path) -> None:
    assert not loaded_by("import raylr", tmp_path) & {"torch", "ray", "pydantic", "numpy", "click", "rich", "yaml"}


def test_a_policy_is_evaluated_without_torch_ray_or_pydantic(tmp_path: Path) -> None:
    assert not loaded_by("import raylr; raylr.Policy", tmp_path) & {"torch", "ray", "pydantic", "numpy"}


def test_plan_gives_the_plan_and_the_policy_of_a_config() -> None:
    plan, policy = raylr.plan(Config(data={"source": "synthetic"}, epochs=2, batch={"global_size": 256}))
    assert (plan.global_batch, plan.total_examples) == (256, 2 * plan.num_train)
    assert isinstance(policy, raylr.Policy)


def test_plan_refuses_what_train_would() -> None:
    with pytest.raises(ConfigError, match=r"batch\.global_size=1000 is not a multiple"):
        raylr.plan(Config(data={"source": "synthetic"}, batch={"global_size": 1000}))


def test_every_name_is_there_and_others_are_not() -> None:
    assert {name for name in dir(raylr) if not name.startswith("_")} == set(raylr.__all__)
    of_torch = {name for name, home in raylr._HOMES.items() if home.startswith(("raylr.training", "raylr.torch_lr"))}
    assert {"load", "evaluate", "export", "drive"} < of_torch
    for name in set(raylr.__all__) - of_torch:
        assert getattr(raylr, name) is not None
    with pytest.raises(AttributeError, match="module 'raylr' has no attribute 'exploer'"):
        _ = raylr.exploer
