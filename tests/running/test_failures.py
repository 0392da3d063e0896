"""An error of the user's code ends the run for all ranks with its traceback; what may pass is left to Ray."""

import asyncio
import errno
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import ConfigError
from raylr.running.session import set_up

set_up()  # what Ray reads of the environment, before anything imports it

import ray  # noqa: E402
import torch  # noqa: E402

from raylr.running.driver import _counts  # noqa: E402
from raylr.running.failures import ending, may_pass  # noqa: E402
from raylr.running.hub import Hub  # noqa: E402
from raylr.running.job import without_traceback, write_failure  # noqa: E402
from raylr.running.population.hub import Hubs  # noqa: E402
from raylr.storage import LocalFolder  # noqa: E402
from raylr.training.group import GroupBroken, GroupUnusable  # noqa: E402
from raylr.training.recheck import Unreliable  # noqa: E402
from tests.training.runs import images, plan, policy  # noqa: E402

USERS = """
def loss(x):
    return inner(x)
def inner(x):
    raise ValueError("no such\\nclass")
"""


class InFile:
    """A run whose end its ranks read in a file."""

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path, self.rank = path, rank
        self.given_up: list[dict[str, Any]] = []

    def ended(self) -> dict[str, Any] | None:
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def fail(self, failed: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(failed))

    def give_up(self, failed: dict[str, Any]) -> None:
        self.given_up.append(failed)


@pytest.fixture
def run(tmp_path: Path) -> InFile:
    return InFile(tmp_path / "ended", rank=3)


def raising(error: BaseException) -> Any:
    def train() -> dict[str, Any]:
        raise error

    return train


def test_an_error_of_the_users_code_is_the_runs_end_with_file_line_and_whole_traceback(run, tmp_path):
    file = tmp_path / "own_loss.py"
    file.write_text(USERS)
    own: dict[str, Any] = {}
    exec(compile(USERS, str(file), "exec"), own)
    result = ending(run, lambda: own["loss"](1))
    assert result == run.ended()
    assert result["status"] == "failed"
    assert result["reason"] == f"ValueError: no such ({file}, line 5, in inner; rank 3)"
    lines = result["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.split(", in ")[1] for line in lines if str(file) in line] == ["loss", "inner"]
    assert lines[-2:] == ["ValueError: no such", "class"]
    assert not run.given_up


def test_an_error_of_ours_is_one_line(run):
    result = ending(run, raising(ConfigError("data.root=here is empty; use another")))
    assert result == {"status": "failed", "reason": "data.root=here is empty; use another"}


def test_sys_exit_in_the_users_code_ends_the_run_too(run):
    assert ending(run, raising(SystemExit(3)))["reason"].startswith("SystemExit: 3 (")


def test_a_rank_whose_peers_have_ended_the_run_leaves_with_their_result(run):
    run.fail({"status": "failed", "reason": "first"})
    assert ending(run, raising(GroupBroken("Connection closed by peer")))["reason"] == "first"
    assert ending(run, raising(ValueError("second")))["reason"] == "first"


def test_what_may_pass_is_raised_for_ray_to_try_again_and_left_as_the_last_error(run):
    with pytest.raises(GroupBroken, match="a peer is gone"):
        ending(run, raising(GroupBroken("a peer is gone")))
    assert run.ended() is None
    assert [one["reason"].partition(" (")[0].rpartition(".")[2] for one in run.given_up] == [
        "GroupBroken: a peer is gone"
    ]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (GroupBroken("a peer died"), True),
        (ray.exceptions.ActorDiedError(), True),
        (MemoryError(), True),
        (Unreliable("computed wrong 4 times"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (RuntimeError("[/src/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"), True),
        (GroupUnusable("a shared card"), False),
        (ConfigError("data.root=x"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (FileNotFoundError("labels.csv"), False),
        (OSError("image file is truncated"), False),
        (ValueError("nan"), False),
        (AssertionError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error, passes):
    assert may_pass(error) is passes


def test_what_the_storage_does_not_take_is_tried_again(tmp_path):
    class Full(LocalFolder):
        pass

    folder = Full(tmp_path / "not" / "there")
    with pytest.raises(OSError, match="No such file") as caught:
        folder.write_bytes("ledger.jsonl", b"")
    assert may_pass(caught.value)
    assert not may_pass(OSError(errno.ENOSPC, "in the user's own code"))


def two_ranks(
    place: int, size: int, port: int, of: Any, lr: Any, data: Any, run_dir: str, can_continue: bool
) -> tuple[dict[str, Any], float]:
    """A rank of a run in whose sixth micro-batch rank 1 raises; its result, and when it left."""
    import torch

    from raylr.storage import LocalFolder
    from raylr.training.group import Group, connect, form_group, listen
    from raylr.training.loop import Loop
    from raylr.training.membership import Plain, RunEnded
    from raylr.training.trainer import Trainer

    class Ours(Plain):
        def rendezvous(self, mark: Any, trouble: str = "") -> Any:
            if trouble:
                raise RunEnded(run.ended() or {})
            return super().rendezvous(mark)

    class Leaving(InFile):
        def fail(self, failed: dict[str, Any]) -> None:
            super().fail(failed)
            membership.group = Group()

    run = Leaving(Path(run_dir) / "ended", place)
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    membership = Ours(form_group(store, 1, place, size, torch.device("cpu"), 60.0))
    membership.can_continue = can_continue
    folder = LocalFolder(Path(run_dir))
    folder.create()

    def train() -> dict[str, Any]:
        trainer = Trainer(of, lr, data)
        calls = []

        def loss(output: Any, labels: Any) -> Any:
            calls.append(1)
            if place == 1 and len(calls) > 5:
                raise ValueError("my own loss is wrong")
            return torch.nn.functional.cross_entropy(output, labels)

        trainer.loss = loss
        return Loop(trainer, membership, folder).run()

    return ending(run, train), time.monotonic()


@pytest.mark.parametrize("can_continue", [True, False])
def test_when_one_rank_fails_the_others_leave_their_collective_at_once(ranks, tmp_path, can_continue):
    of = plan(num_train=320, total_examples=3200)
    arguments = of, policy(of), images(320, 50), str(tmp_path / "run"), can_continue
    (one, left_at), (other, failed_at) = ranks.run(two_ranks, 2, *arguments)
    assert one == other
    assert re.match(
        r"ValueError: my own loss is wrong \(.*test_failures\.py, line \d+, in loss; rank 1\)", one["reason"]
    )
    assert abs(left_at - failed_at) < 10, "not after the 60 s of a collective's deadline"


def test_a_group_is_over_for_those_who_watch_it_once_the_run_has_failed():
    async def story() -> None:
        hub = Hub()
        watching = asyncio.create_task(hub.broken(0))
        await asyncio.sleep(0)
        assert not watching.done()
        await hub.end({"status": "failed", "reason": "ValueError"})
        await asyncio.wait_for(watching, 5)
        assert (await hub.ended() or {})["reason"] == "ValueError"

    asyncio.run(story())


def test_a_trial_that_fails_ends_the_population():
    async def story() -> None:
        hubs = Hubs(["a", "b"])
        await hubs.open([{"name": "a"}, {"name": "b"}])
        waiting = asyncio.create_task(hubs.decision("b", 1))
        await hubs.fail("a", {"status": "failed", "reason": "first"})
        await hubs.fail("a", {"status": "failed", "reason": "of its other rank"})
        await asyncio.wait_for(waiting, 5)
        assert await hubs.call("a", "ended") == await hubs.failed() == {"status": "failed", "reason": "first"}
        assert await hubs.call("b", "ended") is None, "it stops with a checkpoint"
        assert [type(one).__name__ for one in await hubs.call("b", "orders_after", 0)] == ["StopOrder"]
        news, is_over = await hubs.news_after(0, 0.0)
        assert len(news) == 1
        assert not is_over
        await hubs.call("b", "end", {"status": "stopped"})
        assert (await hubs.news_after(0, 0.0))[1]

    asyncio.run(story())


def test_an_error_before_any_trial_ends_all_that_wait_for_it():
    async def story() -> None:
        hubs = Hubs(["a"])
        await hubs.open([{"name": "a"}])
        await hubs.fail(None, {"status": "failed", "reason": "no data"})
        assert (await hubs.call("a", "ended"))["reason"] == "no data"

    asyncio.run(story())


def test_failure_txt_has_the_reason_and_the_traceback_and_the_result_one_line(tmp_path):
    folder = LocalFolder(tmp_path)
    failed = {
        "status": "failed",
        "reason": "ValueError: x (m.py, line 3)",
        "traceback": "Traceback:\n  m.py\nValueError: x",
    }
    write_failure(folder, failed)
    assert without_traceback(failed) == {"status": "failed", "reason": "ValueError: x (m.py, line 3)"}
    text = "ValueError: x (m.py, line 3)\n\nTraceback:\n  m.py\nValueError: x\n"
    assert folder.read_bytes("failure.txt").decode() == text
    assert without_traceback({"status": "complete"}) == {"status": "complete"}


def test_every_start_but_the_first_is_counted_as_a_restart(tmp_path):
    kinds = ["start", "start", "checkpoint", "restart", "rejoin"]
    rows = [{"time": 1.0, "position": 0, "kind": kind} for kind in kinds]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _counts(LocalFolder(tmp_path)) == {
        "restarts": 2,
        "rejoins": 1,
        "resizes": 0,
        "rollbacks": 0,
        "corruptions": 0,
    }
