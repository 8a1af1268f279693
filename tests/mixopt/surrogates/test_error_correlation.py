"""How much metrics err together, from few held-out errors."""

from __future__ import annotations

import numpy as np

from mixopt.surrogates.base import error_correlation


def errors(n: int, tied: float, q: int = 20, seed: int = 0) -> np.ndarray:
    """(n, q) of which every pair has correlation `tied`."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(n, 1)), rng.normal(size=(n, q))
    return np.asarray((np.sqrt(tied) * common + np.sqrt(1 - tied) * own) * np.arange(1, q + 1))


def variance_of_mean(correlation: np.ndarray) -> float:
    return float(correlation.mean())


def test_few_errors_do_not_make_the_mean_of_many_metrics_surer_than_it_is() -> None:
    found = [variance_of_mean(error_correlation(errors(10, 0.4, seed=s))) for s in range(200)]
    truth = 0.4 + 0.6 / 20
    assert 0.85 * truth < np.mean(found) < 1.1 * truth


def test_from_many_errors_every_pair_has_its_own_correlation() -> None:
    seen = errors(4000, 0.3)
    seen[:, 0] *= -1
    tied = error_correlation(seen)
    np.testing.assert_allclose(tied[0, 1:], -0.3, atol=0.06)
    np.testing.assert_allclose(tied[1, 2:], 0.3, atol=0.06)


def test_what_is_expected_counts_as_many_trials_as_it_is_worth() -> None:
    seen = errors(8, 0.4)
    none, half = (error_correlation(seen, np.eye(20), worth) for worth in (1e-9, 8.0))
    np.testing.assert_allclose(half, (none + np.eye(20)) / 2, atol=1e-8)
    np.testing.assert_allclose(error_correlation(np.full((0, 20), np.nan), half), half, atol=1e-12)


def test_gaps_leave_no_negative_variance_and_a_metric_without_errors_errs_alone() -> None:
    seen = errors(6, 0.9)
    seen[:3, ::2] = seen[3:, 1::3] = np.nan
    seen[:, 4] = 0.0
    tied = error_correlation(seen)
    assert np.linalg.eigvalsh(tied)[0] > -1e-12
    np.testing.assert_allclose(np.diag(tied), 1.0)
    np.testing.assert_allclose(tied[4], np.eye(20)[4], atol=1e-12)
