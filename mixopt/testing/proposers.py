"""What every proposer must pass.

Derive from the suite in your tests and name your class:

class TestMine(ProposerConformance):
    proposer = MyProposer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trials import Cost, Fidelity, State, Trial, TrialResult, TrialSpec
from mixopt.search.designs import design
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates import make
from mixopt.surrogates.base import Surrogate
from mixopt.testing.surrogates import example_values

FIDELITY = Fidelity("tiny", 1_000_000, 10_000_000)
OBJECTIVE = Objective({"a": 1.0, "b": 2.0, "c": 1.0})


def example_space() -> MixtureSpace:
    """Four domains with a bound, scarce data and a linear constraint."""
    tokens = {"a": 4_000_000, "b": 1_000_000, "c": 2_000_000, "d": 3_000_000}
    return MixtureSpace(
        tuple(tokens),
        Mixture.natural(tokens),
        lower={"d": 0.05},
        available_tokens=tokens,
        max_epochs=4,
        budget_tokens=10_000_000,
        linear=[LinearConstraint({"a": 1.0, "c": 1.0}, 0.7)],
    )


def example_trial(
    number: int, spec: TrialSpec, state: State = State.COMPLETE, noise: float = 0.005
) -> Trial:
    """`spec` as the ledger would hold it, with the metrics of `example_values` if complete.

    One that is pruned half-way was 1 worse then, and is expected at them, give or take .1.
    """
    if state not in (State.COMPLETE, State.PRUNED):
        return Trial(number, spec, state)
    exact = example_values(spec.mixture.array[None])[0]
    measured = exact + noise * np.random.default_rng(number).normal(size=3)
    metrics = {f"bpb/{name}": float(v) for name, v in zip("abc", measured, strict=True)}
    result = TrialResult(metrics, (), Cost())
    if state is State.PRUNED:
        half = Cost(spec.fidelity.tokens // 2)
        expected = {name: (value, 0.1) for name, value in metrics.items()}
        metrics = {name: value + 1 for name, value in metrics.items()}
        result = TrialResult(metrics, (), half, expected=expected)
    return Trial(number, spec, state, result)


def example_trials(n: int = 12, space: MixtureSpace | None = None) -> list[Trial]:
    """A complete initial design of `n`."""
    mixtures = design(space or example_space(), n, seed=0)
    return [example_trial(i, TrialSpec(m, FIDELITY, seed=11)) for i, m in enumerate(mixtures)]


def example_pool(n: int) -> list[TrialSpec]:
    """`n` specs that `example_trials` does not hold."""
    draws = example_space().sample_sobol(n, seed=5)
    domains = example_space().domains
    return [TrialSpec(Mixture.from_array(domains, w), FIDELITY, seed=11) for w in draws]


class ProposerConformance:
    """Tests of the contract of `Proposer`; pytest runs them in a derived class."""

    proposer: type[Proposer]
    surrogate: Callable[[], Surrogate] = staticmethod(partial(make, "gp"))

    def make(self, space: MixtureSpace | None = None, seed: int = 0) -> Proposer:
        """A fresh proposer; override where yours needs more."""
        return self.proposer(
            space or example_space(), OBJECTIVE, FIDELITY, self.surrogate, seed, trial_seed=11
        )

    def test_as_many_trials_as_asked_for_all_in_the_space(self) -> None:
        """Feasible, at the right fidelity, with the common seed, in the next round."""
        specs = self.make().propose(example_trials(), 3)
        assert len(specs) == 3
        for spec in specs:
            assert example_space().contains(spec.mixture, tolerance=1e-9)
            assert (spec.fidelity, spec.seed, spec.round) == (FIDELITY, 11, 1)

    def test_no_mixture_is_asked_for_twice(self) -> None:
        """Neither within a batch nor among the trials, whatever became of them."""
        trials = example_trials()
        running = self.make().propose(trials, 3)
        for k, state in enumerate((State.RUNNING, State.FAILED, State.PRUNED)):
            trials.append(example_trial(12 + k, running[k], state))
        mixtures = [spec.mixture for spec in self.make().propose(trials, 3)]
        everything = [*mixtures, *(trial.spec.mixture for trial in trials)]
        assert len(set(everything)) == len(everything)
        for mixture in mixtures:
            assert min(mixture.distance(trial.spec.mixture) for trial in trials) > 1e-3

    def test_a_resumed_study_proposes_what_the_uninterrupted_one_would_have(self) -> None:
        """A fresh object, trials in another order, a stirred global generator: the same specs."""
        trials = example_trials()
        once = self.make(seed=4).propose(trials, 2)
        np.random.seed(7)  # a global generator must not matter
        shuffled: Sequence[Trial] = [*trials[5:], *trials[:5]]
        assert self.make(seed=4).propose(shuffled, 2) == once

    def test_what_is_picked_is_a_part_of_the_pool(self) -> None:
        """As many as asked for, none twice, whatever order trials come in or object is asked."""
        trials, pool = example_trials(), example_pool(9)
        running = Trial(len(trials), pool[4], State.RUNNING)
        free = [spec for spec in pool if spec is not pool[4]]
        chosen = self.make(seed=4).select([*trials, running], free, 3)
        assert len(chosen) == len(set(chosen)) == 3
        assert set(chosen) <= set(free)
        np.random.seed(7)  # a global generator must not matter
        assert self.make(seed=4).select([running, *trials[5:], *trials[:5]], free, 3) == chosen

    def test_what_was_tried_is_not_picked_again(self) -> None:
        """Not even where the pool still lists it, be it trained, running, pruned or failed."""
        trials, pool = example_trials(), example_pool(7)
        states = (State.COMPLETE, State.RUNNING, State.PRUNED, State.FAILED)
        trials += [example_trial(12 + k, pool[k], state) for k, state in enumerate(states)]
        assert set(self.make().select(trials, pool, 3)) == set(pool[4:])

    def test_a_pool_smaller_than_the_batch_is_picked_whole(self) -> None:
        """And nothing from an empty one."""
        trials, pool = example_trials(), example_pool(2)
        chosen = self.make().select(trials, pool, 4)
        assert len(chosen) == 2
        assert set(chosen) == set(pool)
        assert self.make().select(trials, [], 4) == []

    def test_what_is_recommended_is_in_the_pool(self) -> None:
        """One that was trained or one that was not, the same whatever order trials come in."""
        trials = example_trials()
        pool = [*(trial.spec for trial in trials), *example_pool(5)]
        recommended = self.make(seed=4).recommend(trials, pool)
        assert recommended in pool
        assert self.make(seed=4).recommend([*trials[5:], *trials[:5]], pool) == recommended

    def test_tight_bounds_on_twenty_domains_do_not_starve_it(self) -> None:
        """Every proposal is found, and feasible, where nearly no random mixture is."""
        names = tuple(f"d{i}" for i in range(20))
        space = MixtureSpace(
            names,
            Mixture.uniform(names),
            lower=dict.fromkeys(names, 0.03),
            upper=dict.fromkeys(names, 0.08),
        )
        trials = []
        for i, mixture in enumerate(design(space, 8, seed=0)):
            loss = float((mixture.array**2) @ np.arange(20))
            metrics = {"bpb/a": loss, "bpb/b": 1 - loss, "bpb/c": loss**2}
            result = TrialResult(metrics, (), Cost())
            trials.append(Trial(i, TrialSpec(mixture, FIDELITY, 11), State.COMPLETE, result))
        specs = self.make(space).propose(trials, 2)
        assert len(specs) == 2
        assert all(space.contains(spec.mixture, tolerance=1e-9) for spec in specs)

    def test_bounds_scarce_data_and_linear_constraints_hold_together(self) -> None:
        """To rounding, where the optimum is held by all three at once."""
        tokens = {"a": 1_000_000, "b": 4_000_000, "c": 4_000_000, "d": 2_000_000}
        space = MixtureSpace(
            tuple(tokens),
            Mixture.natural(tokens),
            lower={"d": 0.1},
            upper={"c": 0.3},
            available_tokens=tokens,
            max_epochs=2,
            budget_tokens=10_000_000,
            linear=[
                LinearConstraint({"b": 1.0, "c": 1.0}, 0.6),
                LinearConstraint({"c": -1.0, "d": 2.0}, 0.5),
            ],
        )
        specs = self.make(space).propose(example_trials(10, space), 4)
        assert len({spec.mixture for spec in specs}) == 4
        for spec in specs:
            assert space.contains(spec.mixture, tolerance=1e-9)
