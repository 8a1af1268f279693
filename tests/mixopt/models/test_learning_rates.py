import math

import pytest

from mixopt.models.config import ModelConfig
from mixopt.models.learning_rates import advised_peak_rate, is_extrapolated

LARGE = ModelConfig(width=1024, layers=12, heads=16, experts=8, expert_width=2048)


def test_the_rate_is_that_of_the_law() -> None:
    active = LARGE.active_params()
    assert active == 12 * (4 * 1024**2 + 2 * 3 * 1024 * 2048 + 1024 * 8 + 2 * 1024) + 1024
    expected = math.e**8.39 * active**-0.81 * 8**-0.25
    assert advised_peak_rate(LARGE) == pytest.approx(expected)
    assert 1e-4 < expected < 1e-3


def test_dense_models_take_one_expert_and_small_ones_are_called_extrapolated() -> None:
    dense = LARGE.as_dense()
    ratio = advised_peak_rate(dense) / advised_peak_rate(LARGE)
    assert ratio == pytest.approx(8**0.25 * (LARGE.active_params() / dense.active_params()) ** 0.81)
    assert not is_extrapolated(LARGE)
    assert is_extrapolated(ModelConfig())
