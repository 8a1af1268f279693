"""Finalists are judged by fresh seeds alone, and natural stays unless it is surely beaten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Cost, Failure, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.selection.candidates import finalists
from mixopt.selection.gate import Rule, Selection, best_observed
from mixopt.selection.results import Candidate, Decision

FIDELITY = Fidelity("tiny", 1_000, 10_000)
OBJECTIVE = Objective({"web": 1})
CANDIDATES = {
    "natural": Mixture.of({"a": 1, "b": 1, "c": 2}),
    "recommended": Mixture.of({"a": 6, "b": 1, "c": 1}),
    "best observed": Mixture.of({"a": 1, "b": 6, "c": 1}),
    "uniform": Mixture.uniform("abc"),
}
SEEDS = (101, 102, 103, 104, 105, 106)
make = partial(Selection, CANDIDATES, FIDELITY, OBJECTIVE, SEEDS)


def ran(number: int, spec: TrialSpec, value: float | None) -> Trial:
    """`spec` as a complete trial with that value, or one that diverged without."""
    if value is None:
        return Trial(number, spec, State.FAILED, failure=Failure.DIVERGED)
    return Trial(number, spec, State.COMPLETE, TrialResult({"bpb/web": value}, (), Cost()))


def play(
    selection: Selection,
    truth: Mapping[str, float],
    noise: float = 0.001,
    shared: float = 0.1,
    seed: int = 0,
) -> list[Trial]:
    """Run a selection to its end: each value is truth + shared noise of the seed + own noise."""
    trials: list[Trial] = []
    while specs := selection.next_pulls(trials):
        for spec in specs:
            common = np.random.default_rng([seed, spec.seed]).normal()
            own = np.random.default_rng([seed, spec.seed, len(trials)]).normal()
            value = truth[spec.candidate] + shared * common + noise * own
            trials.append(ran(len(trials), spec, value))
    assert selection.done(trials)
    return trials


def shown(decision: Decision, name: str) -> Candidate:
    candidate = decision.candidate(name)
    assert candidate is not None
    return candidate


CLEAR = {"natural": 1.0, "recommended": 0.95, "best observed": 0.97, "uniform": 1.1}


def test_repeating_runs_every_candidate_with_every_seed_once() -> None:
    specs = make().next_pulls([])
    assert {(s.candidate, s.seed) for s in specs} == {(a, s) for a in CANDIDATES for s in SEEDS}
    assert len(specs) == len(CANDIDATES) * len(SEEDS)
    assert {s.role for s in specs} == {Role.SELECT}


def test_pairing_by_seed_sees_what_the_seeds_scatter_would_hide() -> None:
    # candidates differ by .05, seeds by .1: only the differences on equal seeds tell
    verdict = make().verdict(play(make(), CLEAR))
    assert (verdict.promoted, verdict.improved) == ("recommended", True)
    assert verdict.mixture == CANDIDATES["recommended"]
    report = shown(verdict, "recommended")
    assert report.difference == pytest.approx(-0.05, abs=0.002)
    assert report.std is not None
    assert report.std > 0.04
    assert report.n == 6
    assert "adjusted p-value" in verdict.reason


def test_without_sure_improvement_natural_is_promoted_and_the_reason_told() -> None:
    level = dict.fromkeys(CANDIDATES, 1.0)
    verdict = make().verdict(play(make(), level, noise=0.05))
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert verdict.mixture == CANDIDATES["natural"]
    assert "natural is selected" in verdict.reason


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_equal_candidates_are_promoted_no_oftener_than_the_confidence_allows(rule: str) -> None:
    level = dict.fromkeys(CANDIDATES, 1.0)
    selection = make(confidence=0.8, rule=rule, budget=20)
    wrong = [
        selection.verdict(play(selection, level, noise=0.05, seed=seed)).improved
        for seed in range(150)
    ]
    # 20 % allowed; 150 games scatter by .033
    assert np.mean(wrong) < 0.2 + 2 * 0.033
    assert np.mean(wrong) > 0


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_nothing_is_selected_on_runs_that_seeds_do_not_change(rule: Rule) -> None:
    objective = Objective({"web": 1, "code": 1})
    selection = Selection(CANDIDATES, FIDELITY, objective, SEEDS, rule=rule, budget=20)
    trials: list[Trial] = []
    while specs := selection.next_pulls(trials):
        for spec in specs:
            metrics = dict.fromkeys(("bpb/web", "bpb/code"), CLEAR[spec.candidate])
            result = TrialResult(metrics, (), Cost())
            trials.append(Trial(len(trials), spec, State.COMPLETE, result))
    verdict = selection.verdict(trials)
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert "seeds change nothing" in verdict.reason
    report = shown(verdict, "recommended")
    assert report.difference == pytest.approx(-0.05)
    assert report.n >= 2
    assert (report.difference_low, report.p, report.adjusted_p) == (None, None, None)
    assert [each.low for each in report.trade_offs] == [None, None]


def test_a_difference_that_is_the_same_on_every_seed_counts() -> None:
    # seeds move all candidates alike: they are used, and pairing takes all of it away
    verdict = make().verdict(play(make(), CLEAR, noise=0.0))
    assert (verdict.promoted, verdict.improved) == ("recommended", True)


def test_runs_of_the_search_do_not_count_at_the_gate() -> None:
    lucky = [
        ran(
            100 + k,
            TrialSpec(CANDIDATES["uniform"], FIDELITY, s, Role.SEARCH, candidate="uniform"),
            0.1,
        )
        for k, s in enumerate(SEEDS)
    ]
    trials = play(make(), CLEAR)
    assert make().verdict([*lucky, *trials]) == make().verdict(trials)
    assert make().next_pulls(lucky) == make().next_pulls([])


def test_successive_rejects_drops_the_worst_and_never_natural() -> None:
    worst_natural = {**CLEAR, "natural": 2.0}
    selection = make(rule="successive-rejects", budget=16)
    trials = play(selection, worst_natural)
    pulls = {
        candidate: sum(t.spec.candidate == candidate for t in trials) for candidate in CANDIDATES
    }
    assert pulls["uniform"] < pulls["best observed"] < pulls["recommended"]
    assert pulls["natural"] == pulls["recommended"]
    assert selection.live(trials) == ["natural", "recommended"]
    assert len(trials) <= 16


def test_the_schedule_is_that_of_successive_rejects() -> None:
    # n = 40, K = 4: L = 1/2 + 1/2 + 1/3 + 1/4; ceil(36 / (L * {4, 3, 2}))
    selection = Selection(
        CANDIDATES, FIDELITY, OBJECTIVE, range(50), rule="successive-rejects", budget=40
    )
    assert selection.schedule == [6, 8, 12]


def test_a_phase_waits_for_its_runs_before_it_rejects() -> None:
    selection = make(rule="successive-rejects", budget=16)
    first = selection.next_pulls([])
    running = [Trial(k, spec, State.RUNNING) for k, spec in enumerate(first)]
    assert selection.next_pulls(running) == []
    assert not selection.done(running)
    assert selection.live(running) == list(CANDIDATES)


def test_what_is_pulled_next_follows_from_the_trials_alone() -> None:
    selection = make(rule="successive-rejects", budget=16)
    trials = play(selection, CLEAR)
    for cut in range(0, len(trials), 5):
        part = trials[:cut]
        fresh = make(rule="successive-rejects", budget=16)
        assert fresh.next_pulls(part[::-1]) == selection.next_pulls(part)


def test_a_diverged_run_is_not_waited_for_and_never_a_score() -> None:
    selection = make()
    specs = selection.next_pulls([])
    trials = [
        ran(
            k,
            spec,
            None if (spec.candidate, spec.seed) == ("natural", 101) else CLEAR[spec.candidate],
        )
        for k, spec in enumerate(specs)
    ]
    assert selection.done(trials)
    report = shown(selection.verdict(trials), "natural")
    assert report.n == 5


def test_a_candidate_that_was_hardly_measured_does_not_stand_in_a_winners_way() -> None:
    # "recommended" diverges on all seeds but one, where it looks best of all
    trials = [
        ran(t.number, t.spec, 0.5 if t.spec.seed == 101 else None)
        if t.spec.candidate == "recommended"
        else t
        for t in play(make(), CLEAR)
    ]
    verdict = make().verdict(trials)
    assert (verdict.promoted, verdict.improved) == ("best observed", True)
    assert shown(verdict, "recommended").n == 1


def test_of_those_that_pass_the_gate_the_best_is_promoted_not_a_better_one_that_fails() -> None:
    unsteady = {101: 0.5, 102: 1.2, 103: 0.6, 104: 1.1, 105: 0.7, 106: 1.0}
    trials = [
        ran(t.number, t.spec, unsteady[t.spec.seed]) if t.spec.candidate == "recommended" else t
        for t in play(make(), CLEAR)
    ]
    verdict = make().verdict(trials)
    differences = {it.name: it.difference for it in verdict.candidates if it.difference is not None}
    assert min(differences, key=differences.__getitem__) == "recommended"
    assert (verdict.promoted, verdict.improved) == ("best observed", True)


@pytest.mark.parametrize("failure", [Failure.WORKER_LOST, Failure.OUT_OF_MEMORY])
@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_no_verdict_from_runs_lost_to_the_infrastructure_until_they_are_run_again(
    failure: Failure, rule: str
) -> None:
    selection = make(rule=rule, budget=16)
    whole = play(selection, CLEAR)
    gone = next(t for t in whole if t.spec.candidate == "best observed")
    failed = Trial(gone.number, gone.spec, State.FAILED, failure=failure)
    trials = [failed if t.number == gone.number else t for t in whole]
    assert selection.lost(trials) == [failed]
    result = rf"trials {gone.number} \(best observed, seed {gone.spec.seed}: {failure}\)"
    with pytest.raises(StudyError, match=result):
        selection.verdict(trials)
    again = Trial(len(whole), gone.spec, State.WAITING)
    assert selection.lost([*trials, again]) == []
    with pytest.raises(StudyError, match="have not ended"):
        selection.verdict([*trials, again])
    assert gone.result is not None
    answered = ran(len(whole), gone.spec, gone.metrics["bpb/web"])
    verdict = selection.verdict([*trials, answered])
    assert (verdict.promoted, verdict.improved) == ("recommended", True)
    assert shown(verdict, "recommended") == selection.reports(whole)["recommended"]


def test_a_run_that_a_person_gave_up_is_final_and_its_seed_is_left_out() -> None:
    selection = make(budget=16)
    whole = play(selection, CLEAR)
    gone = next(t for t in whole if t.spec.candidate == "best observed")
    given_up = Trial(gone.number, gone.spec, State.FAILED, failure=Failure.GIVEN_UP)
    trials = [given_up if t.number == gone.number else t for t in whole]
    assert selection.lost(trials) == []
    assert selection.next_pulls(trials) == []
    verdict = selection.verdict(trials)
    assert shown(verdict, "best observed").n == shown(verdict, "recommended").n - 1


def test_no_phase_rejects_by_what_a_lost_run_left() -> None:
    selection = make(rule="successive-rejects", budget=16)
    first = selection.next_pulls([])
    lost = first[-1]
    trials = [ran(k, spec, CLEAR[spec.candidate]) for k, spec in enumerate(first[:-1])]
    trials.append(Trial(len(trials), lost, State.FAILED, failure=Failure.WORKER_LOST))
    assert selection.live(trials) == list(CANDIDATES)
    assert selection.next_pulls(trials) == []


def test_there_is_no_verdict_before_the_runs() -> None:
    with pytest.raises(StudyError, match="have not ended"):
        make().verdict([])


def test_there_is_no_verdict_where_natural_never_trained() -> None:
    specs = make().next_pulls([])
    trials = [
        ran(k, spec, None if spec.candidate == "natural" else 1.0) for k, spec in enumerate(specs)
    ]
    with pytest.raises(StudyError, match="natural mixture diverged"):
        make().verdict(trials)


def test_where_a_seed_is_missing_a_difference_has_students_interval_and_a_bonferroni_p() -> None:
    level = {"natural": 0.0, "recommended": -2.0, "best observed": 0.0, "uniform": 0.0}
    own = {101: -1.0, 102: 0.0, 103: 1.0}
    selection = Selection(CANDIDATES, FIDELITY, OBJECTIVE, (101, 102, 103))
    trials = [
        ran(
            k,
            spec,
            level[spec.candidate] + (own[spec.seed] if spec.candidate == "recommended" else 0),
        )
        for k, spec in enumerate(selection.next_pulls([]))
    ]
    last = max(k for k, trial in enumerate(trials) if trial.spec.candidate == "uniform")
    trials[last] = ran(last, trials[last].spec, None)
    report = selection.reports(trials)["recommended"]
    # deviation 1 over 3 seeds; t of 2 degrees of freedom is 2.9200 at .95, and at -2 * sqrt(3)
    # its distribution function is 1/2 - sqrt(12 / 14) / 2
    low, middle, high = report.difference_low, report.difference, report.difference_high
    assert low is not None
    assert middle is not None
    assert high is not None
    assert high - middle == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    assert middle - low == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    p = 0.5 - (12 / 14) ** 0.5 / 2
    assert (report.p, report.adjusted_p) == (pytest.approx(p), pytest.approx(3 * p))


def test_finalists_that_nearly_agree_are_one() -> None:
    near = Mixture.of({"a": 1.001, "b": 1, "c": 2})
    free = MixtureSpace(("a", "b", "c"), CANDIDATES["natural"])
    assert list(finalists(near, CANDIDATES["best observed"], free)) == [
        "natural",
        "best observed",
        "uniform",
    ]
    even = MixtureSpace(("a", "b", "c"), Mixture.uniform("abc"))
    assert list(finalists(CANDIDATES["recommended"], None, even)) == ["natural", "recommended"]


CAPPED = MixtureSpace(("a", "b", "c"), Mixture.of({"a": 1, "b": 3, "c": 4}), upper={"c": 0.25})


def test_all_candidates_but_natural_lie_in_the_space() -> None:
    inside = Mixture.of({"a": 6, "b": 1, "c": 1})
    candidates = finalists(inside, Mixture.of({"a": 1, "b": 1, "c": 8}), CAPPED)
    assert list(candidates) == ["natural", "projected natural", "recommended", "projected uniform"]
    assert not CAPPED.contains(candidates.pop("natural"))
    assert all(CAPPED.contains(mixture) for mixture in candidates.values())


def test_a_recommended_mixture_is_no_double_of_a_natural_one_that_is_forbidden() -> None:
    space = MixtureSpace(("a", "b", "c"), CANDIDATES["natural"], upper={"c": 0.4999})
    beside = Mixture.of({"a": 0.27, "b": 0.24, "c": 0.49})
    assert "recommended" not in finalists(beside, None, space)  # but of its projection
    assert "projected natural" in finalists(beside, None, space)


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_a_forbidden_natural_mixture_that_nobody_beats_gives_way_to_its_projection(
    rule: Literal["repeat", "successive-rejects"],
) -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED)
    selection = Selection(candidates, FIDELITY, OBJECTIVE, SEEDS, rule=rule, budget=12)
    truth = dict.fromkeys(candidates, 1.2) | {"natural": 1.0, "projected natural": 1.3}
    trials = play(selection, truth)
    verdict = selection.verdict(trials)
    assert (verdict.promoted, verdict.improved) == ("projected natural", False)
    assert verdict.mixture == candidates["projected natural"]
    assert shown(verdict, "projected natural").n == shown(verdict, "natural").n


def test_a_mixture_whose_training_diverged_is_no_candidate() -> None:
    uniform, best = Mixture.uniform(("a", "b", "c")), CANDIDATES["best observed"]
    space = MixtureSpace(("a", "b", "c"), CANDIDATES["natural"])
    found = (CANDIDATES["recommended"], best, space)
    assert list(finalists(*found)) == ["natural", "recommended", "best observed", "uniform"]
    beside = Mixture.of({"a": 0.3334, "b": 0.3333, "c": 0.3333})
    assert "uniform" not in finalists(*found, diverged=[beside])
    assert list(finalists(*found, diverged=list(CANDIDATES.values()))) == ["natural"]
    team = {"natural": CANDIDATES["natural"], "production": uniform}
    assert "production" in finalists(*found, team, [uniform])  # a baseline is compared


def test_a_projection_that_nobody_beats_is_asked_about_guardrails() -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED)
    guard = Guardrail(OBJECTIVE.metrics[0], 0.01)
    selection = Selection(candidates, FIDELITY, OBJECTIVE, SEEDS, guardrails=(guard,))
    truth = dict.fromkeys(candidates, 1.2) | {"natural": 1.0, "projected natural": 1.3}
    verdict = selection.verdict(play(selection, truth))
    assert verdict.promoted == "projected natural"
    assert verdict.winner.broken
    assert "projected natural is not shown to keep to the guardrails either" in verdict.reason


def test_no_mixture_is_promoted_that_nobody_measured() -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED)
    selection = Selection(candidates, FIDELITY, OBJECTIVE, SEEDS)
    trials = [
        ran(i, spec, None if spec.candidate == "projected natural" else 1.0)
        for i, spec in enumerate(selection.next_pulls([]))
    ]
    with pytest.raises(StudyError, match="every run of the projected natural mixture diverged"):
        selection.verdict(trials)


def test_the_best_observed_mixture_is_best_on_average_over_its_seeds() -> None:
    def trial(number: int, candidate: str, value: float | None) -> Trial:
        return ran(number, TrialSpec(CANDIDATES[candidate], FIDELITY, number), value)

    trials: Sequence[Trial] = [
        trial(0, "natural", 0.8),
        trial(1, "natural", 1.2),
        trial(2, "uniform", 0.9),
        trial(3, "recommended", None),
    ]
    assert best_observed(trials, OBJECTIVE) == CANDIDATES["uniform"]
    assert best_observed([], OBJECTIVE) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": {"uniform": CANDIDATES["uniform"]}}, "natural mixture is not among"),
        ({"seeds": [1]}, "two different"),
        ({"seeds": [1, 1]}, "two different"),
        ({"confidence": 0.4}, "not in"),
    ],
)
def test_a_selection_that_cannot_decide_is_refused(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {
        "candidates": CANDIDATES,
        "fidelity": FIDELITY,
        "objective": OBJECTIVE,
        "seeds": SEEDS,
    }
    with pytest.raises(StudyError, match=message):
        Selection(**{**right, **wrong})  # type: ignore[arg-type]


OURS = Mixture.of({"a": 5, "b": 1, "c": 4})
OLD = Mixture.of({"a": 1, "b": 5, "c": 10})  # beyond what `CAPPED` allows of c
TEAM = {"production": OURS, "last year": OLD, "natural": Mixture.of({"a": 5, "b": 4, "c": 1})}


def of_a_team(**settings: Any) -> Selection:
    """A selection against a production mixture outside the space, with two further baselines."""
    candidates = finalists(CANDIDATES["recommended"], CANDIDATES["best observed"], CAPPED, TEAM)
    return Selection(
        candidates,
        FIDELITY,
        OBJECTIVE,
        SEEDS,
        baseline="production",
        barred=["last year"],
        **settings,
    )


def test_a_teams_baselines_come_first_and_their_projection_may_stand_in() -> None:
    candidates = of_a_team().candidates
    assert list(candidates) == [
        "production",
        "projected production",
        "last year",
        "natural",
        "recommended",
        "best observed",
        "projected uniform",
    ]
    assert [n for n, m in candidates.items() if not CAPPED.contains(m)] == [
        "production",
        "last year",
    ]


def test_candidates_are_compared_with_the_baseline_that_is_given() -> None:
    truth = dict.fromkeys(of_a_team().candidates, 1.0) | {"natural": 0.9, "recommended": 0.95}
    verdict = of_a_team().verdict(play(of_a_team(), truth))
    assert (verdict.baseline, verdict.promoted, verdict.improved) == ("production", "natural", True)
    assert verdict.reason.startswith("natural differs from production by −0.0993 ")
    assert verdict.candidates[0].name == "production"
    assert shown(verdict, "recommended").difference == pytest.approx(-0.05, abs=0.002)


def test_a_further_baseline_outside_the_space_is_shown_and_never_promoted() -> None:
    truth = dict.fromkeys(of_a_team().candidates, 1.0) | {"last year": 0.5}
    verdict = of_a_team(confidence=0.999).verdict(play(of_a_team(), truth))
    assert (verdict.promoted, verdict.improved) == ("projected production", False)
    assert shown(verdict, "last year").difference == pytest.approx(-0.5, abs=0.002)


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_a_given_baseline_that_nobody_beats_is_passed_no_oftener_than_allowed(rule: Rule) -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED, {"production": OURS})
    selection = Selection(
        candidates,
        FIDELITY,
        OBJECTIVE,
        SEEDS,
        confidence=0.8,
        rule=rule,
        budget=20,
        baseline="production",
    )
    level = dict.fromkeys(candidates, 1.0)
    wrong = [
        selection.verdict(play(selection, level, noise=0.05, seed=seed)).improved
        for seed in range(120)
    ]
    assert 0 < np.mean(wrong) < 0.2 + 2 * 0.037  # 120 games scatter by .037


def test_a_baseline_that_is_no_candidate_is_refused() -> None:
    with pytest.raises(StudyError, match="the production mixture is not among the candidates"):
        make(baseline="production")


def test_a_study_that_compares_with_uniform_runs_it_once() -> None:
    space = MixtureSpace(("a", "b", "c"), CANDIDATES["natural"])
    given = {"uniform": CANDIDATES["uniform"]}
    assert list(finalists(CANDIDATES["recommended"], None, space, given)) == [
        "uniform",
        "recommended",
    ]
