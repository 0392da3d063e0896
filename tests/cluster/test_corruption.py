"""A real worker that computes wrong from some update on is found, told with its host, and replaced like a dead one."""

import json

import pytest

from tests.cluster.commands import OWN, kinds, needs, rows, start

pytestmark = [pytest.mark.timeout(300), needs("replace_one_worker")]
WRONG = """
import os
from torch import nn

class Wrong(nn.Module):
    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.count, self.factor = 0, 1.0
        self.head = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes)

    def forward(self, x):
        self.count += 1
        if self.count == 50 and is_first():
            self.factor = 1.001
        return self.head(x.flatten(1)) * self.factor

def is_first():
    try:
        os.close(os.open(os.environ["ONE_RANK_ONLY"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""


def test_a_worker_that_is_always_wrong_is_replaced_while_the_others_go_on(where):
    (where / "wrong.py").write_text(WRONG)
    model = ["--model.name", "wrong.py:Wrong", *OWN, "--epochs", "12"]
    checks = ["--guard.recheck", "1", "--guard.max-corruptions", "1"]
    code, out, err = start(where, "wrong", 3, *model, *checks, ONE_RANK_ONLY=str(where / "claimed")).end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["status"], result["restarts"], result["corruptions"]) == ("complete", 0, 2)
    first, second = [row for row in rows(where / "wrong", "events.jsonl") if row["kind"] == "corruption"]
    assert first["ranks"] == second["ranks"] == second["replaced"]
    assert (first["counts"], second["counts"], first["certain"], "replaced" in first) == ([1], [2], True, False)
    assert first["hosts"][0].count(".") == 3
    assert kinds(where / "wrong").index("continue") > kinds(where / "wrong").index("corruption")
    assert f"worker {first['ranks'][0]} on {first['hosts'][0]} computed micro-batch" in out + err
    assert "2 wrong results of workers" in out + err
