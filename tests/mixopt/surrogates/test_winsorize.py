"""Outliers are winsorized for the model and inverted for the reader."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mixopt.core.trial_table import TrialTable
from mixopt.surrogates import make
from mixopt.surrogates.winsorize import REACH, Winsorizer


@given(arrays(float, (20, 2), elements=st.floats(-50, 50)))
def test_order_is_kept_and_what_is_near_the_median_is_not_touched(values: np.ndarray) -> None:
    winsorizer = Winsorizer.of(values)
    drawn = winsorizer.apply(values)
    for column in range(2):
        order = np.argsort(values[:, column], kind="stable")
        assert (np.diff(drawn[order, column]) >= -1e-9).all()
    near = np.abs(values - winsorizer.centre) / winsorizer.scale <= REACH
    np.testing.assert_allclose(drawn[near], values[near])


def test_where_most_values_are_equal_but_for_rounding_nothing_is_winsorized() -> None:
    values = np.full((20, 1), 2.2e-308)
    values[::2] = 0.0
    values[3] = 50.0
    assert np.array_equal(Winsorizer.of(values).apply(values), values)


def test_winsorized_values_are_inverted_to_what_they_were() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    values[0] = 40.0
    values[1] = -25.0
    winsorizer = Winsorizer.of(values)
    drawn = winsorizer.apply(values)
    assert np.abs(drawn).max() < 12
    mean, std = winsorizer.invert(drawn, np.ones_like(drawn))
    np.testing.assert_allclose(mean, values, rtol=1e-9)
    assert (std[:2] > 10).all()  # where the scale is stretched, so is the deviation


def test_one_hopeless_trial_does_not_blur_the_others() -> None:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(4), 16)
    smooth = 3 + (weights @ np.array([0.0, 0.3, 0.6, 0.9]))[:, None]
    weights[0], smooth[0] = (0, 0, 0, 1), 9.0

    def error(values: np.ndarray, mixtures: np.ndarray) -> float:
        fixed = np.full(len(mixtures), 1e9)
        table = TrialTable(
            ("a", "b", "c", "d"), ("bpb/t",), mixtures, values, fixed, fixed, fixed.astype(int)
        )
        test = np.random.default_rng(3).dirichlet(np.full(4, 3.0), 200)
        predicted = make("gp", seed=0).fit(table).predict(test).mean[:, 0]
        return float(np.abs(predicted - 3 - test @ np.array([0.0, 0.3, 0.6, 0.9])).mean())

    assert error(smooth, weights) < 2 * error(smooth[1:], weights[1:]) + 0.01
