"""Power laws recover what made the data, and predict what was held out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from mixopt.core.errors import SurrogateError
from mixopt.surrogates.fidelity.extrapolation import extrapolate, recent
from mixopt.surrogates.fidelity.power_laws import SIZES, STEPS, fit_laws


def generated(
    exponents: tuple[float, ...],
    places: np.ndarray,
    curves: int = 12,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, values, curve of each point, and floors and slopes (q, c) of E + B x^-b."""
    rng = np.random.default_rng(seed)
    q = len(exponents)
    floor = 2.0 + 0.3 * rng.normal(size=(q, curves))
    slope = 3.0 * np.exp(0.15 * rng.normal(size=(q, curves)))
    curve = np.repeat(np.arange(curves), len(places))
    x = np.tile(places, curves)
    values = np.stack(
        [floor[k][curve] + slope[k][curve] * x**-b for k, b in enumerate(exponents)], axis=1
    )
    return x, values + noise * rng.normal(size=values.shape), curve, floor, slope


def test_exponents_floors_and_slopes_are_recovered() -> None:
    x, values, curve, floor, slope = generated((0.25, 0.5), np.geomspace(1, 300, 12), noise=1e-3)
    law = fit_laws(x, values, curve, SIZES)
    np.testing.assert_allclose(law.exponent, [0.25, 0.5], rtol=0.12)
    mean, *_ = law.predict(3000.0)
    truth = floor + slope * 3000.0 ** -np.array([[0.25], [0.5]])
    fall = slope * (300.0 ** -np.array([[0.25], [0.5]]) - 3000.0 ** -np.array([[0.25], [0.5]]))
    assert np.abs(mean.T - truth).mean() < 0.1 * fall.mean()  # the grid of b has steps of a tenth


def test_many_points_give_the_least_squares_fit_of_each_curve() -> None:
    # naive reference: every curve alone, by non-negative least squares at the true exponent
    x, values, curve, _, _ = generated((0.4,), np.geomspace(1, 100, 40), curves=6, noise=0.01)
    mean, *_ = fit_laws(x, values, curve, SIZES).predict(50.0)
    for c in range(6):
        rows = curve == c
        design = np.stack([np.ones(40), x[rows] ** -0.4], axis=1)
        alone, _ = nnls(design, values[rows, 0])
        assert mean[c, 0] == pytest.approx(alone @ [1, 50.0**-0.4], abs=0.006)


def test_intervals_of_extrapolations_hold_what_they_claim() -> None:
    within = []
    for seed in range(12):
        x, values, curve, floor, slope = generated(
            (0.3, 0.3, 0.45), np.geomspace(1, 30, 8), noise=0.01, seed=seed
        )
        result = extrapolate(x, values, curve, 120.0, STEPS)
        truth = (floor + slope * 120.0 ** -np.array([[0.3], [0.3], [0.45]])).T
        within.append(np.abs(result.mean - truth) < 1.645 * np.hypot(result.own, result.shared))
    assert 0.8 <= np.mean(within) <= 1.0


def test_a_curve_of_one_point_follows_the_others() -> None:
    x, values, curve, floor, slope = generated((0.3,), np.geomspace(1, 30, 6), noise=1e-3)
    keep = (curve != 0) | (x == 1)
    mean, own, *_ = fit_laws(x[keep], values[keep], curve[keep], SIZES).predict(30.0)
    truth = floor[0, 0] + slope[0, 0] * 30.0**-0.3
    last = values[(curve == 0) & (x == 1), 0]
    # the floor and the slope of one point cannot be told apart, but most of the fall is common
    assert abs(mean[0, 0] - truth) < 0.3 * abs(last[0] - truth)
    assert own[0, 0] > 3 * own[1:, 0].max()


@pytest.mark.parametrize(("low", "high"), [(30, 4), (200, 20)])
def test_two_places_without_a_curve_in_common_still_tell_the_fall(low: int, high: int) -> None:
    rng = np.random.default_rng(0)
    levels = 0.25 * rng.normal(size=low + high)
    x = np.repeat([1e6, 1e9], [low, high])
    values = (levels + np.where(x > 1e6, 1.0, 2.0))[:, None]
    mean, _, bent, shifted = fit_laws(x, values, np.arange(low + high), SIZES).predict(1e9)
    error = (mean[:low, 0] - levels[:low] - 1.0).mean()
    # drawn to the mean of its curves, 80 steps of EM left .41 and .11 of the fall of 1
    assert abs(error) < 0.05
    assert 0.1 < abs(shifted[:low].mean()) / (0.25 / np.sqrt(high)) < 3
    assert (shifted > bent).all()


def test_two_points_a_curve_leave_the_exponent_open_and_say_so() -> None:
    x, values, curve, _, _ = generated((0.3,), np.array([1.0, 2.0]))
    closed = generated((0.3,), np.array([1.0, 2.0, 4.0]))
    _, _, open_shared, _ = fit_laws(x, values, curve, SIZES).predict(8.0)
    _, _, told_shared, _ = fit_laws(*closed[:3], SIZES).predict(8.0)
    assert open_shared.mean() > 3 * told_shared.mean()


def test_the_noise_of_points_is_found() -> None:
    x, values, curve, _, _ = generated((0.3, 0.5), np.geomspace(1, 30, 12), noise=0.03)
    np.testing.assert_allclose(fit_laws(x, values, curve, SIZES).noise, 0.03, rtol=0.2)


def test_one_broken_point_does_not_bend_the_law() -> None:
    x, values, curve, floor, slope = generated((0.3,), np.geomspace(1, 30, 12), noise=1e-3)
    values[5] += 2.0
    mean, *_ = fit_laws(x, values, curve, STEPS).predict(60.0)
    assert np.abs(mean[:, 0] - floor[0] - slope[0] * 60.0**-0.3).mean() < 0.05


def test_missing_points_and_metrics_are_left_out() -> None:
    x, values, curve, floor, slope = generated((0.3, 0.3), np.geomspace(1, 30, 8), noise=1e-3)
    values[::5, 0] = np.nan
    values[curve == 3, 1] = np.nan
    mean, *_ = fit_laws(x, values, curve, SIZES).predict(60.0)
    assert np.isnan(mean[3, 1])
    assert np.isfinite(np.delete(mean, 3, axis=0)).all()
    assert np.abs(mean[:, 0] - floor[0] - slope[0] * 60.0**-0.3).max() < 0.05


def test_scores_that_rise_are_as_good_as_losses_that_fall() -> None:
    x, values, curve, _, _ = generated((0.3, 0.5), np.geomspace(1, 30, 8), noise=0.01)
    down, *_ = fit_laws(x, values, curve, SIZES).predict(60.0)
    up, *_ = fit_laws(x, -values, curve, SIZES).predict(60.0)
    np.testing.assert_allclose(up, -down, rtol=1e-9)


def test_the_order_of_points_does_not_matter() -> None:
    x, values, curve, _, _ = generated((0.3,), np.geomspace(1, 30, 8), noise=0.01)
    order = np.random.default_rng(0).permutation(len(x))
    straight, *_ = fit_laws(x, values, curve, SIZES).predict(60.0)
    mixed, *_ = fit_laws(x[order], values[order], curve[order], SIZES).predict(60.0)
    np.testing.assert_allclose(straight, mixed, rtol=1e-9)


def test_points_at_one_place_are_refused() -> None:
    with pytest.raises(SurrogateError, match="one place"):
        fit_laws(np.ones(4), np.ones((4, 1)), np.arange(4), SIZES)


def test_recent_points_are_the_last_two_thirds_and_at_least_three() -> None:
    x = np.array([1.0, 2, 4, 8, 10, 1, 2, 20])
    curves = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    assert recent(x, curves).tolist() == [False, False, True, True, True, True, True, True]
