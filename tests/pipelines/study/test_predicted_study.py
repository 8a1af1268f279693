"""A study predicts the objective for fresh seeds, and reports whether the prediction held."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from mixopt.core.trials import Role
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.promote import predicted
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.wording import interval
from mixopt.selection.results import Predicted
from mixopt.study.promote import Promote
from mixopt.study.records import read_verdict
from mixopt.study.results import Verdict
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import ledger_trials, mixopt, succeeded, write_study

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]


@pytest.fixture(scope="module")
def ran(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search, its state, its selection and the state after it; what each printed."""
    folder = tmp_path_factory.mktemp("predicted")
    file = write_study(folder / "predicted.yaml", text_corpus.path, promote=None)
    result = {"file": file}
    for step in ("search", "status", "select", "status"):
        done = succeeded(mixopt(step, file.name, cwd=folder))
        result[step if step not in result else "status after"] = " ".join(done.stdout.split())
    return result


@pytest.fixture(scope="module")
def verdict(ran: dict[str, Any]) -> Verdict:
    found = read_verdict(load_study(ran["file"]).home)
    assert found is not None
    return found


def test_before_selection_a_value_is_said_to_be_of_one_seed(ran: dict[str, Any]) -> None:
    assert "of one seed: seed standard deviation of a run " in ran["status"]
    assert (
        "from 2 repeated runs (1 effective degree of freedom). Nothing is selected yet."
        in ran["status"]
    )


def test_the_forecast_is_said_before_it_is_tried(ran: dict[str, Any]) -> None:
    before, after = ran["select"].split("selection:", 1)
    assert "for the mean over seeds, between" in before
    assert "The search predicted" in after


def test_console_status_and_report_say_the_same(ran: dict[str, Any], verdict: Verdict) -> None:
    start = ran["select"].index("The search predicted")
    end = ran["select"].index("degrees of freedom).", start)
    sentence = ran["select"][start:end]
    name = re.search(r"of the (.+?) mixture", sentence)
    assert name is not None
    predicted = predicted_of(verdict, name[1])
    between = f"90 % between {predicted.low:.4f} and {predicted.high:.4f}"
    assert f"{between} for the mean over 2 fresh seeds" in sentence
    assert sentence in ran["status after"]
    page = write_report(load_study(ran["file"])).read_text()
    assert sentence in " ".join(page.split())


def test_beside_a_promoted_model_stands_the_prediction_of_the_verdict(
    ran: dict[str, Any], verdict: Verdict
) -> None:
    candidate = verdict.candidates[0]
    with open_session(ran["file"]) as session:
        (metric,) = session.objective.metrics
        settings, folder = Promote(), ran["file"].parent
        found, best = (
            predicted(PromotionRun(session, settings, it, "", folder, verdict.surrogate))
            for it in (candidate.mixture, verdict.recommended)
        )
    assert (best[metric].low, best[metric].high) == pytest.approx(verdict.interval_of_run)
    expected = predicted_of(verdict, candidate.name)
    assert found[metric].mean == pytest.approx(expected.mean)
    assert found[metric].std == pytest.approx(expected.std)
    assert len(found) > 1  # domains that the objective does not weigh as well


def predicted_of(verdict: Verdict, name: str) -> Predicted:
    candidate = verdict.candidate(name)
    assert candidate is not None
    assert candidate.predicted is not None
    return candidate.predicted


def test_scatter_is_that_of_the_repeats_in_the_ledger(
    ran: dict[str, Any], verdict: Verdict
) -> None:
    objective = load_study(ran["file"]).mixture_objective()
    groups: dict[Any, list[float]] = {}
    for trial in ledger_trials(ran["file"]):
        if trial.spec.role is Role.SELECT or trial.spec.role is Role.REPEAT or not trial.number:
            key = trial.spec.candidate or "repeats"
            groups.setdefault(key, []).append(objective.value(trial.metrics))
    degrees = sum(len(values) - 1 for values in groups.values())
    squares = sum(np.var(values) * len(values) for values in groups.values())
    scatter = verdict.seed_scatter
    assert scatter is not None
    assert scatter.std == pytest.approx(math.sqrt(squares / degrees))
    assert scatter.runs == sum(map(len, groups.values()))
    assert 1 <= scatter.freedom <= degrees


def test_every_candidate_is_judged_by_its_interval(verdict: Verdict) -> None:
    for candidate in verdict.candidates:
        predicted = predicted_of(verdict, candidate.name)
        assert predicted.half > 1.6449 * predicted.std  # wider than for one seed
        assert candidate.mean is not None
        assert candidate.inside == (predicted.low <= candidate.mean <= predicted.high)


def test_intervals_of_a_run_of_the_mean_and_of_one_seed_are_ever_narrower(verdict: Verdict) -> None:
    intervals = (verdict.interval_of_run, verdict.interval, verdict.interval_of_this_seed)
    widths = [high - low for low, high in intervals]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] > widths[2]


def test_natural_hides_less_than_what_was_run_with_one_seed(verdict: Verdict) -> None:
    hidden = {}
    for candidate in verdict.candidates:
        predicted = predicted_of(verdict, candidate.name)
        hidden[candidate.name] = predicted.half**2 - (1.6449 * predicted.std) ** 2
    # over two seeds of the search and two fresh ones, against one and two
    expected = (1 / 2 + 1 / 2) / (1 + 1 / 2)
    assert hidden["natural"] / hidden["uniform"] == pytest.approx(expected, rel=1e-3)


def test_mlflow_has_the_intervals(ran: dict[str, Any], verdict: Verdict) -> None:
    study = load_study(ran["file"])
    [parent] = RunStore.open(study).runs({"mixopt.study": study.name, "mixopt.kind": "study"})
    page = parent.data.tags["mlflow.note.content"]
    assert verdict.winner.mean is not None
    assert parent.data.metrics["objective"] == pytest.approx(verdict.winner.mean)
    assert interval(predicted_of(verdict, "natural"), 4) in page
    assert "The search predicted" in page
