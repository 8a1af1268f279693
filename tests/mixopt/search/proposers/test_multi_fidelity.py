"""Choosing how much to spend: the contract, and when a low-fidelity trial is worth more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.search.designs import design
from mixopt.search.proposers.multi_fidelity import MaxValueEntropy, MultiFidelity
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate
from mixopt.testing.proposers import (
    FIDELITY,
    OBJECTIVE,
    ProposerConformance,
    example_space,
    example_trials,
)
from mixopt.testing.surrogates import example_values

SMALL = Fidelity("small", 100_000, 10_000_000)
SURROGATE: Callable[[], Surrogate] = partial(make, "multitask-gp", fidelity=FIDELITY)


class TestMultiFidelity(ProposerConformance):
    proposer = MultiFidelity
    surrogate = staticmethod(SURROGATE)


class TestMaxValueEntropy(ProposerConformance):
    proposer = MaxValueEntropy
    surrogate = staticmethod(SURROGATE)


def trial(
    number: int, mixture: Mixture, fidelity: Fidelity, noise: float = 0.003, seconds: float = 0.0
) -> Trial:
    """As `example_values` has it at the target; smaller ones are worse by a factor and a level."""
    values = example_values(mixture.array[None])[0]
    if fidelity == SMALL:
        values = 0.5 + 1.3 * values
    values = values + noise * np.random.default_rng(number).normal(size=3)
    metrics = {f"bpb/{k}": float(v) for k, v in zip("abc", values, strict=True)}
    result = TrialResult(metrics, (), Cost(fidelity.tokens, seconds))
    return Trial(number, TrialSpec(mixture, fidelity, seed=11), State.COMPLETE, result)


def both(low: int = 10, high: int = 4, **settings: float) -> list[Trial]:
    """Trials of a small model, and of the target at some of the same mixtures."""
    mixtures = design(example_space(), low, seed=0)
    found = [trial(i, m, SMALL, **settings) for i, m in enumerate(mixtures)]
    return found + [trial(low + i, m, FIDELITY, **settings) for i, m in enumerate(mixtures[:high])]


def proposer(
    kind: type[MultiFidelity] = MultiFidelity,
    cost: Callable[[Fidelity], float] | None = None,
    fidelities: Sequence[Fidelity] | None = None,
) -> MultiFidelity:
    return kind(
        example_space(),
        OBJECTIVE,
        FIDELITY,
        SURROGATE,
        trial_seed=11,
        cost=cost,
        fidelities=fidelities,
    )


@pytest.mark.parametrize("kind", [MultiFidelity, MaxValueEntropy])
def test_what_costs_nothing_is_run_cheaply_and_what_costs_the_same_at_the_target(
    kind: type[MultiFidelity],
) -> None:
    trials = both()
    free = proposer(kind, cost=lambda f: 1e-6 if f == SMALL else 1.0).propose(trials, 3)
    assert {spec.fidelity for spec in free} == {SMALL}
    same = proposer(kind, cost=lambda _: 1.0).propose(trials, 1)
    assert same[0].fidelity == FIDELITY


def test_only_the_fidelities_that_were_asked_for_are_run() -> None:
    specs = proposer(cost=lambda _: 1.0, fidelities=[FIDELITY]).propose(both(), 2)
    assert {spec.fidelity for spec in specs} == {FIDELITY}


def test_what_trials_took_is_their_cost_where_all_were_timed() -> None:
    timed = [
        dataclasses.replace(
            t,
            result=dataclasses.replace(
                t.result, cost=Cost(0, 2.0 if t.spec.fidelity == SMALL else 6.0)
            ),
        )
        for t in both()
        if t.result is not None
    ]
    unseen = Fidelity("large", 10_000_000, 10_000_000)
    costs = proposer()._costs(timed, [SMALL, FIDELITY, unseen])
    # one that nobody timed costs, per parameter and token, what the largest of the timed ones did
    np.testing.assert_allclose(costs, [2.0, 6.0, 60.0])
    costs = proposer()._costs(both(), [SMALL, FIDELITY])
    assert costs[1] / costs[0] == pytest.approx(10.0)


def test_a_mixture_that_runs_cheaply_is_not_asked_for_again_at_once() -> None:
    trials = both()
    low = partial(proposer, cost=lambda f: 1e-6 if f == SMALL else 1.0)
    first = low().propose(trials, 1)[0]
    running = [*trials, Trial(len(trials), first, State.RUNNING)]
    second = low().propose(running, 1)[0]
    assert second.mixture.distance(first.mixture) > 0.005


def test_from_a_pool_it_finds_the_best_for_less_than_chance() -> None:
    space = example_space()
    mixtures = [Mixture.from_array(space.domains, w) for w in space.sample_sobol(40, 3)]
    exact = example_values(np.array([m.weights for m in mixtures])) @ OBJECTIVE.coefficients
    pool = [TrialSpec(m, f, 11) for f in (SMALL, FIDELITY) for m in mixtures]
    trials = [trial(i, mixtures[i], SMALL) for i in range(6)]
    trials += [trial(6 + i, mixtures[i], FIDELITY) for i in range(3)]
    best, spent = mixtures[int(np.argmin(exact))], 0.0
    assert best not in mixtures[:6]
    search = proposer()
    while spent < 12:
        picked = search.select(trials, pool, 1)[0]
        spent += 1.0 if picked.fidelity == FIDELITY else 0.1
        trials.append(trial(len(trials), picked.mixture, picked.fidelity))
        if picked.mixture == best and picked.fidelity == FIDELITY:
            break
    assert spent < 12  # chance needs 20 runs at the target on average
    assert search.recommend(trials, [s for s in pool if s.fidelity == FIDELITY]).mixture in {
        mixtures[i] for i in np.argsort(exact)[:3]
    }


def test_without_trials_at_other_fidelities_it_searches_the_target() -> None:
    specs = proposer().propose(example_trials(8), 2)
    assert {spec.fidelity for spec in specs} == {FIDELITY}


def test_before_the_target_ever_ran_it_comes_first_where_low_fidelity_trials_were_best() -> None:
    low = both(high=0, low=16)
    search = MultiFidelity(
        example_space(), OBJECTIVE, FIDELITY, partial(make, "cokriging", fidelity=FIDELITY)
    )
    specs = search.propose(low, 2)
    assert {spec.fidelity for spec in specs} == {FIDELITY}
    assert all(example_space().contains(spec.mixture, 1e-9) for spec in specs)
    shown = example_values(np.array([t.spec.mixture.weights for t in low]))
    found = example_values(np.array([spec.mixture.weights for spec in specs]))
    middle = np.median(shown @ OBJECTIVE.coefficients)
    assert (found @ OBJECTIVE.coefficients < middle).all()
    best = search.recommend(low, [t.spec for t in low]).mixture.array[None]
    assert float((example_values(best) @ OBJECTIVE.coefficients)[0]) < middle


def test_a_surrogate_of_one_fidelity_is_replaced_by_one_of_several() -> None:
    search = MultiFidelity(example_space(), OBJECTIVE, FIDELITY, partial(make, "gp"))
    trials = both(low=12)
    assert search.fitted_joint(search.table(trials)).multi_fidelity
