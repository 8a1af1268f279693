"""Noise is read off repeats, shared between metrics as far as they agree, and never made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import polygamma

from mixopt.core.trial_table import TrialTable
from mixopt.surrogates.noise import Noise, _inverse_trigamma, measure, squeeze

Q = 8
METRICS = tuple(f"m{j}" for j in range(Q))


def table(
    mixtures: int,
    repeats: dict[int, int],
    noise: np.ndarray,
    seed: int = 0,
    slope: float = 0.0,
) -> TrialTable:
    """`mixtures` trials over 3 domains with `repeats` further seeds of some of them."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), mixtures)
    rows = [*range(mixtures), *(i for i, n in repeats.items() for _ in range(n))]
    scale = np.linspace(0.5, 2.0, Q)
    mean = scale * (2 + weights[rows] @ np.array([[0.0], [0.5], [1.0]]))
    z = (mean - mean[:mixtures].mean(axis=0)) / mean[:mixtures].std(axis=0)
    scatter = noise * np.exp(slope * z) * rng.normal(size=mean.shape)
    ones = np.ones(len(rows))
    return TrialTable(
        ("a", "b", "c"), METRICS, weights[rows], mean + scatter, ones, ones, np.arange(len(rows))
    )


def test_many_repeats_give_the_deviation_of_each_metric() -> None:
    noise = np.geomspace(0.01, 0.1, Q)
    result = measure(table(10, {0: 100, 3: 100}, noise))
    assert set(result.freedom.values()) == {200}
    assert [result.std[k] for k in METRICS] == pytest.approx(noise, rel=0.15)
    assert result.slope == 0.0


def test_variances_are_pooled_over_mixtures_as_the_textbook_does() -> None:
    values = np.array([[1.0], [1.2], [3.0], [3.1], [3.5], [5.0]])
    weights = np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3 + [[0.5, 0.5]])
    ones = np.ones(6)
    result = measure(TrialTable(("a", "b"), ("m",), weights, values, ones, ones, np.arange(6)))
    pooled = (1 * np.var([1.0, 1.2], ddof=1) + 2 * np.var([3.0, 3.1, 3.5], ddof=1)) / 3
    assert result.raw["m"] == pytest.approx(np.sqrt(pooled))
    assert result.std == result.raw  # one metric has none to learn from
    assert result.freedom == {"m": 3}


@pytest.mark.parametrize("repeats", [{}, {0: 1}])
def test_too_few_repeats_say_nothing(repeats: dict[int, int]) -> None:
    assert measure(table(6, repeats, np.full(Q, 0.05))) == Noise()


def test_equal_mixtures_at_other_fidelities_and_points_of_a_curve_are_no_repeats() -> None:
    weights = np.tile([[0.5, 0.5]], (4, 1))
    values = np.array([[3.0], [2.0], [1.0], [2.5]])
    tokens = np.array([1.0, 2.0, 4.0, 2.0])
    runs = np.array([0, 0, 0, 1])  # one curve of three points, and a shorter run
    result = TrialTable(("a", "b"), ("m",), weights, values, np.ones(4), tokens, np.arange(4), runs)
    assert measure(result) == Noise()


def test_a_metric_that_some_runs_lack_is_judged_by_those_that_have_it() -> None:
    full = table(6, {0: 5}, np.full(Q, 0.05))
    values = full.values.copy()
    values[6:, 0] = np.nan  # never repeated
    values[7, 1] = np.nan
    result = measure(
        TrialTable(
            full.domains, METRICS, full.weights, values, full.params, full.tokens, full.seeds
        )
    )
    assert "m0" not in result.std
    assert result.freedom["m1"] == 4
    assert result.freedom["m2"] == 5


def test_few_repeats_of_many_metrics_are_nearer_to_the_truth_than_each_alone() -> None:
    noise = np.linspace(0.5, 2.0, Q) * 0.05  # the same share of every metric's spread
    errors = []
    for seed in range(40):
        result = measure(table(8, {0: 2}, noise, seed))
        errors.append(
            [
                [np.log(s[k] / n) for k, n in zip(METRICS, noise, strict=True)]
                for s in (result.std, result.raw)
            ]
        )
    shrunk, alone = np.abs(np.array(errors)).mean(axis=(0, 2))
    assert shrunk < 0.55 * alone


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.0), st.integers(1, 20))
def test_shrinking_draws_variances_together_and_keeps_their_order(
    seed: int, spread: float, d: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = np.exp(spread * rng.normal(size=9))
    shrunk = squeeze(raw, np.full(9, float(d)))
    assert (np.diff(shrunk[np.argsort(raw)]) >= -1e-12).all()
    assert np.ptp(np.log(shrunk)) <= np.ptp(np.log(raw)) + 1e-9


@pytest.mark.parametrize("value", [1e-4, 0.01, 0.5, 3.0, 1e4])
def test_trigamma_is_inverted(value: float) -> None:
    assert polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-8)


def test_scatter_that_grows_with_the_loss_is_noticed() -> None:
    repeats = dict.fromkeys(range(8), 12)
    grows = measure(table(12, repeats, np.full(Q, 0.02), slope=0.8))
    assert grows.slope == pytest.approx(0.8, abs=0.25)
    low, high = grows.centre["m0"] - grows.spread["m0"], grows.centre["m0"] + grows.spread["m0"]
    assert grows.at("m0", high) > 2 * grows.at("m0", low)


def test_scatter_that_does_not_grow_is_seldom_said_to() -> None:
    repeats = dict.fromkeys(range(4), 4)
    result = [measure(table(8, repeats, np.full(Q, 0.02), seed)).slope for seed in range(40)]
    assert np.mean([slope != 0 for slope in result]) < 0.15


def test_repeats_of_one_mixture_cannot_tell_whether_scatter_grows() -> None:
    result = measure(table(8, {0: 20}, np.full(Q, 0.02), slope=1.0))
    assert (result.slope, result.slope_error) == (0.0, np.inf)
    assert result.at("m0", result.centre["m0"] + 5) == pytest.approx(result.std["m0"])
