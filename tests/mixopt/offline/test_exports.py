"""Tables as trackers and spreadsheets export them are read for what they measure, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixopt.core.errors import RunsError
from mixopt.offline.runs import Runs, read_runs

RATIOS = "run,web,code\na,0.5,0.5\nb,0.25,0.75\nc,1,0\n"
METRICS = "run,loss\na,3\nb,2\nc,4\n"
WEIGHTS = [[0.5, 0.5], [0.25, 0.75], [1, 0]]


def read(folder: Path, ratios: str | bytes = RATIOS, metrics: str | bytes = METRICS) -> Runs:
    for name, content in (("R.csv", ratios), ("M.csv", metrics)):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    return read_runs(folder / "R.csv", folder / "M.csv")


def refused(folder: Path, ratios: str = RATIOS, metrics: str = METRICS) -> str:
    with pytest.raises(RunsError) as caught:
        read(folder, ratios, metrics)
    return str(caught.value)


def test_the_runs_table_of_wandb(tmp_path: Path) -> None:
    metrics = (
        '"Name","State","Tags","Created","Runtime","_step","system.gpu.0.memory","eval/loss"\n'
        '"a","finished","x","2025-03-02T10:00:00.000Z","3641","5000","71.2","3"\n'
        '"b","finished","","2025-03-02T10:01:00.000Z","3642","5000","70.1","2"\n'
        '"c","finished","","2025-03-02T10:02:00.000Z","3643","5000","","4"\n'
        '"d","crashed","","2025-03-02T10:03:00.000Z","12","20","70.0","9"\n'
        '"e","running","","2025-03-02T10:04:00.000Z","12","20","70.0","NaN"\n'
    )
    runs = read(tmp_path, RATIOS + "d,0.1,0.9\ne,0.2,0.8\n", metrics)
    assert runs.names == ("a", "b", "c")
    assert runs.table.metrics == ("eval/loss",)
    notes = " ".join(runs.notes)
    assert "2 rows left out: runs that are not complete (State: crashed, running)" in notes
    assert "Runtime, _step, system.gpu.0.memory: a tracker's housekeeping" in notes


def test_one_table_of_mlflow_holds_both(tmp_path: Path) -> None:
    header = "run_id,experiment_id,status,start_time,metrics.loss,metrics.system/cpu,params.lr,"
    header += "params.web,params.code,tags.mlflow.user\n"
    rows = [
        f"{name},1,{status},2025-03-02 10:00:00+00:00,{loss},55.0,0.0006,{web},{code},me\n"
        for name, status, loss, (web, code) in (
            *zip("abc", ["FINISHED"] * 3, (3, 2, 4), WEIGHTS, strict=True),
            ("d", "FAILED", 9, (0.3, 0.7)),
        )
    ]
    (tmp_path / "mlflow.csv").write_text(header + "".join(rows))
    runs = read_runs(tmp_path / "mlflow.csv", tmp_path / "mlflow.csv")
    assert runs.layout == "tracker"
    assert runs.names == ("a", "b", "c")
    assert runs.table.domains == ("params.web", "params.code")
    assert runs.table.metrics == ("metrics.loss",)
    assert runs.table.weights.tolist() == WEIGHTS


def test_the_metrics_of_mlflow_beside_other_ratios(tmp_path: Path) -> None:
    header = "Start Time,Duration,Run ID,Status,n_layers,metrics.loss,metrics.acc\n"
    rows = [f"2025-03-02,1.2h,{name},FINISHED,12,{j + 2},0.5\n" for j, name in enumerate("abc")]
    runs = read(tmp_path, metrics=header + "".join(rows))
    assert runs.table.metrics == ("metrics.loss", "metrics.acc")
    assert any("n_layers" in note for note in runs.notes)


def test_a_table_of_neptune(tmp_path: Path) -> None:
    header = "sys/id,sys/name,sys/running_time,monitoring/cpu (last),metrics/eval/loss (last)\n"
    metrics = header + "a,x1,3600,40,3\nb,x2,3601,41,2\nc,x3,3602,42,4\n"
    runs = read(tmp_path, RATIOS.replace("run,", "sys/id,"), metrics)
    assert runs.names == ("a", "b", "c")
    assert runs.table.metrics == ("metrics/eval/loss (last)",)


def test_runs_of_which_none_came_to_its_end_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, metrics="run,status,loss\na,RUNNING,3\nb,FAILED,2\nc,KILLED,4\n")
    assert "M.csv: status: no run is complete" in message


def test_a_domain_may_be_called_state(tmp_path: Path) -> None:
    runs = read(tmp_path, RATIOS.replace("web", "state"))
    assert runs.table.domains == ("state", "code")
    assert len(runs.table) == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_spreadsheets_text_with_tabs_and_its_marks(tmp_path: Path, encoding: str) -> None:
    ratios = RATIOS.replace(",", "\t").encode(encoding)
    runs = read(tmp_path, ratios, METRICS.replace(",", "\t").encode(encoding))
    assert runs.table.weights.tolist() == WEIGHTS


def test_excels_first_line_names_the_delimiter_and_lines_are_counted_past_it(
    tmp_path: Path,
) -> None:
    ratios = "sep=;\r\nrun;web;code\r\na;0,5;0,5\r\n;;\r\nb;0,25;0,75\r\nc;1;0\r\n"
    assert read(tmp_path, ratios).table.weights.tolist() == WEIGHTS
    assert "R.csv:5: web" in refused(tmp_path, ratios.replace("b;0,25", "b;-0,25"))


def test_groups_of_thousands_missing_cells_and_spreadsheet_errors(tmp_path: Path) -> None:
    metrics = 'run,flops,loss\na,"1,234.5",3\nb,"2,000",#DIV/0!\nc,"1,999.0",—\n'
    runs = read(tmp_path, metrics=metrics)
    assert runs.table.values[:, 0].tolist() == [1234.5, 2000, 1999]
    assert any("loss (2)" in note for note in runs.notes)


def test_a_number_that_may_be_two_is_asked_about(tmp_path: Path) -> None:
    message = refused(tmp_path, metrics='run,loss\na,"3,141"\nb,"2,718"\nc,"1,414"\n')
    assert "M.csv:2: loss: '3,141' may be 3141 or 3.141" in message


def test_weights_with_a_unit_are_quoted(tmp_path: Path) -> None:
    ratios = "run,web,code\na,50 pct,50 pct\nb,25 pct,75 pct\nc,100 pct,0 pct\n"
    message = refused(tmp_path, ratios)
    assert "no column holds the weights of a domain" in message
    assert "'50 pct' in column 'web' of line 2 is no number" in message


def test_a_column_without_which_rows_sum_to_one_is_named_whatever_it_is_called(
    tmp_path: Path,
) -> None:
    ratios = "run,zeta,web,code\n" + "".join(f"r{j},0.0003,{j / 8},{1 - j / 8}\n" for j in range(8))
    metrics = "run,loss\n" + "".join(f"r{j},{3 - j / 10}\n" for j in range(8))
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.domains == ("web", "code")
    assert any("R.csv: zeta: left out as no domain" in note for note in runs.notes)


def test_the_trials_of_an_optuna_study(tmp_path: Path) -> None:
    header = "number,value,datetime_start,duration,params_web,params_code,params_lr,state\n"
    rows = [
        f"{j},{3 - j},2025-03-02 10:00,0 days 00:01,{web},{code},0.0006,{state}\n"
        for j, ((web, code), state) in enumerate(
            zip([*WEIGHTS, (0.3, 0.7)], ["COMPLETE"] * 3 + ["PRUNED"], strict=True)
        )
    ]
    (tmp_path / "trials.csv").write_text(header + "".join(rows))
    runs = read_runs(tmp_path / "trials.csv", tmp_path / "trials.csv")
    assert runs.names == ("0", "1", "2")
    assert runs.table.domains == ("params_web", "params_code")
    assert runs.table.metrics == ("value",)


def test_the_table_of_a_wandb_panel_is_named_as_such(tmp_path: Path) -> None:
    metrics = "Step,a - eval/loss,a - eval/loss__MIN,a - eval/loss__MAX\n10,3,3,3\n20,2,2,2\n"
    assert "the table of a W&B panel, a column per run" in refused(tmp_path, metrics=metrics)


def test_spreads_beside_metrics_are_no_metrics(tmp_path: Path) -> None:
    metrics = 'run,"acc,none","acc_stderr,none",loss_mean,loss_std,ppl_stderr\n'
    metrics += "".join(f"{run},0.{j + 5},0.01,{j + 2},0.1,{j + 7}\n" for j, run in enumerate("abc"))
    runs = read(tmp_path, metrics=metrics)
    assert runs.table.metrics == ("acc,none", "loss_mean", "ppl_stderr")
    assert any("acc_stderr,none, loss_std: spreads of metrics" in note for note in runs.notes)


def test_a_metric_that_repeats_the_weights_of_a_domain_is_left_out(tmp_path: Path) -> None:
    runs = read(tmp_path, metrics="run,web,code,loss\na,0.5,3,1\nb,0.25,2,2\nc,1,4,3\n")
    assert runs.table.metrics == ("code", "loss")  # the loss on code may be called as code is
    assert any("web: the weights again" in note for note in runs.notes)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04\x14", "a workbook or an archive"),
        (b"PAR1\x15", "Parquet"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b'\xef\xbb\xbf{"run": "a", "web": 1}\n', "JSON"),
    ],
)
def test_what_is_no_csv_is_named(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "R.csv").write_bytes(start)
    with pytest.raises(RunsError, match=f"is {what}"):
        read_runs(tmp_path / "R.csv", tmp_path / "R.csv")


def test_comments_before_the_header_are_passed_over_and_counted(tmp_path: Path) -> None:
    ratios = "# exported\n# in March\n" + RATIOS
    assert read(tmp_path, ratios).table.weights.tolist() == WEIGHTS
    assert "R.csv:5: web" in refused(tmp_path, ratios.replace("b,0.25", "b,-0.25"))


def test_counts_of_tokens_are_to_be_divided(tmp_path: Path) -> None:
    ratios = "run,web,code\na,5000000,5000000\nb,250000,750000\nc,1000000,0\n"
    assert "look like counts of tokens" in refused(tmp_path, ratios)


def test_a_mixture_in_one_cell_is_quoted(tmp_path: Path) -> None:
    ratios = 'Name,mixture\na,"{""web"": 1}"\nb,"{""web"": 1}"\n'
    quoted = """'{"web": 1}' in column 'mixture' of line 2 is no number"""
    assert quoted in refused(tmp_path, ratios)


def test_control_characters_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, RATIOS.replace("\nb,", "\nb\x1b[31m,"))
    assert "R.csv:3: holds the control character '\\x1b'" in message


def test_other_columns_that_begin_with_value_are_metrics_like_all(tmp_path: Path) -> None:
    metrics = "run,params_total,value_loss,bpb\na,30,3,1\nb,31,2,2\nc,32,4,3\n"
    assert read(tmp_path, metrics=metrics).table.metrics == ("params_total", "value_loss", "bpb")


HEADS = (
    *("run", "Name", "State", "step", "_step", "seed", "domain", "task", "weight", "value", "loss"),
    *("web", "code", "lr", "tokens", "model", "params.web", "metrics.loss", "params_web", "acc"),
    *("ratio_web", "metric_a", "mixture.web", "trial", "web/loss", "acc_stderr", ""),
)
CELLS = (
    *("a", "b", "c", "0.5", "0.25", "0.75", "1", "0", "", "nan", "inf", "12%", "1,234", "60M"),
    *("finished", "crashed", "-1", "x y", "—", "1e400", "3"),
)


@st.composite
def any_table(draw: st.DrawFn) -> str:
    """A table of a few such columns, whose cells are of a few kinds each."""
    heads = draw(st.lists(st.sampled_from(HEADS), min_size=2, max_size=6, unique=True))
    kinds = [draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4)) for _ in heads]
    rows = draw(st.lists(st.tuples(*map(st.sampled_from, kinds)), min_size=1, max_size=9))
    return "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in (heads, *rows))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(ratios=any_table(), metrics=any_table(), one=st.booleans())
def test_any_such_tables_are_read_or_refused_with_an_error_of_ours(
    tmp_path: Path, ratios: str, metrics: str, one: bool
) -> None:
    (tmp_path / "R.csv").write_text(ratios)
    (tmp_path / "M.csv").write_text(metrics)
    try:
        runs = read_runs(tmp_path / "R.csv", tmp_path / ("R.csv" if one else "M.csv"))
    except RunsError:
        return
    assert np.allclose(runs.table.weights.sum(axis=1), 1)
