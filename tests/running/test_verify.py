"""Verify a real run: sound ones at several numbers of workers, and three that somebody has tampered with. No Ray."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.resolve import resolve
from raylr.running.job import identity
from raylr.running.verify import Verified, verify
from raylr.training.data import load, prepare
from tests.ranks import Ranks
from tests.training.runs import train

FIELDS = {
    "data.source": "synthetic", "data.train_examples": "240", "data.test_examples": "50", "epochs": "3",
    "batch.global_size": "48", "batch.micro_size": "16", "checkpoint.every": "1ep", "eval.every": "3ep",
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 15 updates by two workers, with checkpoints at 240, 480 and 720."""
    where = tmp_path_factory.mktemp("verified")
    config = load_config(None, {**FIELDS, "data.cache_dir": str(where / "cache"), "storage": str(where)})
    info = prepare(config.data)
    plan, policy = resolve(config, info, Hardware(bf16=False, num_gpus=0))
    result = ranks.run(train, 2, plan, policy, load(config.data), str(where / "sound"))[0]
    files = {
        "config.json": config.record(), "plan.json": plan.model_dump(mode="json"), "policy.json": json.loads(policy.to_json()),
        "result.json": {**identity(plan, policy, info), **result},
    }  # fmt: skip
    for name, content in files.items():
        (where / "sound" / name).write_text(json.dumps(content))
    return where / "sound"


def change(path: Path, by: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(by(json.loads(path.read_text()))))


def change_row(run: Path, step: int, **fields: Any) -> None:
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    rows[step].update(fields)
    (run / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


def whole(run: Path, **more: Any) -> Verified:
    return verify(str(run), part="100%", **more)


def test_a_sound_run_is_verified_by_another_number_of_workers(sound: Path):
    heard: list[tuple[int, int]] = []
    found = whole(sound, tell=lambda done, total: heard.append((done, total)))
    assert found.difference is None
    assert (found.num_updates, found.num_replayed, found.workers, found.had_workers) == (15, 15, 1, (2,))
    assert sorted(found.intervals) == [(0, 240), (240, 480), (480, 720)]
    assert heard == [(done, 15) for done in range(1, 16)]


def test_three_plain_processes_replay_one_interval_that_is_drawn(sound: Path):
    found = verify(str(sound), workers=3)
    assert found.difference is None
    assert found.num_replayed == 5
    assert found.intervals[0] in [(0, 240), (240, 480), (480, 720)]


def test_a_share_of_the_run_ends_in_the_middle_of_an_interval(sound: Path):
    found = verify(str(sound), part="20%")
    ((start, stop),) = found.intervals
    assert (found.num_replayed, stop - start) == (3, 3 * 48)


@pytest.mark.parametrize("field", ["loss", "grad_norm"])
def test_a_forged_row_is_found_by_its_replay(copy: Path, field: str):
    change_row(copy, 7, **{field: 0.5})
    found = whole(copy).difference
    assert found is not None
    assert (found.step, found.position, found.what, found.there) == (7, 7 * 48, field, "0.5")
    assert float(found.replayed) != 0.5


def test_a_forged_lr_is_found_without_a_replay(copy: Path):
    change_row(copy, 7, lr={"sgd": 0.5})
    found = verify(str(copy))
    assert found.difference is not None
    assert (found.difference.step, found.difference.what, found.num_replayed) == (7, "lr.sgd", 0)


def test_a_row_that_is_cut_out_is_found(copy: Path):
    lines = (copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (copy / "ledger.jsonl").write_text("".join(lines[:4] + lines[5:]))
    found = verify(str(copy)).difference
    assert found is not None
    assert (found.step, found.what, found.there, found.replayed) == (4, "step", "5", "4")


@pytest.mark.parametrize("part", ["model", "optimizers"])
def test_a_flipped_bit_under_a_mended_checksum_is_found(copy: Path, part: str):
    path = copy / "checkpoints" / "000000000480.pt"
    state = torch.load(path, weights_only=True)
    of_optimizer = state["optimizers"]["sgd"]["head.weight"]["momentum_buffer"]
    tensor = state["model"]["head.weight"] if part == "model" else of_optimizer
    tensor.view(torch.int32).flatten()[0] ^= 1 << 20
    torch.save(state, path)
    change(path.with_suffix(".json"), lambda note: {**note, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    found = whole(copy).difference
    assert found is not None
    assert found.step in (9, 10)  # the update before it or after it, whichever interval is drawn first
    assert found.step == 10 or found.what.startswith(f"the checkpoint after it, {part}/")


def test_a_changed_policy_file_is_found_in_the_first_update_that_it_changes(copy: Path):
    def double(policy: dict) -> dict:
        policy["schedules"][0]["base_lr"] *= 2
        return policy

    change(copy / "policy.json", double)
    found = verify(str(copy)).difference
    assert found is not None
    assert (found.step, found.what) == (0, "factors.sgd.peak")
    assert float(found.replayed) == 2 * float(found.there)


def test_a_policy_that_only_the_result_knows_to_be_another_is_found(copy: Path):
    change(copy / "policy.json", lambda policy: {**policy, "schedules": [{**policy["schedules"][0], "match": "*e*,*"}]})
    found = verify(str(copy)).difference
    assert found is not None
    assert found.what == "policy.json against policy_sha256 of result.json"


def test_other_versions_are_refused_unless_one_wants_it_anyway(copy: Path):
    change(copy / "result.json", lambda result: {**result, "versions": {**result["versions"], "torch": "1.0"}})
    with pytest.raises(ConfigError, match=r"torch was 1\.0 and is .*: a difference would prove nothing; .*--anyway"):
        verify(str(copy))
    found = verify(str(copy), part="1%", anyway=True)
    assert found.difference is None
    assert found.doubts[0].startswith("torch was 1.0 and is ")


def test_another_processor_is_refused(copy: Path):
    change(copy / "result.json", lambda result: {**result, "processor": "Z80"})
    with pytest.raises(ConfigError, match="the processor was Z80 and is "):
        verify(str(copy))


def test_a_run_without_its_checkpoints_is_refused(copy: Path):
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(ConfigError, match="has no whole checkpoint left to compare with"):
        verify(str(copy))


def test_a_run_that_has_not_ended_is_refused(copy: Path):
    (copy / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"no result\.json says on what it was trained"):
        verify(str(copy))


def test_a_damaged_checkpoint_is_named_and_not_compared(copy: Path):
    path = copy / "checkpoints" / "000000000480.pt"
    path.write_bytes(path.read_bytes()[:-1])
    found = verify(str(copy), part="1%")
    assert found.doubts == ("checkpoint 000000000480 is damaged",)


def test_other_data_are_refused(copy: Path):
    change(copy / "config.json", lambda config: {**config, "data": {**config["data"], "train_examples": 250}})
    with pytest.raises(ConfigError, match=r"data\.source=synthetic has the SHA-256 .* where its data are"):
        verify(str(copy))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"part": "7"}, "part=7 is no share of the run; use 1%"),
        ({"part": "0%"}, "part=0% is no share of the run"),
        ({"workers": 4}, "workers=4 must be from 1 to the 3 micro-batches of an update"),
    ],
)
def test_what_cannot_be_replayed_is_refused(sound: Path, asked: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        verify(str(sound), **asked)


def test_a_run_whose_bits_follow_the_workers_is_refused(copy: Path):
    change(copy / "plan.json", lambda plan: {**plan, "reduce": "ddp"})
    with pytest.raises(ConfigError, match=r"batch\.reduce=ddp, whose bits depend on the workers"):
        verify(str(copy))
