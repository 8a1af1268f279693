"""Finalists are judged by fresh seeds alone, and natural stays unless it is surely beaten."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.guardrails import Guardrail
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Failure, Role, State, Trial, TrialResult, TrialSpec
from mixopt.selection.candidates import finalists
from mixopt.selection.gate import judge
from mixopt.selection.reports import reports
from mixopt.selection.runs import Rule, Selection
from tests.mixopt.selection.played import (
    CANDIDATES,
    CAPPED,
    CLEAR,
    FIDELITY,
    OBJECTIVE,
    OURS,
    SEEDS,
    make,
    of_a_team,
    play,
    ran,
    shown,
)


def test_pairing_by_seed_sees_what_the_seeds_scatter_would_hide() -> None:
    # candidates differ by .05, seeds by .1: only the differences on equal seeds tell
    verdict = judge(make(), play(make(), CLEAR))
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
    verdict = judge(make(), play(make(), level, noise=0.05))
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert verdict.mixture == CANDIDATES["natural"]
    assert "natural is selected" in verdict.reason


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_equal_candidates_are_promoted_no_oftener_than_the_confidence_allows(rule: str) -> None:
    level = dict.fromkeys(CANDIDATES, 1.0)
    selection = make(confidence=0.8, rule=rule, budget=20)
    wrong = [
        judge(selection, play(selection, level, noise=0.05, seed=seed)).improved
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
    verdict = judge(selection, trials)
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert "seeds change nothing" in verdict.reason
    report = shown(verdict, "recommended")
    assert report.difference == pytest.approx(-0.05)
    assert report.n >= 2
    assert (report.difference_low, report.p, report.adjusted_p) == (None, None, None)
    assert [each.low for each in report.trade_offs] == [None, None]


def test_a_difference_that_is_the_same_on_every_seed_counts() -> None:
    # seeds move all candidates alike: they are used, and pairing takes all of it away
    verdict = judge(make(), play(make(), CLEAR, noise=0.0))
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
    assert judge(make(), [*lucky, *trials]) == judge(make(), trials)
    assert make().next_pulls(lucky) == make().next_pulls([])


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
    report = shown(judge(selection, trials), "natural")
    assert report.n == 5


def test_a_candidate_that_was_hardly_measured_does_not_stand_in_a_winners_way() -> None:
    # "recommended" diverges on all seeds but one, where it looks best of all
    trials = [
        ran(t.number, t.spec, 0.5 if t.spec.seed == 101 else None)
        if t.spec.candidate == "recommended"
        else t
        for t in play(make(), CLEAR)
    ]
    verdict = judge(make(), trials)
    assert (verdict.promoted, verdict.improved) == ("best observed", True)
    assert shown(verdict, "recommended").n == 1


def test_of_those_that_pass_the_gate_the_best_is_promoted_not_a_better_one_that_fails() -> None:
    unsteady = {101: 0.5, 102: 1.2, 103: 0.6, 104: 1.1, 105: 0.7, 106: 1.0}
    trials = [
        ran(t.number, t.spec, unsteady[t.spec.seed]) if t.spec.candidate == "recommended" else t
        for t in play(make(), CLEAR)
    ]
    verdict = judge(make(), trials)
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
        judge(selection, trials)
    again = Trial(len(whole), gone.spec, State.WAITING)
    assert selection.lost([*trials, again]) == []
    with pytest.raises(StudyError, match="have not ended"):
        judge(selection, [*trials, again])
    assert gone.result is not None
    answered = ran(len(whole), gone.spec, gone.metrics["bpb/web"])
    verdict = judge(selection, [*trials, answered])
    assert (verdict.promoted, verdict.improved) == ("recommended", True)
    assert shown(verdict, "recommended") == reports(selection, whole)["recommended"]


def test_a_run_that_a_person_gave_up_is_final_and_its_seed_is_left_out() -> None:
    selection = make(budget=16)
    whole = play(selection, CLEAR)
    gone = next(t for t in whole if t.spec.candidate == "best observed")
    given_up = Trial(gone.number, gone.spec, State.FAILED, failure=Failure.GIVEN_UP)
    trials = [given_up if t.number == gone.number else t for t in whole]
    assert selection.lost(trials) == []
    assert selection.next_pulls(trials) == []
    verdict = judge(selection, trials)
    assert shown(verdict, "best observed").n == shown(verdict, "recommended").n - 1


def test_there_is_no_verdict_before_the_runs() -> None:
    with pytest.raises(StudyError, match="have not ended"):
        judge(make(), [])


def test_there_is_no_verdict_where_natural_never_trained() -> None:
    specs = make().next_pulls([])
    trials = [
        ran(k, spec, None if spec.candidate == "natural" else 1.0) for k, spec in enumerate(specs)
    ]
    with pytest.raises(StudyError, match="natural mixture diverged"):
        judge(make(), trials)


@pytest.mark.parametrize("rule", ["repeat", "successive-rejects"])
def test_a_forbidden_natural_mixture_that_nobody_beats_gives_way_to_its_projection(
    rule: Literal["repeat", "successive-rejects"],
) -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED)
    selection = Selection(candidates, FIDELITY, OBJECTIVE, SEEDS, rule=rule, budget=12)
    truth = dict.fromkeys(candidates, 1.2) | {"natural": 1.0, "projected natural": 1.3}
    trials = play(selection, truth)
    verdict = judge(selection, trials)
    assert (verdict.promoted, verdict.improved) == ("projected natural", False)
    assert verdict.mixture == candidates["projected natural"]
    assert shown(verdict, "projected natural").n == shown(verdict, "natural").n


def test_a_projection_that_nobody_beats_is_asked_about_guardrails() -> None:
    candidates = finalists(CANDIDATES["recommended"], None, CAPPED)
    guard = Guardrail(OBJECTIVE.metrics[0], 0.01)
    selection = Selection(candidates, FIDELITY, OBJECTIVE, SEEDS, guardrails=(guard,))
    truth = dict.fromkeys(candidates, 1.2) | {"natural": 1.0, "projected natural": 1.3}
    verdict = judge(selection, play(selection, truth))
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
        judge(selection, trials)


def test_candidates_are_compared_with_the_baseline_that_is_given() -> None:
    truth = dict.fromkeys(of_a_team().candidates, 1.0) | {"natural": 0.9, "recommended": 0.95}
    verdict = judge(of_a_team(), play(of_a_team(), truth))
    assert (verdict.baseline, verdict.promoted, verdict.improved) == ("production", "natural", True)
    assert verdict.reason.startswith("natural differs from production by −0.0993 ")
    assert verdict.candidates[0].name == "production"
    assert shown(verdict, "recommended").difference == pytest.approx(-0.05, abs=0.002)


def test_a_further_baseline_outside_the_space_is_shown_and_never_promoted() -> None:
    truth = dict.fromkeys(of_a_team().candidates, 1.0) | {"last year": 0.5}
    verdict = judge(of_a_team(confidence=0.999), play(of_a_team(), truth))
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
        judge(selection, play(selection, level, noise=0.05, seed=seed)).improved
        for seed in range(120)
    ]
    assert 0 < np.mean(wrong) < 0.2 + 2 * 0.037  # 120 games scatter by .037
