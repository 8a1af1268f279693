"""A study says what its search foretold for fresh seeds, and whether that came true."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.promote import Promotion, predicted
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.report import write_report
from mixopt.study.sections import Promote
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import ledger_trials, mixopt, succeeded, write_study

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]


@pytest.fixture(scope="module")
def ran(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search, its state, its selection and the state after it; what each printed."""
    folder = tmp_path_factory.mktemp("foretold")
    file = write_study(folder / "foretold.yaml", text_corpus.path, promote=None)
    said = {"file": file}
    for step in ("search", "status", "select", "status"):
        done = succeeded(mixopt(step, file.name, cwd=folder))
        said[step if step not in said else "status after"] = " ".join(done.stdout.split())
    return said


@pytest.fixture(scope="module")
def verdict(ran: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((load_study(ran["file"]).home / "verdict.json").read_text())
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
    assert "The search foretold" in after


def test_console_status_and_report_say_the_same(ran: dict[str, Any], verdict: Any) -> None:
    start = ran["select"].index("The search foretold")
    end = ran["select"].index("degrees of freedom).", start)
    sentence = ran["select"][start:end]
    name = re.search(r"of the (.+?) mixture", sentence)
    assert name is not None
    low, high = (candidate_called(verdict, name[1])[f"predicted_{key}"] for key in ("low", "high"))
    assert f"90 % between {low:.4f} and {high:.4f} for the mean over 2 fresh seeds" in sentence
    assert sentence in ran["status after"]
    page = write_report(load_study(ran["file"])).read_text()
    assert sentence in " ".join(page.split())


def test_beside_a_promoted_model_stands_the_prediction_of_the_verdict(
    ran: dict[str, Any], verdict: Any
) -> None:
    candidate = verdict["candidates"][0]
    with open_session(ran["file"]) as session:
        (metric,) = session.objective.metrics
        settings = Promote()
        found, best = (
            predicted(Promotion(session, settings, Mixture.exact(it), "", ran["file"].parent))
            for it in (candidate["mixture"], verdict["recommended"])
        )
    assert best["predicted_interval"][metric] == pytest.approx(verdict["interval_of_run"])
    assert found["predicted"][metric] == pytest.approx(
        (candidate["predicted_mean"], candidate["predicted_std"])
    )
    assert len(found["predicted"]) > 1  # domains that the objective does not weigh as well
    assert found["predicted_of"]["tokens"] == session.fidelity.tokens


def candidate_called(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(candidate for candidate in verdict["candidates"] if candidate["name"] == name)


def test_scatter_is_that_of_the_repeats_in_the_ledger(ran: dict[str, Any], verdict: Any) -> None:
    objective = load_study(ran["file"]).mixture_objective()
    groups: dict[Any, list[float]] = {}
    for trial in ledger_trials(ran["file"]):
        if trial.spec.role is Role.SELECT or trial.spec.role is Role.REPEAT or not trial.number:
            key = trial.spec.candidate or "repeats"
            groups.setdefault(key, []).append(objective.value(trial.metrics))
    degrees = sum(len(values) - 1 for values in groups.values())
    squares = sum(np.var(values) * len(values) for values in groups.values())
    said = verdict["seed_scatter"]
    assert said["std"] == pytest.approx(math.sqrt(squares / degrees))
    assert said["runs"] == sum(map(len, groups.values()))
    assert 1 <= said["freedom"] <= degrees


def test_every_candidate_is_judged_by_its_interval(verdict: Any) -> None:
    for candidate in verdict["candidates"]:
        low, high = candidate["predicted_low"], candidate["predicted_high"]
        assert high - low > 2 * 1.6449 * candidate["predicted_std"]  # wider than for one seed
        assert candidate["inside"] == (low <= candidate["mean"] <= high)


def test_intervals_of_a_run_of_the_mean_and_of_one_seed_are_ever_narrower(verdict: Any) -> None:
    widths = [np.ptp(verdict[f"interval{of}"]) for of in ("_of_run", "", "_of_this_seed")]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] > widths[2]


def test_natural_hides_less_than_what_was_run_with_one_seed(verdict: Any) -> None:
    hidden = {}
    for candidate in verdict["candidates"]:
        half = (candidate["predicted_high"] - candidate["predicted_low"]) / 2
        hidden[candidate["name"]] = half**2 - (1.6449 * candidate["predicted_std"]) ** 2
    # over two seeds of the search and two fresh ones, against one and two
    expected = (1 / 2 + 1 / 2) / (1 + 1 / 2)
    assert hidden["natural"] / hidden["uniform"] == pytest.approx(expected, rel=1e-3)


def test_mlflow_has_the_intervals(ran: dict[str, Any], verdict: Any) -> None:
    study = load_study(ran["file"])
    [parent] = RunStore.open(study).runs({"mixopt.study": study.name, "mixopt.kind": "study"})
    shown = parent.data.metrics
    candidate = candidate_called(verdict, "natural")
    for key in ("predicted_low", "predicted_high", "inside"):
        assert shown[f"selection/natural/{key}"] == pytest.approx(float(candidate[key]))
    assert shown["selection/seed_scatter/std"] == pytest.approx(verdict["seed_scatter"]["std"])
    assert "The search foretold" in parent.data.tags["mlflow.note.content"]
