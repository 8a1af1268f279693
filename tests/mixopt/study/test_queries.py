"""What is asked of a study's trials has one answer, whoever asks."""

from __future__ import annotations

import dataclasses

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.study.queries import best_trial, search_progress, search_trials, usual_fidelity

OBJECTIVE = Objective({"bpb/law": 1})
PROXY = Fidelity("proxy", 10, 100)


def trial(number: int, value: float, role: Role = Role.SEARCH, fidelity: Fidelity = PROXY) -> Trial:
    mixture = Mixture.of({"law": 1 + number, "code": 9 - number})
    result = TrialResult({"bpb/law": value}, (), Cost(100, 2.0, 1e6))
    return Trial(number, TrialSpec(mixture, fidelity, 0, role), State.COMPLETE, result)


def test_selections_runs_are_no_part_of_a_search() -> None:
    mine, fresh = trial(0, 2.0, Role.REPEAT), trial(1, 1.0, Role.SELECT)
    assert search_trials([mine, fresh]) == [mine]
    assert best_trial([mine, fresh], OBJECTIVE) == mine
    assert [step.trial for step in search_progress([mine, fresh], OBJECTIVE)] == [mine]


def test_a_trial_without_the_objective_is_none_but_costs() -> None:
    lacking = dataclasses.replace(trial(0, 1.0), result=TrialResult({}, (), Cost(40, 1.0, 5e5)))
    pruned = dataclasses.replace(trial(1, 0.5), state=State.PRUNED)
    last, better = trial(3, 3.0), trial(2, 2.0)
    steps = search_progress([last, pruned, lacking, better], OBJECTIVE)
    assert [(s.trial.number, s.value, s.best) for s in steps] == [(2, 2.0, 2.0), (3, 3.0, 2.0)]
    assert steps[-1].spent == Cost(340, 7.0, 3.5e6)
    assert best_trial([lacking, pruned], OBJECTIVE) is None


def test_the_usual_fidelity_is_the_most_frequent_one() -> None:
    large = Fidelity("large", 20, 100)
    trials = [trial(0, 1.0, fidelity=large), trial(1, 1.0), trial(2, 1.0)]
    trials += [trial(n, 1.0, Role.SELECT, large) for n in (3, 4)]
    assert usual_fidelity(trials) == PROXY
    assert usual_fidelity([]) is None


def test_mixtures_that_differ_by_rounding_are_one() -> None:
    mixture = Mixture(("law", "code"), (0.3, 0.7))
    assert mixture.same_as(Mixture(("law", "code"), (0.1 + 0.2, 0.7)))
    assert not mixture.same_as(Mixture(("law", "code"), (0.3001, 0.6999)))
    assert not mixture.same_as(Mixture(("code", "law"), (0.3, 0.7)))
