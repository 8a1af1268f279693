"""Designs as proposers: what they ask for depends on where trials were, never on how they ended."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mixopt.core.trials import State
from mixopt.search.designs import features
from mixopt.search.proposers.design import Design, Dirichlet, DOptimal, Sobol, Vertices
from mixopt.testing.proposers import FIDELITY, ProposerConformance, example_pool, example_trials


class TestDirichlet(ProposerConformance):
    proposer = Dirichlet


class TestSobol(ProposerConformance):
    proposer = Sobol


class TestDOptimal(ProposerConformance):
    proposer = DOptimal


class TestVertices(ProposerConformance):
    proposer = Vertices


def proposer(kind: type[Design]) -> Design:
    suite = ProposerConformance()
    suite.proposer = kind
    made = suite.make()
    assert isinstance(made, Design)
    return made


@pytest.mark.parametrize("kind", [Dirichlet, Sobol, DOptimal, Vertices])
def test_results_do_not_matter_to_a_design(kind: type[Design]) -> None:
    trials = example_trials()
    waiting = [dataclasses.replace(t, state=State.WAITING, result=None) for t in trials]
    assert proposer(kind).propose(trials, 3) == proposer(kind).propose(waiting, 3)
    assert len(proposer(kind).propose([], 3)) == 3


def test_d_optimal_picks_more_telling_mixtures_than_the_pool_begins_with() -> None:
    trials, pool = example_trials(6), example_pool(40)
    chosen = proposer(DOptimal).select(trials, pool, 4)

    def result(specs: list) -> float:
        mixtures = [t.spec.mixture for t in trials] + [spec.mixture for spec in specs]
        known = features(np.array([m.weights for m in mixtures]))
        return float(np.linalg.slogdet(known.T @ known)[1])

    others = [result(pool[i : i + 4]) for i in range(0, 40, 4)]
    assert result(chosen) > max(others)
    assert {spec.fidelity for spec in chosen} == {FIDELITY}


def test_what_vertices_ask_for_first_is_the_most_of_each_domain() -> None:
    specs = proposer(Vertices).propose([], 4)
    reached = np.array([spec.mixture.weights for spec in specs]).max(axis=0)
    assert reached == pytest.approx([0.7, 0.4, 0.7, 1.0])  # a and c together reach .7 at most
