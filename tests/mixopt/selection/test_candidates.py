"""Candidates lie in the space, differ from each other, and have been measured."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.mixture import Mixture
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Trial, TrialSpec
from mixopt.selection.candidates import best_observed, finalists
from tests.mixopt.selection.played import CANDIDATES, CAPPED, FIDELITY, OBJECTIVE, of_a_team, ran


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


def test_a_study_that_compares_with_uniform_runs_it_once() -> None:
    space = MixtureSpace(("a", "b", "c"), CANDIDATES["natural"])
    given = {"uniform": CANDIDATES["uniform"]}
    assert list(finalists(CANDIDATES["recommended"], None, space, given)) == [
        "uniform",
        "recommended",
    ]
