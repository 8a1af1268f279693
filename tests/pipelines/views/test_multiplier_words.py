"""What a gain is worth in tokens: computed from the study's curves, told alike on every page."""

from __future__ import annotations

import re

import pytest

from mixopt.pipelines.study.multipliers import compute_multipliers
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.views.closing import mixtures_table
from mixopt.pipelines.views.mlflow.tracked_values import verdict_metrics
from mixopt.pipelines.views.multiplier_words import multiplier_line, multiplier_row
from mixopt.pipelines.views.report import write_report
from mixopt.selection.multiplier import Multiplier
from mixopt.study.records import read_verdict
from mixopt.study.results import Verdict
from mixopt.study.settings import Study
from tests.pipelines.finished_study import FIDELITY, finished_study, verdict_of
from tests.pipelines.whole_study import ledger_trials

EXPONENT = 0.12  # of the curves of a finished study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def verdict(study: Study) -> Verdict:
    found = read_verdict(study.home)
    assert found is not None
    return found


def with_multiplier(verdict: Verdict, times: Multiplier) -> Verdict:
    return verdict_of(verdict, multipliers={verdict.promoted: times})


def test_it_follows_from_the_curves_of_the_baseline(study: Study, verdict: Verdict) -> None:
    trials = ledger_trials(study)
    found = compute_multipliers(study, FIDELITY, verdict.candidates, trials)["found"]
    values = {it.name: it.mean for it in verdict.candidates}
    assert values["found"] is not None
    assert values["natural"] is not None
    true = (values["found"] / values["natural"]) ** (-1 / EXPONENT)
    assert found.value == pytest.approx(true, rel=0.1)  # an exponent that is unusually small
    assert found.lower_bound  # the default recipe's rate decays


def test_every_page_tells_the_same(
    study: Study, verdict: Verdict, capsys: pytest.CaptureFixture[str]
) -> None:
    line = multiplier_line(verdict)
    assert line.startswith(
        "For what the found mixture reached, the natural mixture would need 1.42 times the tokens "
        "(90 % interval 1.20 to 1.90; a lower bound: "
    )
    show_status(study.path)
    assert line in " ".join(capsys.readouterr().out.split())
    page = re.sub(r"\s+", " ", write_report(study).read_text())
    assert line in page
    cell = "1.42× (1.20 to 1.90)"
    assert ">1.42×<small>1.20 to 1.90</small>" in page
    table = mixtures_table(verdict, ["web"], study.mixture_objective(), 400_000)
    assert any(cell in column.cells for column in table.columns)
    shown = {name: value for name, value, _, _ in verdict_metrics(verdict, 0)}
    assert shown["multiplier"] == 1.42


def test_an_open_end_and_an_unknown_multiplier_are_no_numbers(verdict: Verdict) -> None:
    far = with_multiplier(verdict, Multiplier(3.0, 1.5, None, lower_bound=False))
    assert "need 3.00 times the tokens (90 % interval 1.50 to over 10)." in multiplier_line(far)
    few = Multiplier(None, None, None, lower_bound=True, reason="too few evaluations")
    unknown = with_multiplier(verdict, few)
    assert multiplier_line(unknown).endswith(
        "would need an unknown number of times the tokens: too few evaluations."
    )
    ((label, cells),) = multiplier_row(unknown, unknown.candidates)
    assert label == "tokens that natural needs for it, at least (90 %)"
    assert cells == ["–", "not known", "–"]
    beyond = with_multiplier(verdict, Multiplier(None, 4.0, None, lower_bound=True, reason="more"))
    assert "at least 4.00" in multiplier_line(beyond)
    assert multiplier_row(beyond, beyond.candidates)[0][1][1] == "> 4.00×"


def test_without_a_gain_there_is_nothing_to_tell(verdict: Verdict) -> None:
    none = verdict_of(verdict, multipliers={})
    assert multiplier_line(none) == multiplier_line(None) == ""
    assert multiplier_row(none, none.candidates) == multiplier_row(None, []) == []
