"""The report opens anywhere, at any stage of a study, and says in words what was found."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from mixopt.core.formatting import signed
from mixopt.core.objective import Objective
from mixopt.io import files
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.views.report import render, write_report
from mixopt.pipelines.views.scores import inside_expected
from mixopt.selection.band import Place
from mixopt.study import records
from mixopt.study.measured import better_higher
from mixopt.study.own_trainer import Trainer
from mixopt.study.settings import Study
from mixopt.study.snapshot import read_snapshot
from mixopt.study.watched import FILE, Compared, Kind, Remark, Watched
from tests.pipelines.finished_study import finished_study, write_study
from tests.pipelines.made_runs import Run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return write_report(study).read_text()


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_needs_no_network(page: str) -> None:
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    packed = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', page)
    assert len(packed) == 1  # inlined, and only once
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed[0]))[:500]
    assert len(page) < 3_000_000


def test_the_first_sentence_says_what_was_promoted_with_numbers(page: str, study: Study) -> None:
    verdict = records.read_verdict(study.home)
    assert verdict is not None
    found, natural = verdict.winner, verdict.candidates[0]
    assert (found.name, natural.name) == ("found", verdict.baseline)
    lead = re.search(r'<p class="lead">(.*?)</p>', page)
    assert lead is not None
    assert lead[1].startswith("<span>The found mixture is selected")
    assert f"{found.mean:.4f}" in lead[1]
    assert f"{natural.mean:.4f}" in lead[1]


def test_metrics_of_an_own_trainer_are_no_domains(study: Study) -> None:
    own = study.model_copy(update={"trainer": Trainer(elsewhere=True)})
    snapshot = dataclasses.replace(read_snapshot(study), study=own)
    text = without_scripts(render(snapshot))
    assert "What does it cost in other metrics?" in text
    assert ">Results by metric</h2>" in text
    assert "other domains" not in text
    assert "Results by domain" not in text


def test_shares_of_right_answers_are_better_higher(study: Study) -> None:
    snapshot = read_snapshot(study)
    assert better_higher(snapshot, ["accuracy/exam", "bpb/descriptions", "bpb/web"]) == {
        "accuracy/exam"
    }
    weighed = dataclasses.replace(snapshot, objective=Objective({"accuracy/exam": 1.0}))
    assert not better_higher(weighed, ["accuracy/exam"])  # as the study file asks for


def test_the_five_questions_are_answered(page: str, study: Study) -> None:
    answers = re.findall(r"<dt>(.*?)</dt><dd><b>(.*?)</b>(.*?)</dd>", page)
    assert [question for question, *_ in answers] == [
        "What won?",
        "By how much, and how surely?",
        "What does it cost in other domains?",
        "What was it compared with?",
        "What to run next?",
    ]
    won, much, _, against, following = answers
    verdict = records.read_verdict(study.home)
    assert verdict is not None
    assert won[1] == "The found mixture"
    assert signed(verdict.winner.difference or 0.0) in much[1]
    assert "natural" in against[1]
    assert "mixopt export" in following[2]


def test_all_parts_of_a_finished_study_are_there(page: str) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "Mixtures",
        "Candidates",
        "Results by domain",
        "Effects of domains",
        "Mixtures tried",
        "Search",
        "Predictions",
        "Noise and reliability",
        "Promotion",
        "Cost",
        "Failed trials",
        "Trials",
        "Next steps",
        "Settings and versions",
    ]
    text = without_scripts(page)
    assert "50.0%" in text  # weight of the found mixture
    assert "0.56× → 3.3×" in text  # its implied epochs, beside the baseline's
    assert page.count("<dt>") == 5  # the five questions
    assert page.count("<figure") == page.count("<figcaption>") > 4
    assert "4 epochs of 90k tokens" in text
    assert "mixopt sync" in text


def test_looking_at_a_study_writes_nothing_into_its_folder(study: Study, tmp_path: Path) -> None:
    def files_there() -> dict[Path, tuple[int, bytes]]:
        there = [path for path in study.home.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in there}

    write_report(study)  # as the driver does
    before = files_there()
    show_status(study.path)
    page = write_report(study, tmp_path / "page.html")
    assert page.read_text().rstrip().endswith("</html>")
    assert files_there() == before


@pytest.mark.slow
def test_a_report_whose_evidence_is_kept_imports_nothing_that_fits(study: Study) -> None:
    write_report(study)
    code = (
        "import sys\n"
        "from mixopt.pipelines.cli import main\n"
        "try: main(['report', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'lightgbm', 'scipy.stats', 'scipy.optimize'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(study.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("n", [1, 7, 17, 64, 500])
def test_coverage_is_off_where_the_exact_test_says_so(n: int) -> None:
    for inside in range(n + 1):
        exact = stats.binomtest(inside, n, 0.9).pvalue >= 0.05
        assert inside_expected(inside / n, n) == exact, inside


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    assert "&lt;nan&gt;" in page
    assert "<nan>" not in without_scripts(page)


def test_a_study_without_trials_has_a_report(tmp_path: Path) -> None:
    page = write_report(write_study(tmp_path)).read_text()
    assert "0 of 0 trials are complete" in page


def test_a_full_run_beside_the_baselines_is_drawn_with_what_it_was_warned_of(
    page: str, study: Study, run: Run
) -> None:
    promotion = records.read_promotion(study.home)
    assert promotion is not None
    folder = study.home / "promotion" / promotion.id
    row = Compared(100, 1.0, 0.2, -0.3, 0.1, Place.WORSE)
    remark = Remark(100, Kind.WORSE, "it is worse than expected", "Stop it")
    Watched((row,), (remark,)).write(folder)
    (folder / "result.json").write_bytes((folder.parent / "result.json").read_bytes())
    after = write_report(study).read_text()
    shown = run("status", study.path).out
    for name in (FILE, "result.json"):
        (folder / name).unlink()
    for text in ("While it trained: it is worse than expected.", "Difference to the baseline"):
        assert text not in page
        assert text in after
    assert "! while it trained: it is worse than expected" in shown
    assert "Stop it" not in after + shown  # it has ended


def test_a_study_without_a_verdict_reports_its_search(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trials=7)
    (study.home / "verdict.json").unlink()
    (study.home / "promotion" / "result.json").unlink()
    page = write_report(study).read_text()
    assert "Nothing is selected yet" in page
    assert "best observed" in page
    assert ">Promotion</h2>" not in page


def test_a_natural_mixture_that_stays_is_explained(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trials=7)
    verdict = records.read_verdict(study.home)
    assert verdict is not None
    reason = "the found mixture is better with only 71 %"
    verdict = dataclasses.replace(verdict, promoted="natural", improved=False, reason=reason)
    files.write_json(study.home / "verdict.json", verdict.to_json())
    page = write_report(study).read_text()
    assert "The natural mixture is selected: the found mixture is better with only 71 %." in page


def test_a_report_is_written_without_the_corpus_and_from_a_torn_promotion(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trials=7)
    study.corpus_path.rename(tmp_path / "elsewhere")
    (study.home / "promotion" / "result.json").write_text('{"method": "branch')
    snapshot = read_snapshot(study)
    assert snapshot.available == {}
    assert snapshot.promotion is None
    assert "epochs over the domain" not in without_scripts(render(snapshot))
