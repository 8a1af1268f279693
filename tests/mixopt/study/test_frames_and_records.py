"""Trials become tables, and a study folder reads at any stage, torn files included."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import polars as pl

from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import (
    Cost,
    CurvePoint,
    Failure,
    Fidelity,
    State,
    Trial,
    TrialResult,
    TrialSpec,
)
from mixopt.io import trial_files
from mixopt.study import records
from mixopt.study.frames import trials_frame

SPEC = TrialSpec(Mixture.of({"law": 1, "code": 3}), Fidelity("proxy", 1000, 300), 0)
DONE = Trial(
    1,
    SPEC,
    State.COMPLETE,
    TrialResult(metrics={"bpb/law": 1.5}, curve=(), cost=Cost(300, 9.0, 1e9)),
    attempts=1,
)
FAILED = Trial(0, SPEC, State.FAILED, failure=Failure.DIVERGED, message="NaN at step 3")


def test_a_frame_has_a_row_per_trial_by_number_and_null_where_nothing_was_measured() -> None:
    frame = trials_frame([DONE, FAILED], Objective({"law": 1.0}))
    assert frame["trial"].to_list() == [0, 1]
    assert frame["objective"].to_list() == [None, 1.5]
    assert frame["mixture.code"].to_list() == [0.75, 0.75]
    assert frame["failure"].to_list() == ["diverged", None]
    assert frame["candidate"].dtype == pl.String


def test_a_frame_of_no_trials_still_has_its_columns() -> None:
    frame = trials_frame([])
    assert frame.is_empty()
    assert {"trial", "state", "device_seconds"} <= set(frame.columns)


def write_curve(home: Path, lines: list[str]) -> None:
    folder = trial_files.trial_folder(home, DONE.number)
    folder.mkdir(parents=True)
    (folder / "curve.jsonl").write_text("\n".join(lines))


def point(step: int, value: float) -> str:
    return json.dumps({"step": step, "tokens": 100 * step, "metrics": {"bpb/law": value}})


def test_a_curve_keeps_the_later_of_two_lines_for_a_step_and_drops_a_torn_one(
    tmp_path: Path,
) -> None:
    write_curve(tmp_path, [point(1, 9.0), point(1, 2.0), point(2, 1.8), '{"step": 3, "tok'])
    curve = trial_files.read_curve(tmp_path, DONE)
    assert [p.metrics["bpb/law"] for p in curve] == [2.0, 1.8, 1.5]
    assert curve[-1].tokens == 300


def test_a_curve_ends_with_the_final_metrics_not_beside_them(tmp_path: Path) -> None:
    write_curve(tmp_path, [point(1, 2.0), point(3, 1.51)])
    assert trial_files.read_curve(tmp_path, DONE)[-1] == CurvePoint(3, 300, {"bpb/law": 1.5})
    assert len(trial_files.read_curve(tmp_path, DONE)) == 2


def test_the_end_of_a_curve_keeps_what_compares_with_the_points_before(tmp_path: Path) -> None:
    training = {"loss": 2.2, "tokens_per_second": 900.0}
    on_both = {"on_curve_text": {"bpb/law": 1.7}, "training": training}
    last = json.loads(point(3, 1.51)) | on_both
    write_curve(tmp_path, [point(1, 2.0), json.dumps(last)])
    curve = trial_files.read_curve(tmp_path, DONE)
    assert curve[-1].metrics == {"bpb/law": 1.5}
    assert [p.comparable["bpb/law"] for p in curve] == [2.0, 1.7]
    assert [dict(p.training) for p in curve] == [{}, training]  # the first line is of before
    again = trial_files.curve_points([dataclasses.asdict(p) for p in curve])
    assert again == curve


def test_a_trial_that_trains_in_a_cohort_shows_its_own_part_of_the_cohorts_curve(
    tmp_path: Path,
) -> None:
    running = dataclasses.replace(FAILED, number=5, state=State.RUNNING)
    folder = trial_files.cohort_folder(tmp_path, [3, 5])
    folder.mkdir(parents=True)
    (folder / trial_files.COHORT).write_text('{"trials": [3, 5]}')
    lines = [json.loads(point(step, step + k)) | {"proxy": k} for step in (1, 2) for k in (0, 1)]
    (folder / trial_files.CURVE).write_text("\n".join(map(json.dumps, lines)))
    assert trial_files.training_folder(tmp_path, 5) == (folder, 1)
    assert [p.metrics["bpb/law"] for p in trial_files.read_curve(tmp_path, running)] == [2.0, 3.0]
    assert trial_files.read_curve(tmp_path, dataclasses.replace(running, number=4)) == []
    own = trial_files.trial_folder(tmp_path, 5)  # once it has ended
    own.mkdir(parents=True)
    (own / trial_files.CURVE).write_text(json.dumps(lines[1]))
    assert len(trial_files.read_curve(tmp_path, running)) == 1


def test_what_is_absent_or_torn_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text('{"promoted": ')
    assert records.read_verdict(tmp_path) is None
    assert records.read_promotion(tmp_path) is None
    assert records.read_settings(tmp_path) == {}
    assert trial_files.finished_at(tmp_path, 0) is None
    assert trial_files.read_curve(tmp_path, FAILED) == []
