"""The plain DDP path: the loss and the first update are the tree's, but for rounding."""

import pytest

from tests.ranks import Ranks
from tests.training.runs import first_update, images, plan, policy

DATA = images(90, 50)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("size", [1, 2])
def test_the_first_update_of_ddp_is_that_of_the_tree(ranks: Ranks, size: int, clip_norm: float | None) -> None:
    """One micro-batch a rank, so that BatchNorm and dropout see the same examples on both paths."""
    of = plan(micro_size=32 // size, clip_norm=clip_norm)
    tree, ddp = (
        ranks.run(first_update, size, of.model_copy(update={"reduce": reduce}), policy(of), DATA)
        for reduce in ("tree", "ddp")
    )
    (loss, num_correct, weights), (ddp_loss, ddp_num_correct, ddp_weights) = tree[0], ddp[0]
    assert ddp_loss == pytest.approx(loss, rel=1e-5)
    assert 0.5 < loss < 2.0  # of three classes: ln 3 = 1.1 at the start
    assert ddp_num_correct == num_correct
    for name, values in weights.items():
        assert ddp_weights[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert all(other[2] == ddp_weights for other in ddp)
