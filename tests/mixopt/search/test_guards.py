"""Guardrails in the optimum: what is recommended is likely to keep to them, at a price."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.search.guards import GuardedSpace, Guards
from mixopt.search.optimum import recommend
from mixopt.search.proposers.bayes import Bayes
from mixopt.search.proposers.pareto import Pareto
from mixopt.surrogates.gp.gp import GaussianProcess

DOMAINS = ("web", "code", "maths")
NATURAL = Mixture.of({"web": 0.6, "code": 0.3, "maths": 0.1})
SPACE = MixtureSpace(DOMAINS, NATURAL)
CODE = Objective({"code": 1.0})


def table(n: int = 40, metrics: int = 2) -> TrialTable:
    """Runs in which more of a domain lowers its own metric alone."""
    weights = np.random.default_rng(0).dirichlet([2, 2, 2], n)
    values = 3 - np.sqrt(weights[:, :metrics])
    return TrialTable(
        domains=DOMAINS,
        metrics=tuple(f"bpb/{domain}" for domain in DOMAINS[:metrics]),
        weights=weights,
        values=values,
        params=np.full(n, 1e6),
        tokens=np.full(n, 1e7),
        seeds=np.zeros(n, dtype=int),
    )


def guards(allowed: float) -> Guards:
    return Guards((Guardrail("bpb/web", allowed),), GaussianProcess(seed=0).fit(table()), NATURAL)


@pytest.fixture(scope="module")
def surrogate() -> GaussianProcess:
    return GaussianProcess(seed=0).fit(table())


def test_without_guardrails_it_pays_with_everything_else(surrogate: GaussianProcess) -> None:
    found = recommend(surrogate, CODE, SPACE, 0)
    assert found.unguarded is None
    assert found.mixture["code"] > 0.9


@pytest.mark.parametrize("allowed", [0.05, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_guardrail_binds_and_has_a_price(surrogate: GaussianProcess, allowed: float) -> None:
    found = recommend(surrogate, CODE, SPACE, 0, guards=guards(allowed))
    worse = np.sqrt(NATURAL["web"]) - np.sqrt(found.mixture["web"])
    assert 0.5 * allowed < worse <= allowed + 0.01  # at the guardrail, and not beyond
    expected, limit = found.guards["bpb/web"]
    assert expected <= limit == pytest.approx(allowed)
    assert found.unguarded is not None
    assert found.unguarded["code"] > 0.9
    assert found.unguarded_mean is not None
    assert found.mean > found.unguarded_mean
    best = 1 - found.mixture["web"]  # all the rest is code's
    assert found.mixture["code"] == pytest.approx(best, abs=0.03)


def test_where_nothing_else_is_likely_to_hold_it_is_the_baseline(
    surrogate: GaussianProcess,
) -> None:
    found = recommend(surrogate, CODE, SPACE, 0, guards=guards(-0.5))
    assert found.mixture.same_as(NATURAL)


@pytest.mark.slow
def test_fewer_seeds_and_more_noise_keep_farther_away() -> None:
    rng = np.random.default_rng(1)
    clean = table(60)
    noisy = dataclasses.replace(clean, values=clean.values + rng.normal(0, 0.03, (60, 2)))
    surrogate = GaussianProcess(seed=0).fit(noisy)
    guardrails = (Guardrail("bpb/web", 0.2),)
    worse = []
    for seeds in (16, 2):
        asked = Guards(guardrails, surrogate, NATURAL, seeds)
        found = recommend(surrogate, CODE, SPACE, 0, guards=asked)
        worse.append(found.guards["bpb/web"][0])
    assert worse[1] < worse[0] - 0.01
    assert worse[0] < 0.2


def test_a_search_is_drawn_to_where_guardrails_hold(surrogate: GaussianProcess) -> None:
    plain, guarded = SPACE, GuardedSpace.of(SPACE, guards(0.1))
    weights = np.array([NATURAL.array, [0.05, 0.9, 0.05]])
    assert (plain.penalty(weights) == 0).all()
    near, far = guarded.penalty(weights)
    assert near == 0
    assert far > 10


def test_the_probability_that_guardrails_hold_is_that_of_the_surrogate() -> None:
    asked = guards(0.1)
    weights = np.array([NATURAL.array, [0.05, 0.9, 0.05], [0.4, 0.5, 0.1]])
    mean, std = asked.excess(weights)
    chance = np.exp(GuardedSpace.of(SPACE, asked).log_feasible(weights))
    assert chance == pytest.approx(norm.cdf(-mean[:, 0] / std[:, 0]))
    assert chance[0] > 0.99
    assert chance[1] < 0.01
    assert (SPACE.log_feasible(weights) == 0).all()


def trials_of(runs: TrialTable) -> list[Trial]:
    """The same runs as a search's trials."""
    fidelity = Fidelity("proxy", 10**6, 10**7)
    return [
        Trial(
            number,
            TrialSpec(Mixture.from_array(DOMAINS, weights), fidelity, 0),
            State.COMPLETE,
            TrialResult(dict(zip(runs.metrics, values.tolist(), strict=True)), (), Cost(0, 0, 0)),
        )
        for number, (weights, values) in enumerate(zip(runs.weights, runs.values, strict=True))
    ]


@pytest.mark.parametrize(
    ("kind", "objective"),
    [(Bayes, CODE), (Pareto, Objective({"code": 1.0, "maths": 1.0}))],
    ids=["bayes", "pareto"],
)
def test_what_is_proposed_is_likely_to_keep_to_them(
    kind: type[Bayes], objective: Objective
) -> None:
    runs = table(24, metrics=3)
    trials, fidelity = trials_of(runs), Fidelity("proxy", 10**6, 10**7)
    asked = Guards((Guardrail("bpb/web", 0.1),), GaussianProcess(seed=0).fit(runs), NATURAL)
    worse = {}
    for name, space in (("plain", SPACE), ("guarded", GuardedSpace.of(SPACE, asked))):
        proposer = kind(space, objective, fidelity, lambda: GaussianProcess(seed=0))
        specs = proposer.propose(trials, 4)
        web = np.array([spec.mixture["web"] for spec in specs])
        worse[name] = np.sqrt(NATURAL["web"]) - np.sqrt(web)
    assert worse["guarded"].max() <= 0.1 + 0.03
    assert worse["plain"].max() > 0.3


def test_what_an_excess_costs_is_in_the_unit_of_the_objective() -> None:
    weights = np.array([[0.05, 0.9, 0.05]])
    small, large = guards(0.1), dataclasses.replace(guards(0.1), gain=500.0)
    assert large.penalty(weights) == pytest.approx(500 * small.penalty(weights))
