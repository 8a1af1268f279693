"""A table with a row per run and domain, or per run and metric, says what a wide one does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from mixopt.core.errors import RunsError
from mixopt.offline.runs import Runs, read_mixtures, read_runs

RUNS = {"a": (0.5, 0.5), "b": (0.25, 0.75), "c": (1.0, 0.0), "d": (0.1, 0.9)}
LOSSES = {"a": (3, 1), "b": (2, 0.9), "c": (4, 1.2), "d": (2.5, 0.8)}
RATIOS = "run,web,code\n" + "".join(f"{run},{w},{c}\n" for run, (w, c) in RUNS.items())
METRICS = "run,x,y\n" + "".join(f"{run},{x},{y}\n" for run, (x, y) in LOSSES.items())


def long(header: str, names: tuple[str, str], values: dict[str, tuple[float, float]]) -> str:
    rows = [
        f"{run},{name},{value}\n"
        for run, both in values.items()
        for name, value in zip(names, both, strict=True)
    ]
    return header + "\n" + "".join(rows)


LONG_RATIOS = long("run,domain,weight", ("web", "code"), RUNS)
LONG_METRICS = long("run,task,loss", ("x", "y"), LOSSES)


def read(folder: Path, ratios: str = RATIOS, metrics: str = METRICS) -> Runs:
    (folder / "R.csv").write_text(ratios)
    (folder / "M.csv").write_text(metrics)
    return read_runs(folder / "R.csv", folder / "M.csv")


def refused(folder: Path, ratios: str = RATIOS, metrics: str = METRICS) -> str:
    with pytest.raises(RunsError) as caught:
        read(folder, ratios, metrics)
    return str(caught.value)


def same(runs: Runs, other: Runs) -> bool:
    return bool(
        runs.names == other.names
        and runs.table.domains == other.table.domains
        and np.array_equal(runs.table.weights, other.table.weights)
        and np.array_equal(runs.table.values, other.table.values)
    )


def test_long_ratios_are_read_as_wide_ones(tmp_path: Path) -> None:
    runs = read(tmp_path, LONG_RATIOS)
    assert same(runs, read(tmp_path))
    assert any("'domain' names web, code; weight is read for each" in n for n in runs.notes)


def test_long_metrics_are_read_as_wide_ones_and_keep_what_was_measured(tmp_path: Path) -> None:
    runs = read(tmp_path, metrics=LONG_METRICS)
    assert same(runs, read(tmp_path))
    assert runs.table.metrics == ("x/loss", "y/loss")


def test_a_column_called_value_adds_nothing_to_the_names(tmp_path: Path) -> None:
    runs = read(tmp_path, metrics=LONG_METRICS.replace("task,loss", "key,value"))
    assert runs.table.metrics == ("x", "y")


def test_one_long_file_may_hold_both(tmp_path: Path) -> None:
    rows = [
        f"{run},{domain},{weight},{loss}\n"
        for run in RUNS
        for domain, weight, loss in zip(("web", "code"), RUNS[run], LOSSES[run], strict=True)
    ]
    (tmp_path / "both.csv").write_text("run,domain,weight,loss\n" + "".join(rows))
    runs = read_runs(tmp_path / "both.csv", tmp_path / "both.csv")
    assert same(runs, read(tmp_path))
    assert runs.table.metrics == ("web/loss", "code/loss")


def test_domains_of_weight_zero_need_no_row(tmp_path: Path) -> None:
    assert same(read(tmp_path, LONG_RATIOS.replace("c,code,0.0\n", "")), read(tmp_path))


def test_weights_are_told_from_other_numbers_by_their_sums(tmp_path: Path) -> None:
    rows = [f"{line},{7 * j}" for j, line in enumerate(LONG_RATIOS.splitlines()[1:])]
    ratios = "run,domain,weight,documents\n" + "\n".join(rows)
    assert same(read(tmp_path, ratios), read(tmp_path))


def test_curves_in_long_tables_stay_curves(tmp_path: Path) -> None:
    rows = [
        f"{run},{task},{step},{value + 1 / step}\n"
        for run, step in itertools.product(LOSSES, (10, 20))
        for task, value in zip("xy", LOSSES[run], strict=True)
    ]
    runs = read(tmp_path, metrics="run,task,step,loss\n" + "".join(rows))
    assert len(runs.table) == 8
    assert runs.table.final.tokens.tolist() == [20] * 4


def test_what_is_wrong_names_the_line_of_the_long_table(tmp_path: Path) -> None:
    for wrong, where in (("x", "R.csv:5: weight"), ("-0.75", "R.csv:5: code")):
        assert where in refused(tmp_path, LONG_RATIOS.replace("b,code,0.75", f"b,code,{wrong}"))
    twice = refused(tmp_path, metrics=LONG_METRICS + "b,y,7\n")
    assert "M.csv:10: task: run 'b' has 'y' with other numbers than on line 5" in twice


def test_rows_that_two_texts_tell_apart_get_the_command_that_pivots_them(tmp_path: Path) -> None:
    rows = [
        f"{run},{task},{split},{value}\n"
        for run in LOSSES
        for task, split, value in (("x", "dev", 1), ("x", "test", 2), ("y", "dev", 3))
    ]
    message = refused(tmp_path, metrics="run,task,split,loss\n" + "".join(rows))
    assert "pivot(on=['task', 'split'], index='run', values=['loss'])" in message


def test_repeats_with_a_text_of_their_own_are_no_long_table(tmp_path: Path) -> None:
    metrics = "run,host,loss\n" + "".join(f"{run},h{j},{j}\n" for j, run in enumerate("aabbccdd"))
    assert "has other metrics than on line" in refused(tmp_path, metrics=metrics)


def test_mixtures_to_predict_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "R.csv").write_text(LONG_RATIOS)
    asked = read_mixtures(tmp_path / "R.csv", ("code", "web"))
    assert asked.names == tuple(RUNS)
    assert asked.weights[1].tolist() == [0.75, 0.25]


def test_a_trackers_history_is_read_as_curves(tmp_path: Path) -> None:
    rows = [f"{run},{s},{v[0] + 1 / s}\n" for run, v in LOSSES.items() for s in (100, 200, 300)]
    runs = read(tmp_path, metrics="run,_step,eval/loss\n" + "".join(rows))
    assert runs.table.metrics == ("eval/loss",)
    assert runs.table.final.tokens.tolist() == [300] * 4
    assert any("'_step' counts the steps" in note for note in runs.notes)
