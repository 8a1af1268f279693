"""Trials that are trained elsewhere: asked for, told, and judged as any others, without Ray."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

import mixopt
from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Failure, Role, State
from mixopt.pipelines.study.elsewhere import ask_trials
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.tell import tell_results
from mixopt.pipelines.study.trials import TrialsWait
from mixopt.pipelines.study.what_if import WhatIf, print_predictions
from mixopt.pipelines.views.wording import described
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from mixopt.surrogates.noise import Forecast, SeedScatter
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import ledger_trials

FILE = """\
name: ift
domains: {web: 1.2T, code: 300B, maths: 50B}
trainer: elsewhere
objective: {accuracy: 1}
metrics: {accuracy: higher}
proxy: {tokens: 1B}
space: {budget: 100B}
search: {trials: 4, repeats: 1, rounds: 1, batch: 2, surrogate: linear}
select: {seeds: 2}
mlflow: {enabled: false}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ift.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A study whose design is handed out, and rows that would be its results; told by nobody."""
    path = tmp_path_factory.mktemp("handed_out") / "ift.yaml"
    path.write_text(FILE)
    return path, trained(asked(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a verdict; `judged` copies it."""
    path = tmp_path_factory.mktemp("whole") / "ift.yaml"
    path.write_text(FILE)
    while len(frame := asked(path)):
        told(path, trained(frame))
    return path


@pytest.fixture
def judged(whole: Path, tmp_path: Path) -> Path:
    """The study file of a copy of a study with a verdict."""
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / whole.name


def accuracy(row: dict[str, Any]) -> float:
    noise = (row["trial"] * 7 % 5 - 2) / 1000
    return 0.5 + 0.2 * row["mixture.maths"] + 0.1 * row["mixture.code"] + noise


def asked(file: Path, most: int = 100, **options: Any) -> pl.DataFrame:
    """What `ask` writes; empty if it hands nothing out."""
    table = file.parent / "asked.csv"
    table.unlink(missing_ok=True)
    ask_trials(file, most, table, **options)
    return pl.read_csv(table) if table.exists() else pl.DataFrame()


def told(file: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    """Tell `rows`."""
    table = file.parent / "told.json"
    table.write_text(json.dumps(rows))
    tell_results(file, table, **options)


def trained(
    frame: pl.DataFrame, measure: Callable[[dict[str, Any]], float] = accuracy
) -> list[dict[str, Any]]:
    """The rows with what a trainer measured."""
    return [{**row, "accuracy": measure(row)} for row in frame.to_dicts()]


def test_a_study_goes_from_design_to_verdict(file: Path) -> None:
    roles = []
    while len(frame := asked(file)):
        roles.append(frame["role"].unique().sort().to_list())
        told(file, trained(frame))
    assert roles == [["design", "repeat"], ["search"], ["select"]]
    study = load_study(file)
    verdict = read_verdict(study.home)
    assert verdict is not None
    assert verdict.improved
    assert verdict.mixture["maths"] > study.training_data().natural["maths"]
    assert (study.home / "report.html").exists()
    run_study(file)  # everything is told: it shows the end, and waits for nothing


@pytest.mark.slow
def test_a_guardrail_binds_the_optimum_and_the_gate(file: Path) -> None:
    guarded = "guardrails: {loss/web: 0.05}\nproxy:"
    file.write_text(FILE.replace("proxy:", guarded).replace("trials: 4", "trials: 8"))

    def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
        found = trained(frame)
        return [{**row, "loss/web": 3 - row["mixture.web"] / 2} for row in found]

    while len(frame := asked(file)):
        told(file, rows(frame))
    verdict = read_verdict(load_study(file).home)
    assert verdict is not None
    assert verdict.unguarded is not None
    assert verdict.unguarded["web"] < 0.3 < verdict.recommended["web"]
    worse, allowed = verdict.guards["loss/web"]
    assert worse <= allowed == 0.05
    natural = load_study(file).training_data().natural
    assert natural["web"] - verdict.mixture["web"] <= 2 * 0.05 + 1e-6
    assert all(it.guarded for it in verdict.candidates[1:])


def test_the_next_round_waits_for_all_of_this_one(file: Path) -> None:
    frame = asked(file, most=3)
    assert frame["trial"].to_list() == [0, 1, 2]
    told(file, trained(frame)[:2])
    assert asked(file)["trial"].to_list() == [3, 4]
    assert asked(file).is_empty()
    assert asked(file, again=True)["trial"].to_list() == [2, 3, 4]
    with pytest.raises(TrialsWait, match="3 trials are not told yet, 3 of them handed out"):
        run_study(file)


def test_a_result_is_recorded_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = trained(asked(file))
    told(file, rows)
    told(file, rows)
    assert "0 results recorded, 5 told before" in capsys.readouterr().out
    with pytest.raises(StudyError, match="told before with other values: accuracy"):
        told(file, [{**rows[0], "accuracy": 0.9}])
    results = [trial.metrics["accuracy"] for trial in ledger_trials(load_study(file))]
    assert results == [row["accuracy"] for row in rows]


def test_a_result_is_corrected_only_if_that_is_asked_for(file: Path, run: Run) -> None:
    rows = trained(asked(file))
    told(file, rows)
    with pytest.raises(StudyError, match=r"`mixopt tell .* --replace`: the old value is kept"):
        told(file, [{**rows[0], "accuracy": 0.9}])
    told(file, [{**rows[0], "accuracy": 0.9}, rows[1]], replace=True)
    told(file, [{**rows[0], "accuracy": None, "failure": "diverged"}], replace=True)
    told(file, [{**rows[0], "accuracy": 0.8}], replace=True)
    study = load_study(file)
    trial = ledger_trials(study)[0]
    assert trial.complete
    assert trial.metrics == {"accuracy": 0.8}
    assert [described(it) for it in trial.replaced] == [
        f"accuracy {rows[0]['accuracy']:g}",
        "accuracy 0.9",
        "diverged",
    ]
    line = f"trial 0 corrected: accuracy {rows[0]['accuracy']:g} → accuracy 0.9 → diverged"
    assert f"{line} → accuracy 0.8" in run("status", file).out
    (study.home / "ledger.db").unlink()
    asked(file)
    assert ledger_trials(study)[0].metrics == {"accuracy": 0.8}


@pytest.mark.slow
def test_a_correction_after_the_verdict_is_another_look(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, home = judged, load_study(judged).home
    before = read_verdict(home)
    assert before is not None
    assert before.improved
    capsys.readouterr()
    last = ledger_trials(load_study(file))[-1]
    told(file, [{"trial": last.number, "accuracy": last.metrics["accuracy"] + 1e-6}], replace=True)
    assert "1 replaced" in (shown := " ".join(capsys.readouterr().out.split()))
    assert "the verdict was of the old value: the next one is another look, and 0 are left" in shown
    assert asked(file).is_empty()
    after = read_verdict(home)
    assert after is not None
    assert (before.look, after.look, after.improved) == (1, 2, False)


def test_nothing_is_handed_out_that_could_promote_nothing(judged: Path) -> None:
    file, home = judged, load_study(judged).home
    before = (home / "verdict.json").read_text()
    file.write_text(FILE.replace("seeds: 2", "seeds: 3"))
    with pytest.raises(StudyError, match="no look is left, so that 3 further trainings could"):
        asked(file)
    assert (home / "verdict.json").read_text() == before
    assert all(trial.ended for trial in ledger_trials(load_study(file)))


def test_a_metric_is_shown_in_its_own_direction(judged: Path, run: Run) -> None:
    """An accuracy of .7 is nowhere −.7, and more of it is a gain."""
    study, home = load_study(judged), load_study(judged).home
    best = max(t.metrics["accuracy"] for t in ledger_trials(study))
    verdict = mixopt.open_study(judged).verdict
    assert verdict is not None
    winner = verdict.winner
    assert winner.mean is not None
    assert 0.6 < winner.mean <= best
    assert winner.difference is not None
    assert winner.difference > 0
    status = " ".join(run("status", judged).out.split())
    assert f"mixture is selected: {winner.mean:.4f} accuracy" in status
    assert f"(+{winner.difference / (winner.mean - winner.difference):.1%}" in status
    assert f"difference {winner.difference:.4f}, 90 % between 0." in status
    assert "accuracy 1 (higher is better)" in status
    assert f"Weights of the {winner.name} mixture: maths" in status
    assert "promoted" not in status
    predicted = run("predict", judged, "--mixture", "maths=20%", "--json").out
    values = json.loads(predicted)
    assert values["objective"] == {"accuracy": 1}
    assert values["higher_is_better"]
    assert all(row["objective"] > 0.4 for row in values["rows"])
    assert all(row["run_low"] < row["objective"] < row["run_high"] for row in values["rows"])
    table = pl.read_csv(run("trials", judged).out.encode())
    assert table["objective"].equals(table["accuracy"].alias("objective"))
    assert "higher is better" in run("plan", judged).out
    page = (home / "report.html").read_text()
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "−accuracy" not in status + body
    assert f"{winner.mean:.4f}" in body
    assert "higher is better" in body
    figures = mixopt.open_study(judged).plots
    for figure in (figures.progress(), figures.candidates(), figures.surrogate()):
        shown = [x for trace in figure.data for x in (*trace.x, *trace.y) if isinstance(x, float)]
        assert not any(-1 < x < 0 for x in shown)


def test_the_trainer_may_change_until_a_result_is_told(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [FILE.replace("elsewhere", f"{{elsewhere: true, version: {v}}}") for v in "ab"]
    file.write_text(versions[0])
    frame = asked(file)
    file.write_text(versions[1])
    assert asked(file, again=True).equals(frame)
    assert "trainer.version: was 'a', is 'b'" in capsys.readouterr().err
    told(file, trained(frame)[:1])
    file.write_text(versions[0])
    with pytest.raises(StudyError, match=r"trainer\.version: was 'b', is 'a'"):
        asked(file)


def test_what_is_handed_out_is_not_lost(file: Path, run: Run) -> None:
    asked(file, most=1)
    assert "trial 0 is handed out, and its result is not told yet" in (
        " ".join(run("retry", file, "0").err.split())
    )
    assert "--again` hands it out once more" in " ".join(run("retry", file, "0").err.split())
    assert "trial 1 waits to be handed out" in " ".join(run("retry", file, "1").err.split())
    shown = run("status", file).out
    assert "trial 0: handed out at 20" in shown
    assert "ago); no result is told yet" in shown
    assert "tokens evaluated" not in shown
    assert "Next: mixopt ask" in run("fail", file, "1").out


def test_failures_are_no_scores(file: Path) -> None:
    rows = asked(file).to_dicts()
    told(
        file,
        [
            {"trial": 0, "accuracy": 0.5},
            {"trial": 1, "failure": "diverged", "message": "loss of NaN"},
            {"trial": 2, "accuracy": float("nan")},
            {"trial": 3},
        ],
    )
    trials = ledger_trials(load_study(file))
    assert [trial.state for trial in trials[:4]] == [
        State.COMPLETE,
        State.FAILED,
        State.FAILED,
        State.RUNNING,
    ]
    assert trials[1].message == "loss of NaN"
    assert trials[2].failure is Failure.DIVERGED
    assert len(rows) == 5


def test_a_lost_ledger_takes_up_what_was_told(file: Path) -> None:
    told(file, trained(asked(file)))
    before = ledger_trials(load_study(file))
    (load_study(file).home / "ledger.db").unlink()
    asked(file)
    after = ledger_trials(load_study(file))
    assert [t.metrics for t in after[:5]] == [t.metrics for t in before]


def test_selection_hands_out_fresh_seeds(file: Path) -> None:
    for _ in range(2):
        told(file, trained(asked(file)))
    frame = asked(file)
    assert set(frame["candidate"]) >= {"natural", "uniform"}
    assert frame.group_by("candidate").len()["len"].to_list() == [2] * frame["candidate"].n_unique()
    assert all(t.spec.role is Role.SELECT for t in ledger_trials(load_study(file))[7:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trial": 9}, "the study has no trial 9"),
        ({"trial": 0.5}, "is no number of a trial"),
        ({"seed": 4}, "trial 0 was asked for with 0"),
        ({"tokens": 5}, "was asked for with 1e"),
        ({"mixture.web": 0.1}, "trial 0 was asked for with 0.77"),
        ({"mixture.law": 0.1}, "there is no domain 'law'"),
        ({"accuracy": "good"}, "'good' is no number"),
        ({"accuracy": None, "loss": 1.0}, "metric 'accuracy' of the objective is missing"),
        ({"failure": "tired", "accuracy": None}, "'tired' is no failure"),
        ({"failure": "worker_lost", "accuracy": None}, "'worker_lost' is no failure"),
        ({"failure": "diverged"}, "has both a failure and metrics"),
        ({"trial": None}, "has no `trial`"),
        ({"trial": 1, "mixture.web": None}, "trial 1 is there twice"),
    ],
)
def test_a_row_that_is_no_result_of_the_trial_is_refused_and_none_is_recorded(
    handed_out: tuple[Path, list[dict[str, Any]]], change: dict[str, Any], message: str
) -> None:
    file, rows = handed_out
    with pytest.raises(StudyError, match=message) as refused:
        told(file, [rows[1], {**rows[0], **change}])
    assert "told.json: [1]" in str(refused.value)
    assert not any(trial.ended for trial in ledger_trials(load_study(file)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial,accuracy\n0,0.5,1\n", r"told.csv:2: has 3 cells, and the header 2"),
        ("trial,accuracy,accuracy\n0,0.5,1\n", r"told.csv:1: column 'accuracy' is there twice"),
        ("accuracy\n0.5\n", r"told.csv:2: has no `trial`"),
        ("", r"told.csv: is empty"),
        ("trial;accuracy\n0;0.5\n", r"told.csv:1: its cells are separated by `;`"),
        ("trial,accuracy\n0,0.5\n0,0.6\n", r"told.csv:3: trial 0 is there twice"),
    ],
)
def test_a_csv_names_the_line(
    handed_out: tuple[Path, list[dict[str, Any]]], text: str, message: str
) -> None:
    file, _ = handed_out
    table = file.parent / "told.csv"
    table.write_text(text)
    with pytest.raises(StudyError, match=message):
        tell_results(file, table)


def test_a_table_of_results_is_not_written_over(file: Path) -> None:
    table = file.parent / "next.csv"
    table.write_text("mine")
    with pytest.raises(StudyError, match="the file is there already"):
        ask_trials(file, 1, table)
    assert table.read_text() == "mine"


def test_a_direction_of_a_metric_that_nothing_weighs_is_refused(file: Path) -> None:
    file.write_text(FILE.replace("{accuracy: higher}", "{accurracy: higher}"))
    with pytest.raises(StudyError, match="Did you mean 'accuracy'"):
        ask_trials(file, 1)


def test_what_runs_elsewhere_is_not_pruned(file: Path) -> None:
    file.write_text(FILE.replace("{trials: 4,", "{pruner: {}, trials: 4,"))
    with pytest.raises(StudyError, match="nothing stops a training that runs elsewhere"):
        ask_trials(file, 1)


def test_a_study_with_a_trainer_is_not_asked(file: Path) -> None:
    (file.parent / "train.py").write_text("")
    file.write_text(FILE.replace("elsewhere", "{command: 'python train.py {job}'}"))
    with pytest.raises(StudyError, match="the study has a trainer, which `mixopt run` starts"):
        ask_trials(file, 1)


def test_numbers_of_a_prediction_are_whole_beside_long_names(judged: Path, run: Run) -> None:
    long = "a_domain_whose_name_alone_is_wider_than_the_half_of_a_terminal_that_has_eighty_columns"
    study = mixopt.open_study(judged)
    mixture = Mixture.of({f"{long}_{k}": 1.0 for k in range(3)})
    forecast = Forecast(0.51234, 0.01, scatter=SeedScatter(0.01, 3.0, 4))
    console = Console(width=80, file=io.StringIO())
    print_predictions(console, study, [WhatIf("web=40%", mixture, forecast)])
    shown = console.file.getvalue()
    assert shown.count("0.5123 ± 0.0") == 2
    assert "web=40%" in shown
    assert "higher is better" in shown
    assert "1 parameters" not in shown
    assert mixopt.open_study(judged).trials["params"].null_count() == len(study.trials)
