import pytest
import torch

from raylr.training.seeding import seed_generators

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5, 2**64 - 1])
def test_random_numbers_after_a_seed_are_those_of_torchs_own(name, seed):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no card")
    device, found = torch.device(name), []
    for seeded in (torch.manual_seed, lambda seed: seed_generators(device, seed)):
        torch.rand(3, device=device)
        seeded(seed)
        found.append((torch.rand(5).tolist(), torch.rand(5, device=device).tolist()))
    assert found[0] == found[1]
