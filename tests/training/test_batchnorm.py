"""Running statistics move once an update, by the mean over its micro-batches, checked by numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from raylr.training.batchnorm import RunningStatistics


def pass_micro_batches(model: nn.Module, statistics: RunningStatistics, batches: list[torch.Tensor]) -> None:
    read = []
    for batch in batches:
        model(batch)
        out = torch.zeros(statistics.length)
        statistics.read(out)
        read.append(out)
    statistics.move(torch.stack(read).mean(0))


@pytest.mark.parametrize(("momentum", "expected_momentum"), [(0.1, 0.1), (None, 1.0)])
def test_statistics_move_by_the_mean_of_means_and_unbiased_variances(momentum, expected_momentum):
    model = nn.BatchNorm1d(3, momentum=momentum)
    statistics = RunningStatistics(model)
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    pass_micro_batches(model, statistics, batches)
    means = np.mean([batch.numpy().mean(0) for batch in batches], 0)
    variances = np.mean([batch.numpy().var(0, ddof=1) for batch in batches], 0)
    m = expected_momentum
    np.testing.assert_allclose(model.running_mean.numpy(), m * means, rtol=1e-5)
    np.testing.assert_allclose(model.running_var.numpy(), (1 - m) + m * variances, rtol=1e-5)
    assert int(model.num_batches_tracked) == 1


def test_an_update_that_broke_leaves_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    statistics = RunningStatistics(model)
    model(torch.randn(8, 3))
    statistics.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_evaluation_uses_the_running_statistics_not_the_last_micro_batch():
    model = nn.BatchNorm1d(3)
    statistics = RunningStatistics(model)
    pass_micro_batches(model, statistics, [torch.zeros(4, 3), torch.full((4, 3), 2.0)])
    model.eval()
    torch.testing.assert_close(model.running_mean, torch.full((3,), 0.1))
