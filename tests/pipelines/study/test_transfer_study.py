"""Before a promotion the best mixtures run once more, larger; a lost order stops the study."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mixopt
from mixopt.core.errors import StudyError
from mixopt.core.trials import Role
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.export_mixture import write_mixture
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.plan_steps import planned_flops, steps
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.study.status import show_status
from mixopt.pipelines.study.transfer import FILE, OrderLost, overrule
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.study.records import read_transfer
from mixopt.study.settings import load_study
from mixopt.study.trainings import larger_fidelity
from tests.pipelines.study.test_elsewhere import FILE as STUDY
from tests.pipelines.study.test_elsewhere import accuracy, asked, told, trained
from tests.pipelines.whole_study import MODEL, STEP, change, ledger_trials, write_study

pytestmark = pytest.mark.xdist_group("ray")

MUCH_LAW = {"law": 0.7, "code": 0.15, "prose": 0.15}  # so that the gate has something to pass
LARGER = STUDY.replace("select: {seeds: 2}", "select: {seeds: 2, at: {tokens: 4B}}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ift.yaml"
    path.write_text(LARGER)
    return path


def reversed_there(row: dict[str, Any]) -> float:
    """What is better among proxies is worse at the larger size."""
    return 1 - accuracy(row) if row["tokens"] == 4_000_000_000 else accuracy(row)


def to_the_end(file: Path, measure: Callable[[dict[str, Any]], float]) -> list[list[str]]:
    """Ask and tell until nothing is handed out; the roles that were."""
    roles = []
    while len(frame := asked(file)):
        roles.append(frame["role"].unique().sort().to_list())
        told(file, trained(frame, measure))
    return roles


def shown(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What status prints, in one line."""
    capsys.readouterr()
    show_status(file)
    return " ".join(capsys.readouterr().out.split())


def page(file: Path) -> str:
    return re.sub(r"\s+", " ", write_report(load_study(file)).read_text())


def test_an_order_that_holds_goes_on(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_the_end(file, accuracy) == [
        ["design", "repeat"],
        ["search"],
        ["select"],
        ["transfer"],
    ]
    study = mixopt.open_study(file)
    found, verdict = study.transfer, study.verdict
    assert found is not None
    assert verdict is not None
    assert found.kept
    assert found.correlation == 1
    assert [it.name for it in found.rows[:2]] == [verdict.baseline, verdict.promoted]
    assert len(found.rows) == 3
    assert found.rows[1].difference is not None
    assert found.rows[1].difference > 0  # as people read an accuracy
    there = [t for t in ledger_trials(file) if t.spec.role is Role.TRANSFER]
    assert len(there) == 6
    assert {t.spec.fidelity.tokens for t in there} == {4_000_000_000}
    other = {t.spec.seed for t in ledger_trials(file) if t.spec.role is not Role.TRANSFER}
    assert other.isdisjoint(t.spec.seed for t in there)
    learned = (Role.DESIGN, Role.REPEAT, Role.SEARCH)
    assert study.model.trials == [t for t in ledger_trials(file) if t.spec.role in learned]
    words = "rank correlation with the proxies' order 1.00 (n = 3)"
    assert words in shown(file, capsys)
    assert words in page(file).replace("&#39;", "'")
    assert "The study stops here" not in shown(file, capsys)
    assert (load_study(file).home / "mixture.json").exists()


def test_a_lost_order_stops_the_study_until_it_is_overruled(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OrderLost, match=r"does not hold at 4B tokens .*no better than natural"):
        to_the_end(file, reversed_there)
    home = load_study(file).home
    found = read_transfer(load_study(file))
    assert found is not None
    assert not found.kept
    assert not (home / "mixture.json").exists()
    for step in ("select", "promote", "run"):
        with pytest.raises(OrderLost, match=f"{FILE}.*mixopt overrule"):
            run_study(file, step=step)  # type: ignore[arg-type]
    with pytest.raises(OrderLost, match=f"{FILE}.*mixopt overrule"):
        write_mixture(file, "json", home / "out.json")
    assert not (home / "out.json").exists()
    assert "The study stops here." in shown(file, capsys)
    assert "The study stops here." in page(file)
    with pytest.raises(StudyError, match="no reason"):
        overrule(file, " ")
    overrule(file, "the larger runs were short")
    write_mixture(file, "json", home / "out.json")
    assert (home / "out.json").exists()
    run_study(file)
    assert (home / "mixture.json").exists()
    assert read_transfer(load_study(file)) == found
    assert "Overruled: the larger runs were short" in shown(file, capsys)
    assert "Overruled: the larger runs were short" in page(file)


def test_there_is_nothing_to_overrule_where_nothing_stopped(file: Path) -> None:
    asked(file)
    with pytest.raises(StudyError, match="no check at a larger size has stopped the study"):
        overrule(file, "why not")


@pytest.mark.slow
def test_another_size_is_another_check_and_no_other_look(file: Path) -> None:
    with pytest.raises(OrderLost):
        to_the_end(file, reversed_there)
    overrule(file, "known")
    verdict = (load_study(file).home / "verdict.json").read_bytes()
    file.write_text(file.read_text().replace("tokens: 4B", "tokens: 8B"))
    with pytest.raises(StudyError, match="is not checked at the larger size yet"):
        run_study(file, step="promote")
    with pytest.raises(StudyError, match="is not checked at the larger size yet"):
        write_mixture(file, "json", None)
    assert to_the_end(file, accuracy) == [["transfer"]]
    assert (load_study(file).home / "verdict.json").read_bytes() == verdict
    file.write_text(file.read_text().replace(", at: {tokens: 8B}", ""))
    run_study(file)
    assert mixopt.open_study(file).transfer is None


@pytest.mark.slow
def test_a_mixture_that_diverges_there_is_no_better(file: Path) -> None:
    while (frame := asked(file))["role"].to_list()[0] != "transfer":
        told(file, trained(frame))
    promoted = mixopt.open_study(file).verdict
    assert promoted is not None
    rows = trained(frame)
    told(
        file,
        [
            {"trial": row["trial"], "failure": "diverged"}
            if row["candidate"] == promoted.promoted
            else row
            for row in rows
        ],
    )
    with pytest.raises(OrderLost, match="cannot be compared there: runs diverged"):
        asked(file)


@pytest.mark.slow
def test_a_promoted_baseline_needs_no_check(file: Path) -> None:
    def alike(row: dict[str, Any]) -> float:
        return 0.5 + (row["trial"] * 7 % 5 - 2) / 1000

    assert to_the_end(file, alike) == [["design", "repeat"], ["search"], ["select"]]
    assert mixopt.open_study(file).transfer is None


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("{seeds: 2}", "the size is that of the proxies"),
        ("{tokens: 1M}", r"at\.tokens: are fewer than the proxies' 1B"),
        ("{tokens: 1B}", "the size is that of the proxies"),
        ("{model: {width: 64}}", r"at\.model: your trainer has its own"),
        ("{tokens: 4B, candidates: 4}", "must be at most 3"),
    ],
)
def test_a_size_that_is_none_is_refused(file: Path, at: str, message: str) -> None:
    file.write_text(LARGER.replace("{tokens: 4B}", at))
    with pytest.raises(StudyError, match=message):
        load_study(file)


def test_the_plan_counts_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(file, 1)
    assert re.search(r"larger size \(at most\)\W+6\W+4B\W+24B", capsys.readouterr().out)


@pytest.mark.slow
def test_proxies_are_checked_at_another_shape(
    text_corpus: Corpus, tmp_path: Path, ray_here: None
) -> None:
    at = {"model": {**MODEL, "width": 32}, "tokens": 60 * STEP, "seeds": 1, "candidates": 1}
    path = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        objective={"notes": 0.0, "law": 1.0},
        proxy={"tokens": 40 * STEP},
        search={"trials": 3, "repeats": 1, "rounds": 0, "enqueue": [MUCH_LAW]},
        select={"seeds": 3, "confidence": 0.51, "at": at},
        promote=None,
    )
    study = load_study(path)
    (step,) = (it for it in steps(study, text_corpus) if it.name.startswith("larger"))
    assert (step.runs, step.tokens, step.model.width) == (2, 60 * STEP, 32)
    without = load_study(write_study(tmp_path / "plain.yaml", text_corpus.path, promote=None))
    assert not [it for it in steps(without, text_corpus) if it.name.startswith("larger")]
    assert planned_flops(study, text_corpus, "select") > step.flops
    try:
        run_study(path)
    except OrderLost:
        overrule(path, "so small a study shows nothing")
        run_study(path)
    verdict = mixopt.open_study(path).verdict
    assert verdict is not None
    assert verdict.improved, verdict.reason
    there = [t for t in ledger_trials(path) if t.spec.role is Role.TRANSFER]
    assert len(there) == 2
    assert all(t.complete for t in there)
    assert {t.spec.fidelity.params for t in there} == {step.model.active_params()}
    (run,) = RunStore.open(study).runs({"mixopt.kind": "study"})
    found = read_transfer(study)
    assert found is not None
    for line in transfer_lines(found, {}, 1):
        assert verbatim(line) in run.data.tags["mlflow.note.content"]
    assert run.data.tags["mixopt.order_kept"].startswith(("true", "overruled"))
    change(path, "select", at={**at, "model": {**MODEL, "width": 48}})  # another shape, anew
    with open_session(path) as session:
        larger = larger_fidelity(session.study, session.data)
        assert larger is not None
        assert larger.model not in {t.spec.fidelity.model for t in there}
