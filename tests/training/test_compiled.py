"""A compiled model: nearly the same numbers as the plain one, and the same bits at any number of workers."""

import pytest
import torch

from raylr.errors import ConfigError
from raylr.training.compiled import compile_in_place
from tests.training.runs import images, plan, policy, train
from tests.training.tiny import Tiny


@pytest.mark.timeout(240)  # it calls a C++ compiler
def test_a_compiled_run_has_the_same_bits_at_1_and_2_workers_and_nearly_the_numbers_of_a_plain_one(ranks, tmp_path):
    data = images(90, 50)
    found = {}
    for name, size, changes in (("plain", 1, {}), ("one", 1, {"compile": True}), ("two", 2, {"compile": True})):
        of = plan(model="tests.training.tiny:pooled", dropout=0.0, precision="bf16", **changes)
        found[name] = ranks.run(train, size, of, policy(of), data, str(tmp_path / name))[0]
    assert found["one"]["weights_sha256"] == found["two"]["weights_sha256"]
    assert found["one"]["test_loss"] == pytest.approx(found["plain"]["test_loss"], abs=0.01)
    assert "rollback" not in (tmp_path / "one" / "events.jsonl").read_text()


def test_names_of_parameters_stay():
    model = Tiny(3, 4)
    names = list(model.state_dict())
    compile_in_place(model)
    assert list(model.state_dict()) == names
    assert model._compiled_call_impl is not None


def test_without_a_compiler_one_line_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        ConfigError, match=r"^model\.compile=true needs a C\+\+ compiler such as g\+\+ on each node; .*$"
    ):
        compile_in_place(torch.nn.Linear(2, 2))
