"""The curve of the baseline's full run, given as a file: what is read, and what is refused."""

import json
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.io.trial_files import CURVE
from mixopt.pipelines.study.baseline_curve import BaselineCurve, given_curve, read_baseline_curve
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import write_study
from tests.pipelines.made_runs import Run

LAW = Objective({"law": 1.0})
BOTH = Objective({"law": 1.0, "accuracy/arc": -1.0})
SAMPLE = "tokens,law,note\n100k,3.1,warm\n200k,2.9,\n300k,,no evaluation\n0.4M,2.7,\n"


def written(folder: Path, text: str, name: str = "baseline.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def line(tokens: float, **values: object) -> str:
    return json.dumps({"step": tokens // 100, "tokens": tokens, **values}) + "\n"


def test_a_table_has_tokens_as_people_write_them_and_columns_that_are_left_alone(
    tmp_path: Path,
) -> None:
    points = read_baseline_curve(written(tmp_path, SAMPLE), LAW)
    assert points == [(100_000, 3.1), (200_000, 2.9), (400_000, 2.7)]
    full = written(tmp_path, SAMPLE.replace("law", "bpb/law"), "full.csv")
    assert read_baseline_curve(full, LAW) == points


def test_the_objective_is_composed_of_the_columns(tmp_path: Path) -> None:
    table = written(tmp_path, "tokens;law;accuracy/arc\n0;3,5;0,2\n1000;3,0;0,4\n")
    assert read_baseline_curve(table, BOTH) == [
        (0, pytest.approx((3.5 - 0.2) / 2)),
        (1000, pytest.approx((3.0 - 0.4) / 2)),
    ]


def test_a_curve_of_a_promotion_has_the_text_that_compares_and_later_lines_count(
    tmp_path: Path,
) -> None:
    text = (
        line(100, metrics={"bpb/law": 3.0})
        + line(200, metrics={"bpb/law": 9.0})
        + line(200, metrics={"bpb/law": 2.8})  # of the resumed run
        + line(300, metrics={"bpb/law": 5.0}, on_curve_text={"bpb/law": 2.7})
        + '{"step": 4, "tok'
    )
    found = read_baseline_curve(written(tmp_path, text, CURVE), LAW)
    assert found == [(100, 3.0), (200, 2.8), (300, 2.7)]


@pytest.mark.parametrize(
    ("name", "text", "where", "what"),
    [
        ("a.csv", "", "a.csv: ", "is empty"),
        ("a.csv", "tokens,law\n", "a.csv: ", "no rows"),
        ("a.csv", "step,law\n1,3\n", "a.csv:1: ", "no column 'tokens', only step, law"),
        ("a.csv", "tokens,code\n1,3\n", "a.csv:1: ", "no column 'bpb/law', only tokens, code"),
        ("a.csv", "tokens,law\n100k,3\nmany,3\n", "a.csv:3: tokens: ", "'many' is no count"),
        ("a.csv", "tokens,law\n2k,3\n1k,3\n", "a.csv:3: tokens: ", "1k comes after 2k"),
        ("a.csv", "tokens,law\n2k,3\n2k,3\n", "a.csv:3: tokens: ", "do not rise"),
        ("a.csv", "tokens,law\n1k,3\n2k,low\n", "a.csv:3: law: ", "'low' is not a number"),
        ("a.csv", "tokens,law\n1k,3\n2k,inf\n", "a.csv:3: ", "bpb/law is inf"),
        ("a.csv", "tokens,law\n1k,\n2k,\n", "a.csv: ", "no evaluation has bpb/law"),
        ("a.csv", "PK\x03\x04", "a.csv: ", "a workbook or an archive"),
        (CURVE, line(1, metrics={"bpb/law": 3}) + "{}\n", f"{CURVE}:2: ", "no evaluation"),
        (CURVE, "tokens,law\n1,3\n", f"{CURVE}:1: ", "no evaluation of a promotion"),
        (CURVE, line(1, metrics={"bpb/law": None}), f"{CURVE}:1: ", "bpb/law is None"),
        (CURVE, line(1, metrics={"bpb/law": float("nan")}), f"{CURVE}:1: ", "bpb/law is nan"),
        (CURVE, line(1, metrics={"accuracy": 1}), f"{CURVE}: ", "bpb/law, only accuracy"),
        (CURVE, line(1, metrics={"bpb/law": True}), f"{CURVE}:1: ", "bpb/law is True"),
        (CURVE, line(float("nan"), metrics={"bpb/law": 3}), f"{CURVE}:1: ", "no evaluation"),
        (CURVE, line(-1, metrics={"bpb/law": 3}), f"{CURVE}:1: ", "no evaluation"),
        (CURVE, "", f"{CURVE}: ", "no evaluation has bpb/law"),
        ("a.csv", "tokens,law\n1k,90%\n", "a.csv:2: law: ", "'90%' has a percent sign"),
        ("a.csv", "tokens;law\n2.000;0,9\n4.000;0,8\n", "a.csv:2: tokens: ", "'2.000' is no count"),
    ],
)
def test_a_bad_file_is_refused_with_file_line_and_fix(
    tmp_path: Path, name: str, text: str, where: str, what: str
) -> None:
    with pytest.raises(StudyError) as refused:
        read_baseline_curve(written(tmp_path, text, name), LAW)
    assert f"{refused.value.where}: ".endswith(where)
    assert what in refused.value.what
    assert refused.value.hint
    assert "run" not in refused.value.hint.split()  # a row is no finished run here


def test_a_last_line_without_a_line_break_counts_unless_it_was_cut(tmp_path: Path) -> None:
    whole = line(1, metrics={"bpb/law": 3}) + line(2, metrics={"bpb/law": 2}).rstrip()
    assert read_baseline_curve(written(tmp_path, whole, CURVE), LAW) == [(1, 3), (2, 2)]
    assert read_baseline_curve(written(tmp_path, whole[:-1], CURVE), LAW) == [(1, 3)]


def with_curve(folder: Path, value: str) -> Path:
    path = write_study(folder).path
    path.write_text(path.read_text().replace("{tokens: 600k}", "{tokens: 600k, " + value + "}"))
    return path


def test_plan_refuses_it_and_says_how_far_it_goes(tmp_path: Path, run: Run) -> None:
    study = with_curve(tmp_path, "baseline_curve: curves/baseline.csv")
    absent = run("plan", study, "--no-measure")
    assert absent.code != 0
    assert "study.yaml:5: promote.baseline_curve: there is no file" in absent.err
    assert "relative to the study file" in absent.err
    (tmp_path / "curves").mkdir()
    table = written(tmp_path / "curves", "tokens,descriptions\n1T,3\n")
    with pytest.raises(StudyError, match="begins at 1T tokens, and the full run ends at 600k"):
        given_curve(load_study(study))
    table.write_text("tokens,descriptions\n100k,3.2\n300k,3.0\n")
    shown = " ".join(run("plan", study, "--no-measure").out.split())
    assert (
        "Full run of the baseline, curves/baseline.csv: 2 evaluations, 100k to 300k tokens; "
        "nothing is compared from there to the full run's end at 600k (promote.baseline_curve)."
    ) in shown


def test_a_longer_curve_is_said_to_differ_by_its_learning_rate() -> None:
    curve = BaselineCurve("b.csv", [(100.0, 3.0), (900.0, 2.0)])
    assert "the full run ends at 600: a learning rate that decays" in curve.note(600)
    assert ";" not in curve.note(900)


def test_a_curve_between_two_evaluations_compares_nothing_and_says_so() -> None:
    curve = BaselineCurve("b.csv", [(1300.0, 3.0), (1500.0, 2.0)])
    said = "none of the full run's 4 evaluations lies there (640, 1.28k, 1.92k, 2.56k), so nothing"
    assert said in curve.note(2560, 4)
    assert "none of" not in curve.note(2560, 7)  # the fourth is at 1,463
    assert "none of" not in curve.note(2560)  # a trainer of the user's evaluates when it likes


def test_a_study_that_names_none_has_none(tmp_path: Path) -> None:
    assert given_curve(load_study(write_study(tmp_path).path)) is None
