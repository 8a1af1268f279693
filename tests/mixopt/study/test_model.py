"""A study has one model per state of its ledger, whoever asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mixopt import surrogates
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Role, State, Trial
from mixopt.study.model import StudyModel, study_model
from mixopt.study.queries import usual_fidelity
from mixopt.study.settings import Study
from mixopt.study.snapshot import read_snapshot
from mixopt.surrogates.regression.linear import Linear
from tests.pipelines.finished_study import FIDELITY, finished_study


class Counted(Linear):
    """`linear`, with the number of rows of every fit. A seed is one test's: models are kept."""

    fitted: dict[int, list[int]] = {}  # noqa: RUF012

    def fit(self, table: TrialTable) -> Counted:
        self.fitted.setdefault(self.seed, []).append(len(table))
        super().fit(table)
        return self


class AnotherLinear(Linear):
    """A class that may come to stand for the same name."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def trials(finished: Study) -> list[Trial]:
    return read_snapshot(finished).trials


@pytest.fixture
def study(finished: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setitem(surrogates.KNOWN, "counted", f"{__name__}:Counted")
    return changed(finished, surrogate="counted")


def changed(study: Study, **search: object) -> Study:
    return study.model_copy(update={"search": study.search.model_copy(update=search)})


def model(study: Study, trials: Sequence[Trial]) -> StudyModel:
    return study_model(study, FIDELITY, trials)


def test_all_who_ask_about_the_same_trials_share_one_fit(study: Study, trials: list[Trial]) -> None:
    again = read_snapshot(study).trials
    first, second = model(study, trials).fitted(), model(study, again).fitted()
    assert first is second
    assert Counted.fitted[study.seed] == [
        sum(t.complete and t.spec.role is not Role.SELECT for t in trials)
    ]


def test_selections_trials_and_those_that_have_not_ended_change_no_model(
    study: Study, trials: list[Trial]
) -> None:
    searched = [t for t in trials if t.spec.role is not Role.SELECT]
    waiting = replace(trials[0], number=99, state=State.WAITING, result=None)
    assert model(study, searched) is model(study, [*trials, waiting])


def test_a_trial_a_metric_and_each_setting_that_a_fit_depends_on_make_another_model(
    study: Study, trials: list[Trial]
) -> None:
    known = model(study, trials).key
    (first, *rest), result = trials, trials[0].result
    assert result is not None
    other = replace(first, result=replace(result, metrics={**result.metrics, "bpb/web": 0.5}))
    weights = {"bpb/descriptions": 1.0, "bpb/web": 1.0}
    keys = [
        model(study, rest).key,
        model(study, [other, *rest]).key,
        model(study.model_copy(update={"seed": 1}), trials).key,
        model(study.model_copy(update={"objective": weights}), trials).key,
        model(changed(study, surrogate="linear"), trials).key,
        study_model(study, replace(FIDELITY, tokens=1), trials).key,
    ]
    assert len({known, *keys}) == 7


def test_a_name_that_comes_to_stand_for_another_class_makes_another_model(
    study: Study, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model(study, trials).fitted()
    monkeypatch.setitem(surrogates.KNOWN, "counted", f"{__name__}:AnotherLinear")
    after = model(study, trials).fitted()
    assert (type(before), type(after)) == (Counted, AnotherLinear)


def test_metrics_are_fitted_apart_and_those_named_are_predicted(
    study: Study, trials: list[Trial]
) -> None:
    found = model(study.model_copy(update={"seed": 5}), trials)
    weights = np.array([t.spec.mixture.weights for t in trials[:2]])
    assert found.fitted().predict(weights).metrics == ("bpb/descriptions",)
    other = found.fitted(metrics=["bpb/web", "bpb/python"])
    assert other.predict(weights).metrics == ("bpb/web", "bpb/python")
    assert len(Counted.fitted[5]) == 2


def test_auto_is_compared_once_and_the_chosen_surrogate_fitted(
    study: Study, trials: list[Trial]
) -> None:
    found = model(changed(study, surrogate="auto"), trials)
    assert set(found.choice.scores) == {"effective-data", "gp", "linear"}
    assert found.fitted().name == found.name == found.choice.name
    assert found.choice is model(changed(study, surrogate="auto"), trials).choice


def test_every_complete_trial_of_the_search_is_predicted_out_of_fold_once(
    study: Study, trials: list[Trial]
) -> None:
    found = model(study, trials)
    searched = [t for t in found.trials if t.complete]
    assert found.held_out("linear") is found.held_out("linear")
    np.testing.assert_array_equal(
        found.held_out("linear").observed[:, 0], [t.metrics["bpb/descriptions"] for t in searched]
    )


def test_the_usual_fidelity_is_that_of_the_searchs_complete_trials(trials: list[Trial]) -> None:
    assert usual_fidelity(trials) == FIDELITY
    assert usual_fidelity([t for t in trials if t.spec.role is Role.SELECT]) is None
