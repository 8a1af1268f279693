"""First swarms begin with the baselines, repeat nothing and stay in the space."""

from __future__ import annotations

from itertools import combinations

import pytest

from mixopt.designs import SMALLEST_WEIGHT, design
from mixopt.errors import MixtureError, StudyError
from mixopt.mixture import Mixture
from mixopt.space import MixtureSpace

NAMES = tuple("abcdefg")
NATURAL = Mixture.of(dict(zip(NAMES, [50, 20, 10, 8, 5, 4, 3], strict=True)))


@pytest.mark.parametrize("kind", ["dirichlet", "sobol"])
def test_the_natural_and_the_uniform_mixture_come_first(kind: str) -> None:
    swarm = design(MixtureSpace(NAMES, NATURAL), 8, 0, kind)
    assert swarm[0].distance(NATURAL) < 1e-6
    assert swarm[1].distance(Mixture.uniform(NAMES)) < 1e-6


@pytest.mark.parametrize("kind", ["dirichlet", "sobol"])
def test_a_swarm_is_feasible_distinct_and_repeatable(kind: str) -> None:
    space = MixtureSpace(NAMES, NATURAL, upper={"a": 0.4}, lower={"g": 0.05})
    swarm = design(space, 32, 7, kind)
    assert len(swarm) == 32
    assert all(space.contains(mixture) for mixture in swarm)
    assert min(a.distance(b) for a, b in combinations(swarm, 2)) > 0.015
    assert design(space, 32, 7, kind) == swarm
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
