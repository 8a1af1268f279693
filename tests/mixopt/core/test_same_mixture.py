"""Mixtures that differ by rounding are one mixture wherever it is judged what was tried."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.core.mixture import Mixture, rounded
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Role, Trial, TrialSpec
from mixopt.search.proposers.random import Random
from mixopt.selection.runs import Selection
from mixopt.surrogates.regression.linear import Linear

FIDELITY = Fidelity("proxy", 1000, 1000)


def an_ulp_away(mixture: Mixture) -> Mixture:
    """Its neighbour in floating point: every weight moves by its last binary digit."""
    moved = [math.nextafter(w, 2.0 if k % 2 else -1.0) for k, w in enumerate(mixture.weights)]
    return Mixture(mixture.domains, tuple(max(0.0, w) for w in moved))


@given(st.integers(1, 10**10), st.integers(2, 10**10))
def test_a_fraction_and_its_neighbours_are_one_weight(above: int, below: int) -> None:
    weight = float(Fraction(min(above, below), max(above, below)))
    near = [math.nextafter(weight, 2.0), math.nextafter(weight, -1.0)]
    assert {rounded([weight]), *(rounded([it]) for it in near)} == {rounded([weight])}


@given(st.integers(0, 10**10))
def test_a_decimal_of_ten_digits_and_its_neighbours_are_one_weight(digits: int) -> None:
    weight = digits / 10**10
    assert rounded([math.nextafter(weight, 2.0)]) == rounded([math.nextafter(weight, -1.0)])


@pytest.mark.parametrize("domains", [2, 3, 19, 1024])
def test_the_uniform_mixture_is_tried_where_it_differs_by_an_ulp(domains: int) -> None:
    uniform = Mixture.uniform([f"d{k}" for k in range(domains)])
    near = an_ulp_away(uniform)
    assert near != uniform
    assert near.same_as(uniform)
    tried = Trial(0, TrialSpec(near, FIDELITY, 0))
    space = MixtureSpace(uniform.domains, uniform)
    proposer = Random(space, Objective({"loss/a": 1}), FIDELITY, Linear)
    pool = [TrialSpec(uniform, FIDELITY, 0), TrialSpec(uniform, FIDELITY, 1)]
    assert proposer.untried([tried], pool) == pool[1:]  # another seed is another trial
    assert len(proposer.mixtures_of([tried, Trial(1, pool[0])])) == 1
    assert TrialSpec(near, FIDELITY, 0).same_as(pool[0])
    assert not TrialSpec(near, FIDELITY, 0, Role.REPEAT).same_as(pool[0])


def test_selection_does_not_ask_again_for_runs_that_differ_by_an_ulp() -> None:
    natural = Mixture.of({"a": 2, "b": 1})
    uniform = Mixture.uniform(("a", "b"))
    selection = Selection(
        {"natural": natural, "uniform": uniform}, FIDELITY, Objective({"loss/a": 1}), range(1, 4)
    )
    asked = selection.next_pulls([])
    near = [
        Trial(k, TrialSpec(an_ulp_away(it.mixture), FIDELITY, it.seed, it.role, 0, it.candidate))
        for k, it in enumerate(asked)
    ]
    assert selection.next_pulls(near) == []


def test_mixtures_that_differ_by_more_are_others() -> None:
    first = Mixture.of({"a": 0.5, "b": 0.5})
    assert not first.same_as(Mixture.of({"a": 0.5 + 1e-8, "b": 0.5 - 1e-8}))
    assert not first.same_as(Mixture.of({"a": 0.5, "c": 0.5}))
    assert first.same_as(Mixture.of(dict(reversed(first.as_dict().items()))))
    assert np.isclose(sum(first.weights), 1)
