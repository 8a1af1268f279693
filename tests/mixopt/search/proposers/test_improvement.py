"""What improvement and information are worth: closed forms against plain Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from mixopt.search.proposers._hypervolume import contenders, log_added_volume, partition
from mixopt.search.proposers._improvement import (
    Paths,
    greedy_improvement,
    incumbents,
    log_excess,
    log_improvement,
    standard_normals,
)
from mixopt.search.proposers._information import (
    log_knowledge_gradient,
    lower_envelope,
    max_value_information,
)


def posterior(seed: int, c: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Mean (c,) and covariance (c, c) of some joint Gaussian."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(c, c)) / np.sqrt(c)
    return rng.normal(size=c), factor @ factor.T + 0.01 * np.eye(c)


@pytest.mark.parametrize("z", [-40.0, -5.0, -1.0, -0.999, 0.0, 3.0])
def test_the_excess_over_a_level_is_right_where_the_textbook_formula_holds(z: float) -> None:
    grid = np.linspace(max(-z, -12), max(-z, -12) + 14, 200_001)
    exact = np.log(np.trapezoid((z + grid) * np.exp(norm.logpdf(grid) + z**2 / 2), grid))
    assert log_excess(np.array(z)) == pytest.approx(exact - z**2 / 2, rel=1e-5, abs=1e-6)


def test_the_excess_falls_without_a_step_to_levels_that_nothing_reaches() -> None:
    z = -np.geomspace(0.5, 1e6, 4000)
    logs = log_excess(z)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()
    # the slope of a smooth curve changes little from step to step
    slope = np.diff(logs) / np.diff(z)
    assert (np.abs(np.diff(np.log(slope))) < 0.01).all()


def test_drawing_points_one_by_one_is_drawing_them_together() -> None:
    mean, covariance = posterior(0)
    normals = np.random.default_rng(1).normal(size=(200_000, 3))
    paths = Paths.of(mean, covariance, len(normals))
    drawn = np.stack([paths.draw(point, normals[:, i]) for i, point in enumerate((2, 5, 0))])
    np.testing.assert_allclose(drawn.mean(axis=1), mean[[2, 5, 0]], atol=0.01)
    np.testing.assert_allclose(np.cov(drawn), covariance[np.ix_([2, 5, 0], [2, 5, 0])], atol=0.02)
    # law of total variance: what the draws leave open, and what they explain
    total = paths.means.var(axis=0) + np.diag(paths.covariance)
    np.testing.assert_allclose(total, np.diag(covariance), rtol=0.02)


def test_improvement_is_that_of_joint_samples() -> None:
    mean, covariance = posterior(3)
    paths = Paths.of(mean, covariance, 4096)
    normals = standard_normals(4096, 2, seed=0)
    best = np.minimum(paths.draw(6, normals[:, 0]), paths.draw(7, normals[:, 1]))
    result = np.exp(log_improvement(paths, best))
    samples = np.random.default_rng(0).multivariate_normal(mean, covariance, 400_000)
    plain = np.maximum(samples[:, 6:].min(axis=1)[:, None] - samples, 0).mean(axis=0)
    np.testing.assert_allclose(result, plain, rtol=0.02, atol=2e-3)


def test_a_batch_improves_as_much_together_as_the_best_pair_or_nearly() -> None:
    for seed in range(4):
        mean, covariance = posterior(seed, 9)
        chosen = greedy_improvement(mean, covariance, [7, 8], range(7), 2, seed=0)
        samples = np.random.default_rng(9).multivariate_normal(mean, covariance, 100_000)
        had = samples[:, 7:].min(axis=1)

        def gain(pair: list[int], samples: np.ndarray = samples, had: np.ndarray = had) -> float:
            return float(np.maximum(had - samples[:, pair].min(axis=1), 0).mean())

        best = max(gain([i, j]) for i in range(7) for j in range(i))
        assert gain(chosen) > (1 - 1 / np.e) * best  # what greedy is sure of (submodular)
        assert gain(chosen) > 0.93 * best


def test_a_twin_of_what_is_known_or_running_is_not_chosen() -> None:
    mean = np.array([0.0, 0.0, 0.1])
    covariance = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    # 1 is 0 again, which is running: only 2 can improve on it
    assert greedy_improvement(mean, covariance, [0], [1, 2], 1, seed=0) == [2]


def test_incumbents_are_those_that_may_be_the_best() -> None:
    mean, std = np.array([1.0, 0.0, 5.0, 0.2]), np.array([0.5, 0.1, 1.0, 0.01])
    assert incumbents(mean, std).tolist() == [1, 3, 0]
    assert incumbents(mean, std, most=2).tolist() == [1, 3]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_knowledge_gradient_is_the_expected_fall_of_the_least_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=12)
    slopes = rng.normal(size=(3, 12)) * np.array([[0.05], [0.5], [2.0]])
    z = norm.ppf((np.arange(40_000) + 0.5) / 40_000)
    plain = mean.min() - (mean[None] + z[:, None] * slopes[:, None]).min(axis=2).mean(axis=1)
    result = np.exp(log_knowledge_gradient(mean, slopes))
    np.testing.assert_allclose(result, plain, rtol=5e-3, atol=1e-5)  # of the slices of z


def test_a_measurement_that_moves_all_means_alike_is_worth_nothing() -> None:
    result = log_knowledge_gradient(np.array([0.0, 0.5, 1.0]), np.ones((1, 3)))
    assert result.tolist() == [-np.inf]


def test_the_lower_envelope_is_the_least_of_the_lines() -> None:
    levels, slopes = np.random.default_rng(0).normal(size=(2, 30))
    slopes[:4] = slopes[4]  # parallel ones
    kinks, jumps = lower_envelope(levels, slopes)
    grid = np.linspace(-8, 8, 4001)
    least = (levels[:, None] + slopes[:, None] * grid).min(axis=0)
    at = int(np.argmin(levels - 8 * slopes))
    bent = slopes[at] * (grid + 8) - (jumps[:, None] * np.maximum(grid - kinks[:, None], 0)).sum(0)
    start = (levels - 8 * slopes).min() + (jumps[kinks < -8] * (-8 - kinks[kinks < -8])).sum()
    np.testing.assert_allclose(start + bent, least, atol=1e-9)


@pytest.mark.parametrize("rho", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("gamma", [-5.0, -1.0, 0.5, 3.0])
def test_information_is_the_fall_of_entropy_of_a_truncated_pair(rho: float, gamma: float) -> None:
    y = np.linspace(-12, 14, 200_001)
    rest = np.sqrt(1 - rho**2)
    logs = norm.logpdf(y) + norm.logcdf((rho * y - gamma) / rest) - norm.logsf(gamma)
    fall = 0.5 * np.log(2 * np.pi * np.e) + np.trapezoid(np.exp(logs) * logs, y)
    result = max_value_information(
        np.array([2.0]), np.array([0.3]), np.array([rho]), np.array([2.0 + 0.3 * gamma])
    )
    assert result[0] == pytest.approx(fall, abs=1e-4)


def test_what_correlates_more_with_the_target_tells_more() -> None:
    rho = np.linspace(0, 0.99, 12)
    result = max_value_information(np.zeros(12), np.ones(12), rho, np.array([-1.0, 0.5]))
    assert result[0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(result) > 0).all()


def test_added_volume_is_that_of_joint_samples() -> None:
    rng = np.random.default_rng(2)
    means, worst = rng.uniform(0, 1, (2, 5)), np.array([1.2, 1.1])
    covariances = np.stack([0.3 * posterior(seed, 5)[1] for seed in (4, 5)])
    known = means[:, :3].T
    paths = [Paths.of(m, c, 2) for m, c in zip(means, covariances, strict=True)]
    result = np.exp(log_added_volume(paths, np.array([3, 4]), [partition(known, worst)] * 2))

    def volume(points: np.ndarray) -> float:
        ordered = points[(points < worst).all(axis=1)]
        total, edge = 0.0, worst[1]
        for x, y in ordered[np.argsort(ordered[:, 0])]:
            total += (worst[0] - x) * max(0.0, edge - y)
            edge = min(edge, y)
        return total

    for said_one, point in zip(result, (3, 4), strict=True):
        draws = means[:, point] + rng.normal(size=(20_000, 2)) * np.sqrt(
            covariances[:, point, point]
        )
        gain = np.mean([volume(np.vstack([known, d])) for d in draws]) - volume(known)
        assert said_one == pytest.approx(gain, rel=0.05)


def test_contenders_are_what_nothing_beats_in_everything() -> None:
    means = np.array([[0.0, 1.0, 1.0, 0.5], [1.0, 0.0, 1.0, 0.5]])
    assert contenders(means, np.full((2, 4), 0.01), 2.0).tolist() == [0, 1, 3]
    assert contenders(means, np.full((2, 4), 0.5), 2.0).tolist() == [0, 1, 2, 3]
