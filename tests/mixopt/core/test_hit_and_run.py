"""Linear constraints cut a distribution off; they do not shrink it."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS, design
from mixopt.surrogates import make
from mixopt.testing.proposers import FIDELITY, OBJECTIVE, example_trials

NAMES = tuple(f"d{i}" for i in range(20))


def between(least: float, most: float, *names: str) -> list[LinearConstraint]:
    return [
        LinearConstraint(dict.fromkeys(names, 1.0), most),
        LinearConstraint(dict.fromkeys(names, -1.0), -least),
    ]


def fixed_sum(*names: str) -> MixtureSpace:
    """a + b is .3, to the last digit."""
    return MixtureSpace(names, Mixture.uniform(names), linear=between(0.3, 0.3, "a", "b"))


def test_a_fixed_sum_leaves_its_parts_free() -> None:
    draws = fixed_sum(*"abcd").sample_sobol(4000, 0)
    np.testing.assert_allclose(draws[:, 0] + draws[:, 1], 0.3, atol=1e-12)
    # a is uniform between 0 and .3, c between 0 and .7
    np.testing.assert_allclose(draws[:, [0, 2]].mean(axis=0), [0.15, 0.35], atol=0.02)
    np.testing.assert_allclose(
        draws[:, [0, 2]].std(axis=0), np.array([0.3, 0.7]) / 12**0.5, rtol=0.05
    )


@pytest.mark.parametrize("strength", [2.0, 20.0, 60.0])
def test_tight_slabs_over_20_domains_sample_as_rejection_does(strength: float) -> None:
    natural = Mixture.of(dict(zip(NAMES, np.linspace(1, 3, 20), strict=True)))
    slabs = between(0.20, 0.24, "d0", "d1", "d2") + between(0.16, 0.20, "d18", "d19")
    space = MixtureSpace(NAMES, natural, linear=slabs)
    draws = space.sample_dirichlet(1000, np.random.default_rng(0), strength=strength)
    kept = rejected(strength * natural.array)
    assert space.polytope.excess(kept).max() < 1e-12
    error = kept.std(axis=0) * np.sqrt(1 / len(kept) + 1 / len(draws))
    assert (np.abs(draws.mean(axis=0) - kept.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(draws.std(axis=0), kept.std(axis=0), rtol=0.25)


def rejected(alpha: np.ndarray) -> np.ndarray:
    """Dirichlet draws of which those outside the slabs are thrown away.

    The sums of the groups are drawn first, and divided once they are within: the same distribution
    at a thousandth of the cost.
    """
    rng = np.random.default_rng(1)
    groups = [slice(0, 3), slice(3, 18), slice(18, 20)]
    sums = rng.dirichlet([alpha[group].sum() for group in groups], 1_000_000)
    first, last = sums[:, 0], sums[:, 2]
    sums = sums[(first > 0.20) & (first < 0.24) & (last > 0.16) & (last < 0.20)]
    assert len(sums) > 400
    parts = [rng.dirichlet(alpha[group], len(sums)) for group in groups]
    return np.concatenate([sums[:, [i]] * part for i, part in enumerate(parts)], axis=1)


@pytest.mark.parametrize("strength", [1.8, 6.0])
def test_a_fixed_sum_with_unequal_coefficients_samples_as_a_thin_slab_does(strength: float) -> None:
    names = tuple("abcdef")
    terms = {"a": 1.0, "b": 2.0, "c": 3.0}

    def space(half: float) -> MixtureSpace:
        lower = {name: -value for name, value in terms.items()}
        slab = [LinearConstraint(terms, 0.7 + half), LinearConstraint(lower, -0.7 + half)]
        return MixtureSpace(names, Mixture.uniform(names), linear=slab)

    draws = space(0.0).sample_dirichlet(1000, np.random.default_rng(0), strength=strength)
    np.testing.assert_allclose(draws[:, :3] @ [1, 2, 3], 0.7, atol=1e-12)
    wide = np.random.default_rng(1).dirichlet(np.full(6, strength / 6), 200_000)
    kept = wide[space(0.003).polytope.excess(wide) <= 1e-9]
    error = kept.std(axis=0) * np.sqrt(1 / len(kept) + 1 / len(draws))
    assert (np.abs(draws.mean(axis=0) - kept.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(draws.std(axis=0), kept.std(axis=0), rtol=0.15)


@pytest.mark.parametrize("kind", sorted(DESIGNS))
def test_every_design_fills_a_space_with_a_fixed_sum(kind: str) -> None:
    space = fixed_sum(*"abcde")
    swarm = design(space, 16, 0, kind)
    assert all(space.contains(mixture, 1e-9) for mixture in swarm)
    assert min(a.distance(b) for a, b in combinations(swarm, 2)) > 0.015
    assert design(space, 16, 0, kind) == swarm


def test_equal_bounds_beside_a_fixed_sum_hold_exactly() -> None:
    names = tuple("abcd")
    space = MixtureSpace(
        names,
        Mixture.uniform(names),
        lower={"c": 0.2},
        upper={"c": 0.2},
        linear=between(0.3, 0.3, "a", "b"),
    )
    draws = space.sample_dirichlet(500, np.random.default_rng(0), strength=4.0)
    np.testing.assert_allclose(draws[:, 2:], [[0.2, 0.5]] * 500, atol=1e-12)
    assert draws[:, 0].std() > 0.07


def test_draws_of_a_chain_do_not_depend_on_how_many_there_are() -> None:
    space = fixed_sum(*"abcd")
    np.testing.assert_array_equal(space.sample_sobol(8, 0), space.sample_sobol(64, 0)[:8])


@pytest.mark.parametrize("name", ["random", "regmix"])
def test_proposers_find_distinct_mixtures_under_a_fixed_sum(name: str) -> None:
    space = fixed_sum(*"abcd")
    proposer = proposers.make(
        name, space=space, objective=OBJECTIVE, fidelity=FIDELITY, surrogate=partial(make, "gp")
    )
    trials = example_trials(8, space)
    specs = proposer.propose(trials, 4)
    mixtures = [spec.mixture for spec in (*specs, *(trial.spec for trial in trials))]
    assert len(specs) == 4
    assert all(space.contains(mixture, 1e-9) for mixture in mixtures)
    assert min(a.distance(b) for a, b in combinations(mixtures, 2)) > 1e-3
