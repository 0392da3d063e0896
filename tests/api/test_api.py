"""What `import raylr` offers, and how little it loads."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


RUN = {
    "data": {"source": "synthetic", "train_examples": 200, "test_examples": 50},
    "epochs": 1,
    "batch.global_size": 50,
    "batch": {"micro_size": 25},
    "eval.micro_size": 50,
    "workers": 1,
    "name": "one",
}
NESTED = {
    **{key: value for key, value in RUN.items() if "." not in key},
    "batch": {"global_size": 50, "micro_size": 25},
    "eval": {"micro_size": 50},
}


def test_a_config_may_be_a_dict_or_the_path_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(RUN))
    first, *others = [raylr.plan(given)[0] for given in (Config(**NESTED), RUN, path, str(path))]
    assert (first.global_batch, first.num_train) == (50, 200)
    assert others == [first] * 3


@pytest.mark.parametrize("verb", [raylr.plan, raylr.train, raylr.explore])
def test_what_is_no_config_is_refused_in_one_line(verb: Callable[[Any], object]) -> None:
    with pytest.raises(
        ConfigError, match=r"^config=\[1\] is a list; give a raylr\.Config, a dict, or a YAML file's path$"
    ):
        verb([1])
    with pytest.raises(ConfigError, match="epoch is not a field; did you mean epochs"):
        verb({"epoch": 3})
    with pytest.raises(ConfigError, match=r"config none\.yaml cannot be read"):
        verb("none.yaml")


@pytest.mark.timeout(300)
def test_a_run_takes_the_ray_of_its_process_and_leaves_it(tmp_path: Path) -> None:
    code = f"""
import ray, raylr
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
run = {{**{RUN!r}, "storage": {str(tmp_path / "runs")!r}, "data.cache_dir": {str(tmp_path)!r}}}
for more in ({{"address": "127.0.0.1:1"}}, {{"workers": 2}}):
    try:
        raylr.train(run | more)
    except raylr.ConfigError as error:
        print(error)
print(raylr.train(run).status, ray.is_initialized(), ray.cluster_resources()["CPU"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    other, too_large, last = done.stdout.splitlines()[-3:]
    assert other.startswith("address=127.0.0.1:1 beside ray.init, which has connected this process to ")
    assert "workers=2 need 2 CPUs, but the cluster has 1" in too_large
    assert last == "complete True 1.0"
