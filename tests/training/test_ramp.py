"""A batch that follows the position: the same bits at any number of workers, also where some have nothing to do yet."""

import shutil

from raylr.lr import Ramp, ramp_of_policy
from raylr.reporting.runs import explain_step
from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from tests.training.runs import plan, policy, train
from tests.training.test_same_bits import DATA, hashes, rows

RAMP = ((0, 8), (40, 16), (90, 32))  # one, two and four micro-batches of 8
STARTS = [0, 8, 16, 24, 32, 40, 56, 72, 88, 104, 136, 168]


def test_a_ramp_gives_the_same_bits_at_1_2_3_and_4_workers_and_after_a_resume_at_another(ranks, tmp_path):
    of = plan(ramp=RAMP, total_examples=200, checkpoint_every=8, checkpoint_keep=99)
    found = {size: hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 3, 4)}
    assert len(set(found.values())) == 1
    ledgers = [rows(tmp_path / str(size), "ledger.jsonl", ("world_size",)) for size in found]
    assert ledgers[0] == ledgers[1] == ledgers[2] == ledgers[3]
    assert [row["global_batch"] for row in ledgers[0]] == [8] * 5 + [16] * 4 + [32] * 3
    assert [row["position"] for row in ledgers[0]] == STARTS
    peaks = {row["global_batch"]: row["factors"]["main"]["peak"] for row in ledgers[0]}
    assert peaks == {8: 0.025, 16: 0.05, 32: 0.1}  # linear: 0.05 at 16
    shutil.copytree(tmp_path / "3", tmp_path / "again")
    kept = [int(name) for name in names(LocalFolder(tmp_path / "again"))]
    early = max(position for position in kept if position <= 104)  # before the last step has begun to count
    for path in (tmp_path / "again" / "checkpoints").iterdir():
        if int(path.stem) > early:
            path.unlink()
    assert hashes(ranks, 2, tmp_path / "again", of) == found[1]
    assert rows(tmp_path / "again", "ledger.jsonl", ("world_size",)) == ledgers[0]


def test_ddp_follows_a_ramp_too(ranks, tmp_path):
    of = plan(ramp=((0, 16), (64, 32)), reduce="ddp")
    ranks.run(train, 2, of, policy(of), DATA, str(tmp_path))
    assert [row["global_batch"] for row in rows(tmp_path, "ledger.jsonl")] == [16] * 4 + [32] * 3


def test_a_seesaw_doubles_the_batch_where_its_shape_would_halve_the_lr(ranks, tmp_path):
    lr = policy(plan(total_examples=192), "seesaw(linear, doublings=2)", 0, base_lr=0.05, scaling="none")
    ramp = ramp_of_policy(lr, 8)
    assert ramp == Ramp(((0, 8), (96, 16), (144, 32)))
    of = plan(ramp=ramp.phases, total_examples=192)
    assert hashes(ranks, 1, tmp_path / "1", of, lr) == hashes(ranks, 3, tmp_path / "3", of, lr)
    ledger = rows(tmp_path / "3", "ledger.jsonl")
    lrs = {row["global_batch"]: row["lr"]["main"] for row in ledger if row["position"] in (0, 96, 144)}
    assert lrs == {8: 0.05, 16: 0.05 * 0.5**0.5, 32: 0.025}
    folder = LocalFolder(tmp_path / "3")
    folder.write_json("plan.json", of.model_dump(mode="json"))
    folder.write_bytes("policy.json", lr.to_json().encode())
    (step,) = [row["step"] for row in ledger if row["position"] == 112]
    told = explain_step(folder, step)
    assert (
        "the batch follows the position: 16 since epoch 1.067, 32 from epoch 1.6 on (step 2 of 3 of its ramp)" in told
    )
    assert "as the policy says, to the last bit" in told
    assert "shape     0.707107: seesaw(linear, doublings=2)" in told


def stopped_by_rank_0(place, size, port, run_dir):
    """One rank of a run whose only order, to stop, is known to rank 0 alone, from the first update on."""
    import torch

    from raylr.events import StopOrder
    from raylr.training.group import connect, form_group, listen
    from raylr.training.loop import Loop
    from raylr.training.membership import Plain
    from raylr.training.trainer import Trainer

    class Ordered(Plain):
        def has_orders(self) -> bool:
            return place == 0

        def orders(self, since: int) -> list:
            return [StopOrder(number=1)]

    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0)
    folder = LocalFolder(run_dir)
    if place == 0:
        folder.create()
    of = plan(ramp=RAMP, total_examples=200)
    return Loop(Trainer(of, policy(of), DATA), Ordered(group), folder).run()


def test_an_order_that_a_waiting_worker_knows_of_is_carried_out_at_once(ranks, tmp_path):
    """Rank 0 of two has no micro-batch while an update has one, and is the writer, which orders reach first."""
    results = ranks.run(stopped_by_rank_0, 2, tmp_path / "run")
    assert [(one["status"], one["position"]) for one in results] == [("stopped", 8)] * 2
