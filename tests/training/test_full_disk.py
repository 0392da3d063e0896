"""A disk without room for checkpoints: the run says so, ends as failed, and goes on once there is room."""

import json
from pathlib import Path

from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from tests.training.runs import images, plan, policy, train

DATA = images(90, 50)


def kinds(run_dir: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_a_run_on_a_full_disk_has_failed_with_the_reason_and_goes_on_with_room(ranks, tmp_path, small_disk):
    of = plan(stall_s=4.0)
    path, enlarge = small_disk
    (expected,) = {one["weights_sha256"] for one in ranks.run(train, 2, of, policy(of), DATA, str(tmp_path / "plain"))}
    assert kinds(tmp_path / "plain").count("checkpoint") == len(names(LocalFolder(tmp_path / "plain")))
    run_dir = path / "run"
    for failed in ranks.run(train, 2, of, policy(of), DATA, str(run_dir)):
        assert failed["status"] == "failed"
        assert "at position 160 was not written: [Errno 28] No space left on device" in failed["reason"]
        assert failed["reason"].endswith("with room for it the same command goes on from its start")
    assert kinds(run_dir) == ["start", "failure"]
    assert names(LocalFolder(run_dir)) == []
    enlarge("50m")
    for complete in ranks.run(train, 2, of, policy(of), DATA, str(run_dir)):
        assert (complete["status"], complete["weights_sha256"]) == ("complete", expected)
    assert kinds(run_dir)[-2:] == ["checkpoint", "finish"]
    assert names(LocalFolder(run_dir))[-1] == "000000000160"
