"""A full run is compared with the baseline's, and warned of where it leaves the expected band."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Fidelity, Role, TrialSpec
from mixopt.io.trial_files import CURVE, trial_folder
from mixopt.pipelines.study.baseline_curve import BaselineCurve
from mixopt.pipelines.study.expected_band import Comparison, Pairs, comparison
from mixopt.pipelines.study.full_run_watch import FullRunWatch
from mixopt.pipelines.study.promote import promotion_run
from mixopt.pipelines.study.promotion_folder import promotion_folder
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.console import Display
from mixopt.study.records import read_verdict
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import larger_fidelity
from mixopt.study.watched import Compared, Kind, read_watched
from tests.pipelines.finished_study import SEEDS, finished_study, open_ledger, run

TOKENS = 1000
LAW, ACCURACY = Objective({"law": 1.0}), Objective({"acc": -1.0}, prefix="")
REFERENCE = BaselineCurve("baseline.csv", [(200.0, 3.0), (1000.0, 2.2)])
BASE = [(0.2, 4.0), (1.0, 3.5)]
GAINS = (-0.1, -0.12, -0.08)  # of the pairs, at every share
HALF = 4.302653 * 0.02 * math.sqrt(4 / 3)


def compared_with(objective: Objective = LAW, pairs: int = 3) -> Comparison:
    runs = [([(share, value + gain) for share, value in BASE], BASE) for gain in GAINS[:pairs]]
    return Comparison(REFERENCE, Pairs(runs, "proxies"), objective, TOKENS)


def full_run(*differences: float, sign: int = 1, name: str = "bpb/law") -> list[CurvePoint]:
    """Evaluations after 200, 400, … tokens, each by so much off the baseline's."""
    return [
        CurvePoint(step, 200 * step, {name: sign * (3.0 - 0.2 * (step - 1) + it)}, 10.0 * step)
        for step, it in enumerate(differences, 1)
    ]


def test_the_difference_is_taken_at_the_same_tokens_and_the_band_by_hand() -> None:
    rows = compared_with().compared(full_run(-0.1, -0.3, 0.1))
    assert [row.tokens for row in rows] == [200, 400, 600]
    assert [row.seconds for row in rows] == [10, 20, 30]
    assert [row.difference for row in rows] == pytest.approx([-0.1, -0.3, 0.1])
    assert [row.low for row in rows] == pytest.approx([-0.1 - HALF] * 3, abs=1e-6)
    assert [row.high for row in rows] == pytest.approx([-0.1 + HALF] * 3, abs=1e-6)
    assert [row.place for row in rows] == ["inside", "better", "worse"]


def test_evaluations_that_the_baseline_has_none_around_are_left_out() -> None:
    early = CurvePoint(0, 100, {"bpb/law": 9.0})
    other = CurvePoint(3, 500, {"bpb/code": 9.0})
    rows = compared_with().compared([early, *full_run(-0.1), other])
    assert [row.tokens for row in rows] == [200]


def test_each_crossing_is_warned_of_once_and_a_better_run_noted_once() -> None:
    asked = compared_with()
    rows = asked.compared(full_run(-0.1, 0.1, 0.1, -0.1, 0.1))
    assert [(it.tokens, it.kind) for it in asked.remarks(rows)] == [
        (400, Kind.WORSE),
        (1000, Kind.WORSE),
    ]
    better = asked.compared(full_run(-0.9, -0.1, -0.9))
    (note,) = asked.remarks(better)
    assert (note.tokens, note.kind) == (200, Kind.BETTER)
    assert not asked.remarks(asked.compared(full_run(-0.1, -0.05, -0.15)))


def test_a_warning_says_how_far_and_of_what() -> None:
    asked = compared_with()
    (warning,) = asked.remarks(asked.compared(full_run(0.15)))
    assert warning.text == (
        "the difference to the baseline's full run (baseline.csv) is +0.1500 after 200 tokens, "
        "worse than the expected −0.1994 to −0.0006 (95 % for one more pair, from 3 pairs of "
        "proxies)"
    )


def test_what_is_better_higher_is_shown_in_its_own_direction() -> None:
    asked = compared_with(ACCURACY)
    rows = asked.compared(full_run(0.1, -0.3, sign=-1, name="acc"))
    assert [row.difference for row in rows] == pytest.approx([-0.1, 0.3])
    assert rows[0].low == pytest.approx(0.1 - HALF, abs=1e-6)
    assert [row.place for row in rows] == ["worse", "better"]
    assert "is −0.1000 after 200 tokens, worse than the expected +0.0006" in (
        asked.remarks(rows)[0].text
    )


def test_by_one_pair_there_is_no_band_and_it_is_said() -> None:
    asked = compared_with(pairs=1)
    assert "No band: of 1 pair of proxies; two are needed" in asked.about
    rows = asked.compared(full_run(9.0))
    assert rows == [Compared(200, 10.0, 9.0)]
    assert not asked.remarks(rows)
    assert "The difference is expected from 3 pairs of proxies" in compared_with().about


# -- in a study ----------------------------------------------------------------------------------


def shifted(study: Study, number: int, by: float) -> None:
    """Have the curve of a trial lie off by so much."""
    path = trial_folder(study.home, number) / CURVE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["metrics"]["bpb/descriptions"] += by
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study whose promoted mixture has noise of its own in the selection's runs."""
    study = finished_study(tmp_path_factory.mktemp("made"))
    text = study.path.read_text().replace("{tokens: 600k}", "{tokens: 600k, recipe: {FP32}}")
    text = text.replace("{FP32}", "{precision: fp32}")
    study.path.write_text(text + "mlflow: {enabled: false}\n")
    rng = np.random.default_rng(3)
    with open_session(study.path) as session:
        for trial in session.ledger.trials():
            if trial.spec.role is Role.SELECT:
                shifted(study, trial.number, 0.003 * rng.normal())
    return study.path


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Study:
    """A copy of it."""
    shutil.copytree(made.parent, tmp_path / "study")
    return load_study(tmp_path / "study" / made.name)


def test_the_baselines_earlier_promotion_is_the_reference_also_unfinished(study: Study) -> None:
    with open_session(study.path) as session:
        promote, verdict = session.study.promote, read_verdict(study.home)
        assert promote is not None
        assert verdict is not None
        own = promotion_folder(session, promote, verdict.mixture) / "moe"
        assert comparison(session, own, 600_000) is None
        base = verdict.candidate(verdict.baseline)
        assert base is not None
        earlier = promotion_folder(session, promote, base.mixture)
        (earlier / "moe").mkdir(parents=True)
        line = {"step": 1, "tokens": 120_000, "metrics": {"bpb/descriptions": 3.0}}
        (earlier / "moe" / CURVE).write_text(json.dumps(line) + "\n")
        found = comparison(session, own, 600_000)
    assert found is not None
    assert found.reference == BaselineCurve(f"promotion {earlier.name}", [(120_000, 3.0)])
    assert len(found.pairs.curves) == len(SEEDS)
    assert found.pairs.of == "proxies (132k parameters, 400k tokens), not of this size"
    assert [share for share, _ in found.pairs.curves[0][0]] == [0.2, 0.4, 0.6, 0.8, 1.0]
    (row,) = found.compared([CurvePoint(1, 120_000, {"bpb/descriptions": 3.2})])
    assert row.difference == pytest.approx(0.2)
    assert row.place == "worse"


def with_key(study: Study, key: str) -> None:
    text = study.path.read_text()
    study.path.write_text(text.replace("{tokens: 600k", f"{{tokens: 600k, {key}"))


def test_the_file_that_is_named_comes_first_and_changes_no_identity(study: Study) -> None:
    with open_session(study.path) as session:
        assert session.study.promote is not None
        before = promotion_folder(session, session.study.promote, session.baselines["natural"])
    (study.path.parent / "base.csv").write_text("tokens,descriptions\n100k,3.3\n600k,3.0\n")
    with_key(study, "baseline_curve: base.csv")
    with open_session(study.path) as session:
        assert session.study.promote is not None
        after = promotion_folder(session, session.study.promote, session.baselines["natural"])
        found = comparison(session, study.home / "promotion" / "abc" / "moe", 600_000)
    assert after == before
    assert found is not None
    assert found.reference.name == "base.csv"


def test_pairs_of_the_larger_size_are_preferred_from_two_on(study: Study) -> None:
    (study.path.parent / "base.csv").write_text("tokens,descriptions\n100k,3.3\n600k,3.0\n")
    with_key(study, "baseline_curve: base.csv")
    study.path.write_text(study.path.read_text() + "select: {at: {tokens: 800k}}\n")
    verdict = read_verdict(study.home)
    assert verdict is not None
    counted = []
    for seed in (2000, 2001):
        with open_session(study.path) as session:
            larger = larger_fidelity(session.study, session.data)
            assert larger is not None
            add_transfer(study, larger, seed)
        with open_session(study.path) as session:
            found = comparison(session, study.home / "promotion" / "abc" / "moe", 600_000)
        assert found is not None
        counted.append((len(found.pairs.curves), found.pairs.of.split(" (")[0]))
    assert counted == [(len(SEEDS), "proxies"), (2, "runs at select.at")]


def add_transfer(study: Study, larger: Fidelity, seed: int) -> None:
    verdict = read_verdict(study.home)
    assert verdict is not None
    ledger = open_ledger(study)
    for name in (verdict.baseline, verdict.promoted):
        candidate = verdict.candidate(name)
        assert candidate is not None
        mixture = candidate.mixture
        run(study, ledger, TrialSpec(mixture, larger, seed, Role.TRANSFER, 4, candidate=name))
    ledger.close()


def test_it_is_said_once_also_by_a_driver_that_goes_on(study: Study) -> None:
    (study.path.parent / "base.csv").write_text("tokens,descriptions\n100k,3.3\n600k,2.7\n")
    with_key(study, "baseline_curve: base.csv")
    verdict, said = read_verdict(study.home), []
    assert verdict is not None
    for evaluations in (1, 2, 2):
        console = Console(file=io.StringIO(), width=2000)
        with open_session(study.path, Display(console)) as session:
            stages = promotion_run(session, verdict).stages()
            work = stages.work("upcycled", stages.model, stages.mixture, 600_000, 9)
            write_curve(Path(work.folder), evaluations)
            watch = FullRunWatch(session, work)
            watch.look()
            watch.look()
        seen = read_watched(Path(work.folder).parent)
        said.append(console.file.getvalue().count("! upcycled: the difference to the baseline"))
        assert "upcycled: compared with the baseline's full run, base.csv: 2 evaluations" in (
            console.file.getvalue()
        )
    assert said == [0, 1, 0]
    assert [row.place for row in seen.compared] == ["inside", "worse"]
    assert len(seen.warnings) == 1


def test_what_to_do_is_said_once(study: Study) -> None:
    verdict, console = read_verdict(study.home), Console(file=io.StringIO(), width=2000)
    assert verdict is not None
    with open_session(study.path, Display(console)) as session:
        stages = promotion_run(session, verdict).stages()
        work = stages.work("upcycled", stages.model, stages.mixture, 600_000, 9)
        watch = FullRunWatch(session, work)
        for evaluations in (1, 2, 3):
            write_curve(Path(work.folder), evaluations, (2.0, 3.0, 4.0))
            watch.look()
    shown = console.file.getvalue()
    assert shown.count("! upcycled: the objective is") == 2
    assert shown.count("Ctrl-C stops the run") == 1
    assert "Ctrl-C" in read_watched(Path(work.folder).parent).warnings[0]


def write_curve(folder: Path, evaluations: int, values: Sequence[float] = (3.15, 3.14)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": step, "tokens": 120_000 * (step + 1), "metrics": {"bpb/descriptions": value}}
        for step, value in enumerate(values[:evaluations])
    ]
    (folder / CURVE).write_text("".join(json.dumps(line) + "\n" for line in lines))
