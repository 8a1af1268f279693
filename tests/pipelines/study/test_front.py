"""Several metrics: the front, a point chosen by its weights, and what views say that it pays."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from rich.console import Console

from mixopt.api.study import open_study
from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.io import files
from mixopt.pipelines.study.front import MOST_COLUMNS, front_table, show_front
from mixopt.pipelines.views.closing import mixtures_table
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.search.front import Front, FrontPoint, nondominated
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from tests.pipelines.finished_study import TOKENS, finished_study, write_verdict


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose verdict weighs two metrics that pull apart."""
    study = finished_study(tmp_path_factory.mktemp("front"))
    settings = yaml.safe_load(study.path.read_text())
    settings["objective"] = {"descriptions": 1.0, "web": 0.2}
    settings["search"] = {"surrogate": "linear"}
    study.path.write_text(yaml.safe_dump(settings))
    verdict = read_verdict(study.home)
    assert verdict is not None
    write_verdict(load_study(study.path), {it.name: it.mixture for it in verdict.candidates})
    verdict = read_verdict(study.home)
    assert verdict is not None
    quick = dataclasses.replace(verdict, surrogate="linear")
    files.write_json(study.home / "verdict.json", quick.to_json())
    return study.path


def test_no_point_beats_another_and_each_names_the_weights_that_choose_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_front(file, tmp_path / "front.csv", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    points = shown["points"]
    assert len(points) >= 3
    metrics = ("bpb/descriptions", "bpb/web")
    means = pl.DataFrame([{m: p["metrics"][m]["mean"] for m in metrics} for p in points])
    assert nondominated(means.to_numpy()).all()
    assert set(points[0]["objective"]) == {"descriptions", "web"}
    table = pl.read_csv(tmp_path / "front.csv")
    assert shown["baseline"]["point"] == "natural"
    assert table["run"].to_list() == ["natural", *(p["point"] for p in points)]
    assert shown["baseline"]["mixture"] == pytest.approx(
        {name: tokens / sum(TOKENS.values()) for name, tokens in TOKENS.items()}
    )
    assert set(TOKENS) < set(table.columns)


@pytest.mark.slow
def test_the_chosen_weights_make_it_the_optimum(file: Path) -> None:
    points = open_study(file).front()
    chosen = points[len(points) // 2]
    before = file.read_text()
    settings = yaml.safe_load(before)
    settings["objective"] = {name.removeprefix("bpb/"): w for name, w in chosen.weights.items()}
    file.write_text(yaml.safe_dump(settings))
    try:
        found = open_study(file).optimum().mixture
    finally:
        file.write_text(before)
    assert found.array == pytest.approx(chosen.mixture.array, abs=0.02)


def test_a_terminal_of_100_columns_holds_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_front(file)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert "{descriptions: " in shown
    assert "bpb/web ± 90 %" in shown
    assert "look 1 of 1 (select.looks)" in " ".join(shown.split())
    assert sum(" now " in line for line in shown.splitlines()) <= 1


def test_long_names_of_domains_cut_no_number() -> None:
    names = [f"a_domain_with_a_long_name_{n}" for n in range(3)]
    mixture, metrics = Mixture.uniform(names), [f"metric/{n}" for n in range(MOST_COLUMNS)]
    values, stds = dict.fromkeys(metrics, 0.1234), dict.fromkeys(metrics, 0.05)
    point = FrontPoint("f0a1", mixture, dict.fromkeys(metrics, 0.25), values, stds, own=True)
    front = Front((point,), dataclasses.replace(point, label="", weights={}))
    text = io.StringIO()
    console = Console(file=text, width=100)
    console.print(front_table(front, "natural", dict.fromkeys(metrics, True), 100))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.count("0.1234 ± 0.0822") for line in lines[-2:]] == [MOST_COLUMNS] * 2
    assert lines[-1].startswith("f0a1 now")


def test_views_say_what_the_promoted_mixture_pays(file: Path) -> None:
    study = load_study(file)
    verdict = read_verdict(study.home)
    assert verdict is not None
    line = trade_line(verdict)
    assert "better in bpb/descriptions" in line
    assert "worse in bpb/web" in line
    text = io.StringIO()
    table = mixtures_table(verdict, tuple(TOKENS), study.mixture_objective(), 400_000)
    Console(file=text, width=100).print(table)
    assert "bpb/web against" in " ".join(text.getvalue().split())
    page = write_report(study).read_text()
    assert line in page
    assert "Trade-offs" in page
    assert "What can be had of two metrics at once" in page


def test_a_study_of_one_metric_is_told_so(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    with pytest.raises(StudyError, match="only metric"):
        show_front(study.path)
    assert "Trade-offs" not in write_report(study).read_text()
