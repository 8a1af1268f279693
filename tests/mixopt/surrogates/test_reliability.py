"""Reliability tells which metrics rank mixtures, and how well any prediction can rank by them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from mixopt.surrogates.noise import SeedScatter, seed_scatter
from mixopt.surrogates.reliability import Reliability, _ranks, reliability
from mixopt.surrogates.scoring import spearman

MANY = SeedScatter(1.0, 1e6, 10**6)  # a noise of 1 that is known

Shape = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, Shape] = {  # of the mixtures' true means: deviation 1
    "normal": lambda rng, m: rng.standard_normal(m),
    "uniform": lambda rng, m: rng.uniform(-math.sqrt(3), math.sqrt(3), m),
    "a few bad mixtures": lambda rng, m: rng.exponential(1.0, m),
}


def singles(values: np.ndarray) -> list[dict[int, float]]:
    return [{0: float(value)} for value in values]


def study(rng: np.random.Generator, ratio: float, mixtures: int, repeats: int) -> Reliability:
    """Of a metric with that signal over a noise of 1; one mixture has further seeds."""
    true = ratio * rng.standard_normal(mixtures)
    runs = singles(true + rng.standard_normal(mixtures))
    runs[0] |= {k + 1: float(true[0] + rng.standard_normal()) for k in range(repeats)}
    found = reliability(runs, seed_scatter(runs))
    assert found is not None
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [1.0, 2.0, 4.0])
def test_the_ceiling_is_what_the_true_means_reach(shape: str, ratio: float) -> None:
    rng, told, reached = np.random.default_rng(0), [], []
    for _ in range(60):
        true = ratio * SHAPES[shape](rng, 48)
        values = true + rng.standard_normal(48)
        found = reliability(singles(values), MANY)
        assert found is not None
        told.append(found.ceiling)
        reached += [spearman(true, true + rng.standard_normal(48)) for _ in range(10)]
    off = np.mean(told) - np.mean(reached)
    if shape == "a few bad mixtures":  # the noise hides how crowded the good ones are
        assert 0 < off < (0.08 if ratio == 1 else 0.05)
    else:  # where noise is half of all, the estimate of the signal is sometimes 0
        assert -(0.05 if ratio == 1 else 0.02) < off < 0.02


def test_no_prediction_of_a_noisy_metric_passes_its_ceiling_by_more_than_chance() -> None:
    rng = np.random.default_rng(1)
    true = rng.standard_normal(200)
    values = true + rng.standard_normal(200)
    found = reliability(singles(values), MANY)
    assert found is not None
    best = max(
        np.mean([spearman(guess, true + rng.standard_normal(200)) for _ in range(30)])
        for guess in (true, values, true**3, true + 0.3 * rng.standard_normal(200))
    )
    assert best < found.ceiling + 0.05


@pytest.mark.parametrize("repeats", [2, 5])
def test_nine_in_ten_intervals_hold_the_ratio(repeats: int) -> None:
    rng = np.random.default_rng(2)
    found = [study(rng, 2.0, 24, repeats) for _ in range(300)]
    inside = np.mean([it.low <= 2.0 <= it.high for it in found])
    assert inside == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 300))
    assert all(it.low <= it.ratio <= it.high for it in found)


def test_equal_values_have_the_mean_of_their_ranks() -> None:
    values = np.random.default_rng(0).integers(0, 5, 30).astype(float)
    assert np.array_equal(_ranks(values), stats.rankdata(values))


def test_the_signal_is_cleaned_of_noise() -> None:
    rng = np.random.default_rng(3)
    found = [study(rng, 1.5, 200, 60) for _ in range(30)]
    assert np.mean([it.signal for it in found]) == pytest.approx(1.5, rel=0.03)
    assert np.mean([it.ratio for it in found]) == pytest.approx(1.5, rel=0.05)


def test_a_metric_of_noise_alone_is_poor_and_one_without_noise_is_not() -> None:
    rng = np.random.default_rng(4)
    alone = reliability(singles(rng.standard_normal(64)), MANY)
    assert alone is not None
    assert alone.poor
    assert alone.ratio < 0.7
    assert alone.ceiling < 0.5
    exact = reliability(singles(rng.standard_normal(64)), SeedScatter(0.0, 3.0, 4))
    assert exact is not None
    assert (exact.ratio, exact.low, exact.ceiling, exact.poor) == (math.inf, math.inf, 1.0, False)


def test_one_repeat_warns_of_nothing() -> None:
    values = singles(np.array([1.0, 2.0, 3.0, 4.0]))
    one = reliability(values, SeedScatter(1.0, 1.0, 2))
    two = reliability(values, SeedScatter(1.0, 2.0, 3))
    assert one is not None
    assert two is not None
    assert one.ratio == two.ratio < 2
    assert (one.poor, two.poor) == (False, True)


def test_it_is_unknown_without_repeats_of_two_mixtures_and_of_a_constant() -> None:
    values = singles(np.array([1.0, 2.0, 3.0]))
    assert reliability(values, None) is None
    assert reliability(values[:2], MANY) is None
    assert reliability(singles(np.ones(5)), MANY) is None
