"""A small whole study against a team's own baseline, and against another one later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.plan_steps import steps
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.select import _basis
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.report import write_report
from mixopt.study.records import read_verdict
from mixopt.study.results import Verdict
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")

PRODUCTION = {"law": 0.6, "code": 0.1, "prose": 0.3}


def study_with(folder: Path, corpus: Corpus, baseline: object) -> Path:
    file = write_study(
        folder / "study.yaml",
        corpus.path,
        search={"trials": 3, "repeats": 1, "rounds": 1, "batch": 1},
        select={"seeds": 2, "looks": 2},
        mlflow={"enabled": False},
        promote=None,
    )
    (folder / "production.json").write_text(json.dumps(PRODUCTION))
    against(file, baseline)
    return file


def against(file: Path, baseline: object) -> None:
    """Have the study compare with `baseline`."""
    settings = yaml.safe_load(file.read_text()) | {"baseline": baseline}
    file.write_text(yaml.safe_dump(settings, sort_keys=False))


def verdict_of(file: Path) -> Verdict:
    found = read_verdict(load_study(file).home)
    assert found is not None
    return found


@pytest.mark.slow
def test_a_study_is_judged_against_the_teams_own_mixture_and_later_against_another(
    text_corpus: Corpus, tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_with(tmp_path, text_corpus, ["production.json", "natural"])
    run_study(file)
    first, trials = verdict_of(file), ledger_trials(file)
    own = Mixture.of(PRODUCTION)
    repeats = [t for t in trials if t.spec.role is Role.REPEAT]
    assert trials[0].spec.mixture.same_as(own)
    assert [t.spec.mixture for t in repeats] == [trials[0].spec.mixture]
    assert first.baseline == "production"
    assert [it.name for it in first.candidates][:2] == ["production", "natural"]
    assert first.candidates[0].mixture == own
    assert first.candidates[1].mixture == text_corpus.natural
    assert first.found in ("recommended", "best observed", None)
    printed = " ".join(capsys.readouterr().out.split())
    page = write_report(load_study(file)).read_text()
    assert "against production ± 90 %" in page
    for text in (printed, page):
        assert "interval: against production, of the mean difference" in text
        assert "against natural" not in text
    searched = [t for t in trials if t.spec.role is not Role.SELECT]

    against(file, "natural")
    run_study(file)
    second, trials = verdict_of(file), ledger_trials(file)
    assert (second.baseline, second.look, first.look) == ("natural", 2, 1)
    assert [t for t in trials if t.spec.role is not Role.SELECT] == searched
    assert "against natural ± 90 %" in " ".join(capsys.readouterr().out.split())

    against(file, ["production.json", "natural"])  # the look that was taken, not a third one
    run_study(file)
    assert verdict_of(file).look == 1
    assert len(ledger_trials(file)) == len(trials)


def test_a_verdict_follows_from_the_mixture_and_not_from_its_files_name(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    file, found = study_with(tmp_path, text_corpus, "natural"), {}
    for baseline in ("natural", ["natural"], "production.json", {"production": PRODUCTION}):
        against(file, baseline)
        with open_session(file) as session:
            found[str(baseline)] = _basis(session, [])
    bare, listed, from_file, written = found.values()
    assert bare == listed
    assert from_file == written != bare
    (tmp_path / "production.json").write_text(json.dumps({"law": 1}))
    against(file, "production.json")
    with open_session(file) as session:
        assert _basis(session, []) != from_file


def test_a_plan_counts_the_runs_of_every_baseline(text_corpus: Corpus, tmp_path: Path) -> None:
    runs = {}
    for baseline in ("natural", "uniform", ["production.json", "natural"]):
        study = load_study(study_with(tmp_path, text_corpus, baseline))
        runs[str(baseline)] = next(
            step.runs for step in steps(study, text_corpus) if step.command == "select"
        )
    assert list(runs.values()) == [8, 6, 10]
