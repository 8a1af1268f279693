"""Finished runs are read as they are meant, and what cannot be meant is an error with its line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixopt.core.errors import RunsError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.offline.objective_words import objective_of
from mixopt.offline.runs import Runs, read_mixtures, read_runs
from mixopt.study.frames import trials_frame

DATA = Path(os.environ.get("MIXOPT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
RATIOS = "run,web,code\na,0.5,0.5\nb,0.25,0.75\nc,1,0\n"
METRICS = "run,loss,bpb\na,3,1\nb,2,0.9\nc,4,1.2\n"


def read(folder: Path, ratios: str = RATIOS, metrics: str = METRICS) -> Runs:
    (folder / "R.csv").write_text(ratios)
    (folder / "M.csv").write_text(metrics)
    return read_runs(folder / "R.csv", folder / "M.csv")


def refused(folder: Path, ratios: str = RATIOS, metrics: str = METRICS) -> str:
    with pytest.raises(RunsError) as caught:
        read(folder, ratios, metrics)
    return str(caught.value)


def published(*names: str) -> tuple[Path, ...]:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    return tuple(DATA / name for name in names)


def test_a_row_per_run_is_joined_by_name_in_the_order_of_the_ratios(tmp_path: Path) -> None:
    runs = read(tmp_path, metrics="run,loss,bpb\nc,4,1.2\na,3,1\nb,2,0.9\n")
    assert runs.names == ("a", "b", "c")
    assert runs.layout == "olmix"
    assert runs.table.domains == ("web", "code")
    assert runs.table.metrics == ("loss", "bpb")
    assert runs.table.values.tolist() == [[3, 1], [2, 0.9], [4, 1.2]]
    assert runs.table.weights.tolist() == [[0.5, 0.5], [0.25, 0.75], [1, 0]]
    assert runs.table.fidelities == [Fidelity("", 1, 1)]
    assert runs.cost is None


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_delimiters_and_a_byte_order_mark_are_read_and_said(
    tmp_path: Path, mark: str
) -> None:
    plain = read(tmp_path)
    other = read(tmp_path, "\ufeff" + RATIOS.replace(",", mark), METRICS.replace(",", mark))
    assert np.array_equal(other.table.values, plain.table.values)
    assert any("separated by" in note for note in other.notes)


def test_decimal_commas_are_read_where_they_do_not_separate_cells(tmp_path: Path) -> None:
    ratios = "run;web;code\na;0,5;0,5\nb;0,25;0,75\nc;1;0\n"
    runs = read(tmp_path, ratios, METRICS.replace(",", ";"))
    assert runs.table.weights[1].tolist() == [0.25, 0.75]
    assert any("decimal comma" in note for note in runs.notes)


@pytest.mark.parametrize("column", ["name", "index", "run_id", "run_name", "", "Unnamed: 0"])
def test_other_names_of_the_run_are_taken_and_said(tmp_path: Path, column: str) -> None:
    ratios, metrics = (text.replace("run", column, 1) for text in (RATIOS, METRICS))
    runs = read(tmp_path, ratios, metrics)
    assert runs.names == ("a", "b", "c")
    assert any("identified by" in note for note in runs.notes)


def test_olmix_own_three_leading_columns_are_no_domains(tmp_path: Path) -> None:
    ratios = "run,name,index,web,code\nx1,m-0,0,0.5,0.5\nx2,m-1,1,0.1,0.9\n"
    metrics = "run,name,index,loss\nx1,m-0,0,3\nx2,m-1,1,2\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.domains == ("web", "code")
    assert runs.table.metrics == ("loss",)
    assert runs.names == ("x1", "x2")


def test_numbers_as_names_match_however_they_are_written(tmp_path: Path) -> None:
    runs = read(tmp_path, "run,a,b\n1,1,0\n2.0,0,1\n", "run,loss\n1.0,3\n2,4\n")
    assert runs.names == ("1", "2.0")


def test_rounded_weights_are_renormalised_and_it_is_said_by_how_much(tmp_path: Path) -> None:
    runs = read(tmp_path, RATIOS.replace("a,0.5,0.5", "a,0.5,0.51"))
    assert runs.table.weights[0] == pytest.approx([0.5 / 1.01, 0.51 / 1.01])
    assert any("1.01" in note and "at most 0.01" in note for note in runs.notes)


def test_percent_is_recognised_by_its_sums(tmp_path: Path) -> None:
    runs = read(tmp_path, "run,web,code\na,50,50\nb,25,75\nc,100,0\n")
    assert runs.table.weights.tolist() == [[0.5, 0.5], [0.25, 0.75], [1, 0]]
    assert any("percent" in note for note in runs.notes)


@pytest.mark.parametrize(
    ("row", "where", "what"),
    [
        ("b,-0.25,1.25", "R.csv:3: web", "negative"),
        ("b,nan,0.75", "R.csv:3: web", "missing"),
        ("b,,0.75", "R.csv:3: web", "missing"),
        ("b,inf,0.75", "R.csv:3: web", "not finite"),
        ("b,0.25,0.5", "R.csv:3", "sum to 0.75"),
        ("b,0.25,some", "R.csv:3: code", "'some' is not a number"),
        ("b,0.25", "R.csv:3", "2 cells, the header has 3"),
    ],
)
def test_weights_that_are_no_mixture_name_line_and_column(
    tmp_path: Path, row: str, where: str, what: str
) -> None:
    result = refused(tmp_path, RATIOS.replace("b,0.25,0.75", row))
    assert f"{where}: " in result
    assert what in result


def test_lines_are_counted_past_empty_ones_and_quoted_breaks(tmp_path: Path) -> None:
    ratios = 'run,note,web,code\na,"two\nlines",0.5,0.5\n\nb,x,-0.25,1.25\n'
    assert "R.csv:5: web" in refused(tmp_path, ratios)


def test_a_column_that_is_no_weight_is_left_out_if_the_rest_sums_to_one(tmp_path: Path) -> None:
    ratios = "run,batch_size,web,code\na,512,0.5,0.5\nb,256,0.25,0.75\nc,512,1,0\n"
    runs = read(tmp_path, ratios)
    assert runs.table.domains == ("web", "code")
    assert any("batch_size" in note for note in runs.notes)


def test_texts_are_left_out_and_said(tmp_path: Path) -> None:
    metrics = "run,loss,state\na,3,done\nb,2,done\nc,4,done\n"
    runs = read(tmp_path, metrics=metrics)
    assert runs.table.metrics == ("loss",)
    assert any("state" in note for note in runs.notes)


def test_missing_metrics_stay_missing_and_are_counted(tmp_path: Path) -> None:
    metrics = "run,loss,bpb,never\na,3,NaN,\nb,2,0.9,\nc,inf,,nan\n"
    runs = read(tmp_path, metrics=metrics)
    assert runs.table.metrics == ("loss", "bpb")
    assert runs.names == ("a", "b")
    assert np.isnan(runs.table.values).tolist() == [[False, True], [False, False]]
    notes = " ".join(runs.notes)
    assert "never" in notes
    assert "bpb (2)" in notes
    assert "1 infinite value" in notes
    assert "1 row without any metric left out: c" in notes


def test_a_metric_that_is_no_number_names_its_line(tmp_path: Path) -> None:
    result = refused(tmp_path, metrics=METRICS.replace("b,2", "b,two"))
    assert "M.csv:3: loss: 'two' is not a number" in result


def test_runs_in_one_file_only_are_dropped_and_named(tmp_path: Path) -> None:
    runs = read(tmp_path, RATIOS + "d,0,1\n", METRICS + "e,1,1\nf,1,1\n")
    assert runs.names == ("a", "b", "c")
    notes = " ".join(runs.notes)
    assert "1 run of R.csv left out, not in M.csv: d" in notes
    assert "2 runs of M.csv left out, not in R.csv: e, f" in notes


def test_files_without_a_common_run_are_refused(tmp_path: Path) -> None:
    assert "no run of R.csv is in M.csv" in refused(tmp_path, metrics="run,loss\nx,1\ny,2\n")


def test_the_same_row_twice_is_merged(tmp_path: Path) -> None:
    runs = read(tmp_path, RATIOS + "a,0.5,0.5\n", METRICS + "a,3,1\n")
    assert runs.names == ("a", "b", "c")
    assert sum("merged" in note for note in runs.notes) == 2


def test_one_name_with_two_mixtures_names_both_lines(tmp_path: Path) -> None:
    result = refused(tmp_path, RATIOS + "a,0.4,0.6\n")
    assert "R.csv:5" in result
    assert "line 2" in result


def test_one_name_with_two_results_names_both_lines(tmp_path: Path) -> None:
    result = refused(tmp_path, metrics=METRICS + "a,3.5,1\n")
    assert "M.csv:5: loss" in result
    assert "line 2" in result


def test_one_mixture_under_two_names_is_a_repeat(tmp_path: Path) -> None:
    runs = read(tmp_path, RATIOS + "d,0.5,0.5\n", METRICS + "d,3.1,1\n")
    assert len(runs.table) == 4
    assert runs.table.seeds.tolist() == [0, 0, 0, 1]
    assert any("repeats" in note for note in runs.notes)


def test_seeds_tell_rows_of_one_name_apart(tmp_path: Path) -> None:
    ratios = "run,seed,web,code\na,1,0.5,0.5\na,2,0.5,0.5\nb,1,0,1\n"
    metrics = "run,seed,loss\na,1,3\na,2,3.1\nb,1,4\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.values[:, 0].tolist() == [3, 3.1, 4]
    assert runs.table.seeds.tolist() == [1, 2, 1]
    assert len(set(runs.table.runs.tolist())) == 3


def test_sizes_and_tokens_may_be_written_short(tmp_path: Path) -> None:
    ratios = "run,model_params,tokens,web,code\na,1M,1B,0.5,0.5\nb,60M,2e9,0,1\nc,1B,25_000,1,0\n"
    runs = read(tmp_path, ratios)
    assert runs.table.params.tolist() == [1e6, 60e6, 1e9]
    assert runs.table.tokens.tolist() == [1e9, 2e9, 25e3]


def test_a_size_that_is_none_names_its_line(tmp_path: Path) -> None:
    ratios = "run,model_params,web,code\na,1M,0.5,0.5\nb,,0.25,0.75\nc,large,1,0\n"
    assert "R.csv:3: model_params" in refused(tmp_path, ratios)


def test_runs_of_one_name_at_two_sizes_are_joined_where_both_files_tell(tmp_path: Path) -> None:
    ratios = "run,model_params,web,code\n1,1M,0.5,0.5\n1,60M,0.5,0.5\n"
    metrics = "run,model_params,loss\n1,60M,2\n1,1M,3\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.params.tolist() == [1e6, 60e6]
    assert runs.table.values[:, 0].tolist() == [3, 2]
    assert "model_params" in refused(tmp_path, ratios, "run,loss\n1,2\n")


def test_steps_are_the_curve_of_a_run(tmp_path: Path) -> None:
    ratios = "run,tokens,web,code\na,1000,0.5,0.5\nb,2000,0,1\n"
    metrics = "run,step,loss\na,0,9\na,10,4\na,20,3\nb,10,5\nb,20,4\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.tokens.tolist() == [500, 1000, 1000, 2000]
    assert runs.table.runs.tolist() == [0, 0, 1, 1]
    assert runs.table.final.values[:, 0].tolist() == [3, 4]
    assert any("step 0 left out" in note for note in runs.notes)


def test_steps_in_both_files_are_joined_step_by_step(tmp_path: Path) -> None:
    ratios = "run,step,web,code\na,10,0.5,0.5\na,20,0.5,0.5\nb,20,0,1\n"
    metrics = "run,step,loss\na,20,3\na,10,4\nb,20,5\nb,30,1\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.table.tokens.tolist() == [10, 20, 20]
    assert runs.table.values[:, 0].tolist() == [4, 3, 5]
    assert any("steps are used instead" in note for note in runs.notes)


def test_costs_are_read_and_shared_out_over_a_curve(tmp_path: Path) -> None:
    ratios = "run,tokens,cost,web,code\na,100,8,0.5,0.5\nb,100,6,0,1\n"
    metrics = "run,step,loss\na,5,4\na,10,3\nb,10,5\n"
    runs = read(tmp_path, ratios, metrics)
    assert runs.cost is not None
    assert runs.cost.tolist() == [4, 8, 6]


def test_a_value_far_from_all_others_is_warned_of(tmp_path: Path) -> None:
    ratios = "run,web,code\n" + "".join(f"r{i},{i / 10},{1 - i / 10}\n" for i in range(8))
    losses = [3.0, 2.9, 2.8, 2.75, 2.7, 2.6, 2.5]
    for last, warned in ((2.4, False), (5.0, False), (1e30, True)):
        metrics = "run,loss\n" + "".join(f"r{i},{v}\n" for i, v in enumerate([*losses, last]))
        notes = " ".join(read(tmp_path, ratios, metrics).notes)
        assert ("loss has 1 value far from the others (such as 1e+30" in notes) == warned


def test_what_says_nothing_is_remarked(tmp_path: Path) -> None:
    ratios = "run,web,code,books\na,0.5,0.5,0\nb,0.25,0.75,0\n"
    runs = read(tmp_path, ratios, "run,loss,same\na,3,1\nb,2,1\n")
    notes = " ".join(runs.notes)
    assert "No run used books" in notes
    assert "same is 1 in every run" in notes
    assert "fewer runs than domains" in notes


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("run,web,code\n", "no rows"),
        ("run web code\na 0.5 0.5\n", "single column"),
        ("run,web,web\na,0.5,0.5\n", "both called 'web'"),
        ("run,web,code\na,0.5,0.5\n", "names the run"),
        ("web,code\n0.5,0.5\n", "names the run"),
        ('run,web,code\na,0.5,"0.5\n', "quote"),
    ],
)
def test_files_that_are_no_table_say_so(tmp_path: Path, text: str, what: str) -> None:
    metrics = "loss,bpb\n3,1\n" if what == "names the run" else METRICS
    result = refused(tmp_path, text, metrics)
    assert what in result


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "M.csv").write_bytes(b"caf\xe9,1\n")
    with pytest.raises(RunsError, match=r"M\.csv: is not text"):
        read_runs(tmp_path / "M.csv", tmp_path / "M.csv")
    with pytest.raises(RunsError, match=r"R\.csv: cannot be read: No such file"):
        read_runs(tmp_path / "R.csv", tmp_path / "M.csv")


def test_one_file_for_both_needs_telling_names(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text("run,web,code,loss\na,0.5,0.5,3\nb,0,1,2\n")
    with pytest.raises(RunsError, match="ratio_<domain>"):
        read_runs(file, file)


def test_admire_like_tables_give_sizes_scores_and_costs(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text(
        "model,ratio_x,ratio_y,metric_qa::t,train_time,metric_avg_id\n"
        "Qwen2.5-0.5B,0.5,0.5,0.1,10,0.1\nQwen2.5-7B-Instruct,0.25,0.75,0.7,200,0.7\n"
    )
    runs = read_runs(file, file)
    assert runs.layout == "admire"
    assert runs.table.domains == ("ratio_x", "ratio_y")
    assert runs.table.metrics == ("metric_qa::t",)
    assert runs.table.params.tolist() == [0.5e9, 7e9]
    assert runs.cost is not None
    assert runs.cost.tolist() == [10, 200]
    assert runs.names == ("line2", "line3")
    assert any("metric_avg_id" in note for note in runs.notes)


def test_prefixes_alone_do_not_make_scores_of_metrics(tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    file.write_text(
        "model,train_time,ratio_web,ratio_code,metric_prose\n60M,3,0.5,0.5,3\n60M,3,0,1,2\n"
    )
    runs = read_runs(file, file)
    assert runs.layout == "prefixed"
    assert runs.notes[0].startswith("Read as the prefixed layout")
    assert objective_of((), runs.table.metrics, runs.layout)[0].weights == {"metric_prose": 1.0}


def test_the_published_regmix_table_is_read_whole() -> None:
    runs = read_runs(*published("regmix/test_mixture_60m.csv", "regmix/test_pile_loss_60m.csv"))
    assert runs.layout == "regmix"
    assert (len(runs.table), len(runs.table.domains), len(runs.table.metrics)) == (256, 17, 13)
    assert runs.table.weights.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert runs.table.metrics[0] == "metric/the_pile_arxiv_val_loss"
    assert any("renormalised" in note for note in runs.notes)


def test_the_published_admire_table_is_read_whole() -> None:
    [file] = published("admire_ift/runs_0.5b_3b.csv")
    runs = read_runs(file, file)
    assert (len(runs.table), len(runs.table.domains), len(runs.table.metrics)) == (384, 19, 17)
    assert runs.layout == "admire"
    weights = objective_of((), runs.table.metrics, runs.layout)[0].weights
    assert all(weight < 0 for weight in weights.values())
    assert [f.params for f in runs.table.fidelities] == [500_000_000, 3_000_000_000]


MIXTURES = st.integers(2, 5).flatmap(
    lambda m: st.lists(
        st.lists(st.integers(0, 1000), min_size=m, max_size=m).filter(any), min_size=1, max_size=8
    )
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MIXTURES, st.sampled_from([",", ";", "\t"]), st.randoms(use_true_random=False))
def test_what_is_written_is_what_is_read(tmp_path: Path, counts: list, mark: str, order) -> None:
    weights = np.array(counts, dtype=float)
    weights /= weights.sum(axis=1, keepdims=True)
    n, m = weights.shape
    values = np.round(weights @ np.arange(1, m + 1) + 0.125, 6)
    domains = [f"d{j}" for j in range(m)]
    ratios = [[f"r{i}", *(repr(float(w)) for w in weights[i])] for i in range(n)]
    metrics = [[f"r{i}", repr(float(values[i]))] for i in range(n)]
    order.shuffle(metrics)
    text = "\n".join(mark.join(row) for row in [["run", *domains], *ratios])
    other = "\n".join(mark.join(row) for row in [["run", "loss"], *metrics])
    runs = read(tmp_path, text, other)
    assert runs.table.domains == tuple(domains)
    assert np.allclose(runs.table.weights, weights, rtol=0, atol=1e-12)
    assert np.array_equal(runs.table.values[:, 0], values)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='run,ab;\t"\n.019-', max_size=80), st.sampled_from([METRICS, ""]))
def test_any_text_is_read_or_refused_with_an_error_of_ours(
    tmp_path: Path, text: str, metrics: str
) -> None:
    try:
        runs = read(tmp_path, text, metrics or text)
    except RunsError:
        return
    assert runs.table.weights.sum(axis=1) == pytest.approx(1)


def mixtures(folder: Path, text: str):
    (folder / "P.csv").write_text(text)
    return read_mixtures(folder / "P.csv", ("web", "code", "books"))


def test_mixtures_to_predict_keep_their_order_and_fill_what_is_absent(tmp_path: Path) -> None:
    asked = mixtures(tmp_path, "name,books,web,news,note\ny,0.5,0.5,0,hi\nx,0,1,0,\n")
    assert asked.names == ("y", "x")
    assert asked.column == "name"
    assert asked.weights.tolist() == [[0.5, 0, 0.5], [1, 0, 0]]
    assert asked.params is None
    assert asked.tokens is None
    notes = " ".join(asked.notes)
    assert "code: taken as 0" in notes
    assert "news: left out: unknown" in notes


def test_mixtures_without_names_are_numbered_and_may_tell_fidelities(tmp_path: Path) -> None:
    asked = mixtures(tmp_path, "web,code,model_params,tokens\n0.5,0.5,60M,1B\n1,0,1B,25B\n")
    assert asked.names == ("1", "2")
    assert asked.params is not None
    assert asked.tokens is not None
    assert asked.params.tolist() == [60e6, 1e9]
    assert asked.tokens.tolist() == [1e9, 25e9]


def test_weight_on_an_unknown_domain_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match=r"P\.csv:3: book: .*Did you mean books"):
        mixtures(tmp_path, "run,web,book\na,1,0\nb,0.5,0.5\n")
    with pytest.raises(RunsError, match="none of the fitted domains"):
        mixtures(tmp_path, "run,x,y\na,1,0\n")


def test_numbers_that_are_no_weights_are_left_out_of_mixtures_to_predict(tmp_path: Path) -> None:
    asked = mixtures(tmp_path, "run,web,code,books,loss\na,1,0,0,3.2\nb,0.5,0.499,0,2.9\n")
    assert asked.weights[0].tolist() == [1, 0, 0]
    assert "loss: left out as no domain" in " ".join(asked.notes)
    # a small weight on a domain that is not known is a weight all the same
    with pytest.raises(RunsError, match=r"P\.csv:3: news"):
        mixtures(tmp_path, "run,web,code,books,news\na,1,0,0,0\nb,0.5,0.495,0,0.005\n")


def test_weight_that_is_lacking_is_looked_for_in_the_columns_that_are(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match=r"P\.csv:3: .*sum to 0\.7.*Add the column books"):
        mixtures(tmp_path, "run,web,code\na,1,0\nb,0.3,0.4\n")


@pytest.mark.parametrize(
    "ids",
    [
        ("1732837485123456701", "1732837485123456708", "1732837485123456715"),
        ("0e31415", "0e27182", "1234e56"),
        ("7", "07", "7.0"),
    ],
)
def test_names_of_runs_are_texts_in_the_spelling_of_the_file(
    tmp_path: Path, ids: tuple[str, str, str]
) -> None:
    def named(text: str) -> str:
        for letter, name in zip("abc", ids, strict=True):
            text = text.replace(f"\n{letter},", f"\n{name},")
        return text

    assert read(tmp_path, named(RATIOS), named(METRICS)).names == ids


def test_cells_with_a_percent_sign_are_hundredths(tmp_path: Path) -> None:
    ratios = "run,web,code\na,12.5%,87.5 %\nb,0,100%\nc,50%,50%\n"
    runs = read(tmp_path, ratios, "run,acc\na,27.7%\nb,30%\nc,31%\n")
    assert np.allclose(runs.table.weights, [[0.125, 0.875], [0, 1], [0.5, 0.5]])
    assert np.allclose(runs.table.values[:, 0], [0.277, 0.3, 0.31])
    assert any("percent sign" in note for note in runs.notes)
    result = refused(tmp_path, "run,web,code\na,12.5%,87.5%\nb,50,50%\nc,1%,99%\n")
    assert "R.csv:3: web" in result
    assert "no percent sign" in result


def test_hyperparameters_beside_the_weights_are_no_domains(tmp_path: Path) -> None:
    ratios = "run,lr,weight_decay,web,code\na,6e-4,0.01,0.5,0.5\nb,3e-4,0.01,0.25,0.75\n"
    runs = read(tmp_path, ratios + "c,1e-3,0.01,1,0\n")
    assert runs.table.domains == ("web", "code")
    assert any("lr, weight_decay: left out as no domain" in note for note in runs.notes)
    # rows that need the column to sum to 1 show that it is a domain
    domain = read(tmp_path, "run,lr,web\na,0.5,0.5\nb,0.01,0.99\nc,0,1\n")
    assert domain.table.domains == ("lr", "web")


def test_housekeeping_of_trackers_is_no_metric(tmp_path: Path) -> None:
    metrics = "run,Runtime,_timestamp,train/global_step,eval/loss\n"
    runs = read(tmp_path, metrics=metrics + "a,3641,1.7e9,500,3\nb,3,1.7e9,500,2\nc,4,2e9,500,4\n")
    assert runs.table.metrics == ("eval/loss",)
    assert any("Runtime, _timestamp, train/global_step" in note for note in runs.notes)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ("a,0.8,0.2,0.9,0.1\nb,0.6,0.4,0.8,0.2\nc,0.5,0.5,1,0\n", "look like 2 phases"),
        ("a,0.1,0.2,0.2,0.1\nb,0.1,0.4,0.1,0.2\nc,0.5,0.1,0.3,0\n", "Is a domain missing"),
        ("a,1,0.2,0.2,0.1\nb,0.1,0.4,0.1,0.2\nc,0.5,0.1,0.3,0\n", "Divide each row"),
    ],
)
def test_advice_on_wrong_sums_is_about_these_sums(tmp_path: Path, rows: str, advice: str) -> None:
    assert advice in refused(tmp_path, "run,a1,b1,a2,b2\n" + rows)


def study_trials() -> list[Trial]:
    """Two complete trials, one of them of a larger model, and one that failed."""
    small, large = Fidelity("s", 10, 100), Fidelity("l", 30, 300)
    specs = [
        TrialSpec(Mixture(("web", "code"), (w, 1 - w)), size, seed=k, role=Role.SEARCH)
        for k, (w, size) in enumerate([(0.1, small), (1 / 3, large), (0.5, small)])
    ]
    results = [
        TrialResult({"bpb/web": 1.5 - k, "bpb/code": 0.1}, (), Cost(100, device_seconds=7.0 + k))
        for k in range(2)
    ]
    return [
        Trial(0, specs[0], State.COMPLETE, results[0]),
        Trial(1, specs[1], State.COMPLETE, results[1]),
        Trial(2, specs[2], State.FAILED, message="web, code: out of memory"),
    ]


def test_the_trials_that_a_study_exports_are_read_back_as_they_were(tmp_path: Path) -> None:
    trials = study_trials()
    file = tmp_path / "trials.csv"
    trials_frame(trials, Objective({"bpb/web": 1.0}, prefix="")).write_csv(file)
    runs = read_runs(file, file)
    expected = TrialTable.of(trials, ("bpb/web", "bpb/code"))
    assert runs.layout == "mixopt"
    assert runs.table.domains == ("web", "code")
    assert runs.table.metrics == expected.metrics
    for name in ("weights", "values", "params", "tokens", "seeds"):
        assert np.array_equal(getattr(runs.table, name), getattr(expected, name)), name
    assert runs.names == ("0", "1")
    assert runs.cost is not None
    assert runs.cost.tolist() == [7, 8]
    assert any("1 row left out: runs that are not complete (state: " in note for note in runs.notes)


def test_the_exported_trials_are_mixtures_to_predict(tmp_path: Path) -> None:
    trials_frame(study_trials()).write_csv(tmp_path / "trials.csv")
    asked = read_mixtures(tmp_path / "trials.csv", ("code", "web"))
    assert asked.weights[:, 1].tolist() == pytest.approx([0.1, 1 / 3, 0.5])
    assert asked.names == ("0", "1", "2")


def test_exported_trials_of_which_none_is_complete_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    trials_frame(study_trials()[2:]).write_csv(file)
    with pytest.raises(RunsError, match="no run is complete"):
        read_runs(file, file)
