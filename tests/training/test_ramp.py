"""A batch that follows the position: the same bits at any number of workers, also where some have nothing to do yet."""

from tests.training.runs import plan
from tests.training.test_same_bits import hashes, rows

RAMP = ((0, 8), (40, 16), (90, 32))  # one, two and four micro-batches of 8


def test_a_ramp_gives_the_same_bits_at_1_2_3_and_4_workers(ranks, tmp_path):
    of = plan(ramp=RAMP, total_examples=200)
    found = {size: hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 3, 4)}
    assert len(set(found.values())) == 1
    ledgers = [rows(tmp_path / str(size), "ledger.jsonl", ("world_size",)) for size in found]
    assert ledgers[0] == ledgers[1] == ledgers[2] == ledgers[3]
    assert [row["global_batch"] for row in ledgers[0]] == [8] * 5 + [16] * 4 + [32] * 3
    assert [row["position"] for row in ledgers[0]] == [0, 8, 16, 24, 32, 40, 56, 72, 88, 104, 136, 168]
    peaks = {row["global_batch"]: row["factors"]["main"]["peak"] for row in ledgers[0]}
    assert peaks == {8: 0.025, 16: 0.05, 32: 0.1}  # linear: 0.05 at 16
