"""The scaling rules, and Adam's settings under the SDE rule."""

import pytest

from raylr.errors import ConfigError
from raylr.lr import KNOWN_RANGE, SCALING_RULES, rule, scaled_betas_eps


@pytest.mark.parametrize(
    ("name", "at_4", "at_quarter"),
    [("none", 1.0, 1.0), ("linear", 4.0, 0.25), ("sqrt", 2.0, 0.5), ("legw", 2.0, 0.5), ("sde", 2.0, 0.5)],
)
def test_rules(name: str, at_4: float, at_quarter: float) -> None:
    assert (rule(name, 4), rule(name, 0.25), rule(name, 1)) == (at_4, at_quarter, 1.0)


def test_every_rule_has_a_known_range() -> None:
    assert set(KNOWN_RANGE) == set(SCALING_RULES) == {"none", "linear", "sqrt", "legw", "sde", "adascale"}
    assert KNOWN_RANGE["linear"].max_k == 8192 / 256  # Goyal et al. 2017


@pytest.mark.parametrize(
    ("name", "k", "message"),
    [
        ("liner", 2.0, r"lr\.scaling=liner is unknown; use linear"),
        ("linear", 0.0, r"k=0\.0, global batch / reference batch must be above 0"),
        ("linear", float("inf"), "k=inf, .* must be above 0"),
    ],
)
def test_refused_rules(name: str, k: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(name, k)


def test_sde_rule_changes_betas_and_eps() -> None:
    assert scaled_betas_eps(4, (0.9, 0.999), 1e-8, "lr.scaling") == ((0.6, 0.996), 5e-9)
    assert scaled_betas_eps(0.25, (0.9, 0.996), 1e-8, "lr.scaling") == ((0.975, 0.999), 2e-8)
    assert scaled_betas_eps(1, (0.9, 0.999), 1e-8, "lr.scaling") == ((0.9, 0.999), 1e-8)


@pytest.mark.parametrize(
    ("k", "betas", "message"),
    [
        (10, (0.9, 0.999), r"optimizers\.a: beta1=0\.9 under the sde rule at k = 10 becomes 0, .* batch below 10 x"),
        (16, (0.95, 0.9), r"beta2=0\.9 under the sde rule at k = 16 becomes -0\.6, which is not above 0"),
    ],
)
def test_sde_rule_refuses_an_average_without_memory(k: float, betas: tuple[float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scaled_betas_eps(k, betas, 1e-8, "optimizers.a")
