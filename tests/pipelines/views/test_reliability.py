"""A metric that cannot rank mixtures is named wherever a study is shown, with what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import mixopt
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Cost, Role, TrialResult, TrialSpec
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.views.reliability import (
    reliability_line,
    reliability_rows,
    reliability_warnings,
)
from mixopt.pipelines.views.report import render
from mixopt.study.reliability import study_reliability
from mixopt.study.settings import Study, load_study
from mixopt.study.snapshot import read_snapshot
from mixopt.surrogates.noise import SeedScatter
from mixopt.surrogates.reliability import Reliability
from tests.pipelines.finished_study import FIDELITY, STUDY, TOKENS, open_ledger, write_study

OBJECTIVE = "{descriptions: 1.0, headers: 1.0}"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """One metric moves by .1 from mixture to mixture, the other by no more than its seeds."""
    folder = tmp_path_factory.mktemp("noisy")
    write_study(folder)
    text = STUDY.format(name="tiny").replace("{descriptions: 1.0}", OBJECTIVE)
    (folder / "study.yaml").write_text(text)
    study, rng = load_study(folder / "study.yaml"), np.random.default_rng(0)
    ledger = open_ledger(study)
    natural = Mixture.natural(TOKENS)
    specs = [
        TrialSpec(Mixture.from_array(TOKENS, weights), FIDELITY, 0)
        for weights in rng.dirichlet(4 * natural.array, 24)
    ]
    specs += [TrialSpec(natural, FIDELITY, seed, Role.REPEAT) for seed in range(4)]
    for spec in specs:
        trial = ledger.add(spec)
        ledger.start(trial.number)
        values = {
            "bpb/descriptions": 3 - 0.5 * spec.mixture.as_dict()["web"] + 0.005 * rng.normal(),
            "bpb/headers": 2 + 0.02 * rng.normal(),
        }
        ledger.complete(trial.number, TrialResult(values, (), Cost()))
    ledger.close()
    return study


def known(study: Study) -> dict[str, Reliability]:
    return study_reliability(study, read_snapshot(study).trials)


def test_signal_is_over_the_searchs_mixtures_and_noise_from_its_repeats(study: Study) -> None:
    found = known(study)
    assert list(found) == ["bpb/descriptions", "bpb/headers", "objective"]
    assert {it.mixtures for it in found.values()} == {25}
    assert {(it.noise.runs, it.noise.freedom) for it in found.values()} == {(4, 3)}
    clear, noisy = found["bpb/descriptions"], found["bpb/headers"]
    assert clear.ratio > 5
    assert clear.ceiling > 0.95
    assert noisy.ratio < 2
    assert noisy.ceiling < 0.8


def test_status_report_and_python_warn_of_the_same(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    (warning,) = [it for it in reliability_warnings(known(study)) if it.startswith("bpb/headers")]
    assert "ranks mixtures badly" in warning
    assert "Evaluate on more text, or compare more seeds (select.seeds)." in warning
    show_status(study.path)
    assert warning in " ".join(capsys.readouterr().out.split())
    page = render(read_snapshot(study))
    assert warning in page
    assert ">Noise and reliability</h2>" in page
    opened = mixopt.open_study(study.path)
    assert opened.reliability == known(study)
    assert next(name for name, it in opened.reliability.items() if it.poor) == "bpb/headers"


def test_a_ceiling_stands_beside_every_rank_correlation(study: Study) -> None:
    page = render(read_snapshot(study))
    assert page.count(">rank correlation<") == page.count(">ceiling<") - 1  # and its own
    found = known(study)
    assert f"(ceiling {found['objective'].ceiling:.2f})" in page
    title = mixopt.open_study(study.path).plots.surrogate().to_json()
    assert f"(ceiling {found['objective'].ceiling:.2f})" in title


def test_an_objective_of_one_metric_has_one_row() -> None:
    one = Reliability(0.1, SeedScatter(0.02, 2.0, 3), 20, 1.5, 20.0, 0.97)
    assert len(reliability_rows({"bpb/web": one, "objective": one})) == 1
    several = dataclasses.replace(one, signal=0.2)
    assert len(reliability_rows({"bpb/web": one, "bpb/code": one, "objective": several})) == 3


def test_a_trainer_that_seeds_do_not_move_is_shown_without_a_division() -> None:
    exact = Reliability(0.1, SeedScatter(0.0, 2.0, 3), 20, np.inf, np.inf, 1.0)
    found = {"loss": exact, "objective": exact}
    assert "∞ (90 % interval ∞ to ∞" in reliability_line(found)
    (warning,) = reliability_warnings(found)
    assert "Let the trainer use its job's seed" in warning
    rounded = Reliability(0.1, SeedScatter(1e-16, 2.0, 3), 20, 1e9, np.inf, 1.0)
    assert reliability_warnings({"loss": rounded}) == [warning]


def test_the_advice_fits_metrics_that_are_not_ours() -> None:
    poor = Reliability(0.1, SeedScatter(0.1, 2.0, 3), 20, 0.5, 2.0, 0.7)
    (warning,) = reliability_warnings({"accuracy/arc": poor, "objective": poor})
    assert "accuracy/arc ranks mixtures badly" in warning
    assert "the loss of right answers in place of an accuracy" in warning
    assert "bits per byte" not in warning


def test_nothing_is_said_before_there_are_repeats(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    assert known(study) == {}
    assert reliability_line({}) == ""
    assert reliability_rows({}) == []
