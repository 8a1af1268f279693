"""Non-inferiority: what is promoted keeps to the guardrails; a refusal says what it would take."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Cost, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.selection.gate import judge
from mixopt.selection.guarded import Guarded
from mixopt.selection.runs import Selection

CANDIDATES = {
    "natural": Mixture.of({"web": 0.7, "code": 0.3}),
    "recommended": Mixture.of({"web": 0.3, "code": 0.7}),
    "best observed": Mixture.of({"web": 0.5, "code": 0.5}),
}
AT = Fidelity("proxy", 1, 1)
ALLOWED = 0.02


def selection(
    guardrails: tuple[Guardrail, ...] = (Guardrail("bpb/web", ALLOWED),), seeds: int = 4
) -> Selection:
    return Selection(
        candidates=CANDIDATES,
        fidelity=AT,
        objective=Objective({"code": 1.0}),
        seeds=range(seeds),
        confidence=0.9,
        guardrails=guardrails,
    )


def trials(
    web: dict[str, float],
    code: dict[str, float],
    seeds: int = 4,
    noise: float = 0.002,
    draw: int = 0,
    lost: tuple[str, int] | None = None,
) -> list[Trial]:
    """Complete runs of all candidates; seeds share an effect, as equal data order does."""
    rng = np.random.default_rng(draw)
    found = []
    for seed in range(seeds):
        shared = rng.normal(0, 0.02)
        for name, mixture in CANDIDATES.items():
            values = {
                "bpb/web": web[name] + shared + rng.normal(0, noise),
                "bpb/code": code[name] + shared + rng.normal(0, noise),
            }
            spec = TrialSpec(mixture, AT, seed, Role.SELECT, 1, name)
            result = TrialResult(metrics=values, curve=(), cost=Cost())
            state = State.COMPLETE
            if (name, seed) == lost:
                del values["bpb/web"]
            found.append(Trial(len(found), spec, state, result))
    return found


CODE = {"natural": 3.0, "recommended": 2.8, "best observed": 2.9}


def test_the_best_that_keeps_to_it_is_promoted() -> None:
    web = {"natural": 3.0, "recommended": 3.3, "best observed": 3.001}
    verdict = judge(selection(), trials(web, CODE))
    assert verdict.promoted == "best observed"
    assert verdict.improved
    assert "guardrails hold: bpb/web" in verdict.reason
    better = verdict.candidate("recommended")
    assert better is not None
    (broken,) = better.broken
    assert broken.worse == pytest.approx(0.3, abs=0.01)
    assert broken.p == 1.0


def test_a_refusal_names_the_guardrail_and_the_difference() -> None:
    web = {"natural": 3.0, "recommended": 3.3, "best observed": 3.2}
    verdict = judge(selection(), trials(web, CODE))
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert "recommended differs from natural by −0.1996" in verdict.reason
    assert "not shown to keep to the guardrails (bpb/web is worse by 0.3012" in verdict.reason
    assert "0.02 allowed" in verdict.reason


def test_a_refusal_says_how_many_seeds_would_show_that_it_holds() -> None:
    web = {"natural": 3.0, "recommended": 3.01, "best observed": 3.3}
    verdict = judge(selection(), trials(web, CODE, noise=0.015))
    assert not verdict.improved
    assert "seeds with this difference and scatter would show it" in verdict.reason
    report = verdict.candidate("recommended")
    assert report is not None
    asked = report.guarded[0].seeds
    assert asked is not None
    assert asked > 4


def test_a_share_is_of_the_baselines_value() -> None:
    web = {"natural": 3.0, "recommended": 3.04, "best observed": 3.04}
    one, two = Guardrail("bpb/web", 0.01, relative=True), Guardrail("bpb/web", 0.02, relative=True)
    assert not judge(selection((one,)), trials(web, CODE)).improved
    assert judge(selection((two,)), trials(web, CODE)).improved


def test_where_higher_is_better_less_is_worse() -> None:
    web = {"natural": 60.0, "recommended": 59.0, "best observed": 60.4}
    guard = Guardrail("bpb/web", 0.5, higher=True)
    verdict = judge(selection((guard,)), trials(web, CODE))
    assert verdict.promoted == "best observed"


def test_every_guardrail_must_hold() -> None:
    web = {"natural": 3.0, "recommended": 3.0, "best observed": 3.0}
    guards = (Guardrail("bpb/web", ALLOWED), Guardrail("bpb/law", ALLOWED))
    verdict = judge(selection(guards), trials(web, CODE))
    assert not verdict.improved
    assert "bpb/law: no two seeds measured it" in verdict.reason


def test_a_missing_run_leaves_pairs() -> None:
    web = {"natural": 3.0, "recommended": 3.0, "best observed": 3.0}
    verdict = judge(selection(), trials(web, CODE, lost=("recommended", 1)))
    assert verdict.promoted == "recommended"


def test_without_guardrails_nothing_changes() -> None:
    web = {"natural": 3.0, "recommended": 9.0, "best observed": 3.0}
    verdict = judge(selection(()), trials(web, CODE))
    assert verdict.promoted == "recommended"
    assert all(it.guarded == () for it in verdict.candidates)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_promoted_mixture_violates_one_in_at_most_a_tenth_of_studies(noise: float) -> None:
    web = {"natural": 3.0, "recommended": 3.0 + ALLOWED, "best observed": 3.0 + ALLOWED}
    games = 300
    wrong = sum(
        judge(selection(), trials(web, CODE, noise=noise, draw=draw)).improved
        for draw in range(games)
    )
    assert wrong / games <= 0.1 + 1.64 * np.sqrt(0.1 * 0.9 / games)


def test_json_gives_it_back() -> None:
    web = {"natural": 3.0, "recommended": 3.3, "best observed": 3.001}
    report = judge(selection(), trials(web, CODE)).candidates[1]
    assert type(report).from_json(report.to_json()) == report
    assert Guarded.from_json(report.guarded[0].to_json()) == report.guarded[0]


def test_a_baseline_that_is_alone_is_judged_without_an_error() -> None:
    alone = dataclasses.replace(selection(), candidates={"natural": CANDIDATES["natural"]})
    web = dict.fromkeys(CANDIDATES, 3.0)
    verdict = judge(alone, trials(web, CODE))
    assert (verdict.promoted, verdict.improved) == ("natural", False)
    assert verdict.winner.guarded == ()
