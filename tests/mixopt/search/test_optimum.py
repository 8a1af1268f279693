"""The optimum of a score: exact where it is known, found whether the score is smooth or rough."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.search.optimum import minimise, recommend
from mixopt.search.polish import polish
from mixopt.surrogates import make
from mixopt.testing.proposers import OBJECTIVE, example_space, example_trials


def named(m: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in range(m))


def test_a_smooth_optimum_of_a_hundred_domains_is_found_closely() -> None:
    names = named(100)
    space = MixtureSpace(names, Mixture.uniform(names), upper=dict.fromkeys(names, 0.2))
    value = np.random.default_rng(0).lognormal(sigma=2.0, size=100)

    def score(weights: np.ndarray) -> np.ndarray:
        return np.asarray(-(value * np.log(0.01 + weights)).sum(axis=1) / value.sum())

    found = minimise(score, space, seed=0).array
    # optimal where value / (.01 + weight) is equal: a water level, with the cap on top
    low, high = 0.0, 1e4
    for _ in range(200):
        level = (low + high) / 2
        best = np.clip(value / level - 0.01, 0.0, 0.2)
        low, high = (level, high) if best.sum() > 1 else (low, level)
    assert score(found[None])[0] - score(best[None])[0] < 1e-4


def test_a_rough_score_is_searched_without_slopes() -> None:
    names = named(4)
    space = MixtureSpace(names, Mixture.uniform(names))
    target = np.array([0.55, 0.3, 0.1, 0.05])

    def steps(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.floor(50 * ((weights - target) ** 2).sum(axis=1) ** 0.5))

    found = minimise(steps, space, seed=0)
    assert steps(found.array[None])[0] == 0


def test_it_finds_a_basin_that_most_samples_miss() -> None:
    names = named(6)
    space = MixtureSpace(names, Mixture.uniform(names), upper=dict.fromkeys(names, 0.9))
    deep = np.array([0.0, 0.0, 0.8, 0.2, 0.0, 0.0])
    broad = np.full(6, 1 / 6)

    def score(weights: np.ndarray) -> np.ndarray:
        def well(centre: np.ndarray, width: float) -> np.ndarray:
            gap = ((np.sqrt(weights) - np.sqrt(centre)) ** 2).sum(axis=1)
            return np.exp(-gap / width)

        return np.asarray(-well(broad, 0.5) - 1.5 * well(deep, 0.1))

    for seed in range(3):
        found = minimise(score, space, seed).array
        assert np.abs(found - deep).max() < 0.05


def test_polishing_never_makes_worse_and_never_leaves_the_space() -> None:
    space = example_space()
    rng = np.random.default_rng(0)
    starts = space.sample_dirichlet(6, rng, strength=2.0)
    wild = rng.normal(size=(4, 3))

    def score(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(20 * weights @ wild).sum(axis=1))

    ends = polish(score, space, starts, steps=30)
    assert (score(ends) <= score(starts)).all()
    assert score(ends).mean() < score(starts).mean() - 0.5
    assert space.polytope.excess(ends).max() < 1e-9


def test_the_same_seed_gives_the_same_optimum() -> None:
    space = example_space()
    score = lambda w: ((w - 0.25) ** 2).sum(axis=1)  # noqa: E731
    assert minimise(score, space, seed=3) == minimise(score, space, seed=3)


def test_a_penalty_draws_the_optimum_to_natural() -> None:
    natural = Mixture.of({"a": 6, "b": 3, "c": 1})
    score = lambda w: -w[:, 2]  # noqa: E731  (c alone would be best)
    distances = [
        minimise(score, MixtureSpace(natural.domains, natural, kl_penalty=k), seed=0).distance(
            natural
        )
        for k in (0.0, 0.3, 1.0, 100.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.01
    # minimising -w_c + k KL: weights are natural x exp([c] / k), normalised
    expected = natural.array * np.exp(np.array([0.0, 0.0, 1.0]) / 0.3)
    found = minimise(score, MixtureSpace(natural.domains, natural, kl_penalty=0.3), seed=0)
    assert found.array == pytest.approx(expected / expected.sum(), abs=1e-3)


def test_a_recommendation_tells_what_each_constraint_costs() -> None:
    names = tuple("abcd")
    cut = LinearConstraint({"a": 1.0, "b": 1.0}, 0.9)
    space = MixtureSpace(names, Mixture.uniform(names), lower={"d": 0.3}, linear=[cut])
    table = TrialTable.of(example_trials(24), OBJECTIVE.metrics)
    result = recommend(make("gp").fit(table), OBJECTIVE, space, seed=0, risk=0.0)
    # d helps no metric: its lower bound costs much, the other constraint is far away
    assert list(result.prices) == result.binding == ["d: at its lower bound 0.30"]
    freed = recommend(
        make("gp").fit(table), OBJECTIVE, MixtureSpace(names, space.natural, linear=[cut]), 0, 0.0
    )
    assert result.prices[result.binding[0]] == pytest.approx(result.mean - freed.mean, abs=2e-3)
    assert result.prices[result.binding[0]] > 0.01


def test_a_recommendation_tells_how_far_from_natural_it_is() -> None:
    names = tuple("abcd")
    table = TrialTable.of(example_trials(24), OBJECTIVE.metrics)
    surrogate = make("gp").fit(table)
    natural = Mixture.of({"a": 1, "b": 1, "c": 1, "d": 7})
    free, leashed = (
        recommend(surrogate, OBJECTIVE, MixtureSpace(names, natural, kl_penalty=k), seed=0)
        for k in (0.0, 0.05)
    )
    assert (free.kl_penalty, leashed.kl_penalty) == (0.0, 0.05)
    assert 0 < leashed.kl < free.kl
    assert leashed.mean > free.mean
    assert leashed.unconstrained.distance(free.mixture) < 0.05
