"""First swarms begin with the baselines, repeat nothing and stay in the space."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mixopt.core.errors import MixtureError, StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.search.designs import DESIGNS, SMALLEST_WEIGHT, design, extend, features

NAMES = tuple("abcdefg")
NATURAL = Mixture.of(dict(zip(NAMES, [50, 20, 10, 8, 5, 4, 3], strict=True)))


@pytest.mark.parametrize("kind", sorted(DESIGNS))
def test_the_natural_and_the_uniform_mixture_come_first(kind: str) -> None:
    swarm = design(MixtureSpace(NAMES, NATURAL), 8, 0, kind)
    assert swarm[0].distance(NATURAL) < 1e-6
    assert swarm[1].distance(Mixture.uniform(NAMES)) < 1e-6


@pytest.mark.parametrize("kind", sorted(DESIGNS))
def test_a_swarm_is_feasible_distinct_and_repeatable(kind: str) -> None:
    space = MixtureSpace(NAMES, NATURAL, upper={"a": 0.4}, lower={"g": 0.05})
    swarm = design(space, 32, 7, kind)
    assert len(swarm) == 32
    assert all(space.contains(mixture) for mixture in swarm)
    assert min(a.distance(b) for a, b in combinations(swarm, 2)) > 0.015
    assert design(space, 32, 7, kind) == swarm
    if kind != "vertices":  # 7 vertices, their centroids and 14 of 21 edges: only the order varies
        assert design(space, 32, 8, kind) != swarm


def test_weights_too_small_to_matter_are_cut() -> None:
    for mixture in design(MixtureSpace(NAMES, NATURAL), 64, 0):
        assert all(weight == 0 or weight >= SMALLEST_WEIGHT for weight in mixture.weights)


def test_a_dirichlet_swarm_reaches_from_sparse_to_dense() -> None:
    peaks = [max(m.weights) for m in design(MixtureSpace(NAMES, NATURAL), 64, 0)]
    assert max(peaks) > 0.97
    assert min(peaks) < 0.45


def test_twenty_tightly_bound_domains_get_their_swarm() -> None:
    names = tuple(f"d{i}" for i in range(20))
    space = MixtureSpace(
        names,
        Mixture.uniform(names),
        lower=dict.fromkeys(names, 0.045),
        upper=dict.fromkeys(names, 0.055),
    )
    assert len(set(design(space, 24, 0))) == 24


def test_a_space_of_one_point_says_so() -> None:
    space = MixtureSpace(("a", "b"), Mixture.uniform("ab"), lower={"a": 0.5}, upper={"a": 0.5})
    with pytest.raises(MixtureError, match="only 1 distinct"):
        design(space, 3, 0)


def test_an_unknown_design_is_refused() -> None:
    with pytest.raises(StudyError, match="no design is called 'grid'"):
        design(MixtureSpace(NAMES, NATURAL), 3, 0, "grid")


def test_vertices_hold_each_domain_at_its_most_the_nearest_to_natural_first() -> None:
    space = MixtureSpace(NAMES, NATURAL, upper={"a": 0.4, "c": 0.7})
    swarm = design(space, 9, 0, "vertices")[2:]
    reached = np.array([mixture.weights for mixture in swarm]).max(axis=0)
    assert reached == pytest.approx(space.polytope.upper)
    distances = [mixture.distance(NATURAL) for mixture in swarm]
    assert distances == sorted(distances)


def test_edges_of_the_simplex_follow_the_centroids() -> None:
    swarm = design(MixtureSpace(NAMES, NATURAL), 37, 0, "vertices")
    halves = [m for m in swarm if sorted(m.weights)[-2:] == pytest.approx([0.5, 0.5])]
    # the centroid of the whole simplex is the uniform mixture, which is there already
    assert len(halves) == 37 - 2 - 7 - 7 == 21


def test_a_d_optimal_swarm_leaves_less_unknown_than_a_random_one() -> None:
    space = MixtureSpace(NAMES, NATURAL, upper={"a": 0.6}, lower={"g": 0.05})

    def unknown(kind: str) -> float:
        """Mean variance of a linear prediction over the space, in units of the noise."""
        seen = features(np.array([m.weights for m in design(space, 16, 3, kind)]))
        spread = np.linalg.inv(seen.T @ seen)
        asked = features(space.sample_sobol(512, seed=1))
        return float(np.einsum("np,pr,nr->n", asked, spread, asked).mean())

    assert unknown("d-optimal") < 0.6 * unknown("dirichlet")


@pytest.mark.parametrize("kind", sorted(DESIGNS))
def test_a_design_goes_on_with_mixtures_apart_from_those_there_are(kind: str) -> None:
    space = MixtureSpace(NAMES, NATURAL, upper={"a": 0.5})
    swarm = design(space, 12, 0, kind)
    more = extend(space, np.array([m.weights for m in swarm]), 12, 0, kind)
    assert len(more) == 12
    assert all(space.contains(mixture) for mixture in more)
    assert min(a.distance(b) for a, b in combinations([*swarm, *more], 2)) > 0.015


def test_sobol_goes_on_where_it_stopped() -> None:
    space = MixtureSpace(NAMES, NATURAL)
    begun = design(space, 12, 0, "sobol")
    more = extend(space, np.array([m.weights for m in begun]), 6, 0, "sobol")
    assert [*begun, *more] == design(space, 18, 0, "sobol")
