"""Names of files, domains, metrics and runs are printed as they are, on any console."""

from __future__ import annotations

import re
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from mixopt.pipelines.views.console import Display, make_console, make_error_console
from mixopt.study.progress import read_progress
from tests.pipelines.made_runs import DOMAINS, Run, tables

NAMES = ("[red]web[/red]", ":book:", "a\\[b", "[/]")
METRICS = ("[bold]x", "s:snake:y")
SOURCES = sorted(Path(__file__).parents[3].joinpath("pipelines").rglob("*.py"))


@pytest.fixture(params=["plain", "terminal"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the console is: without a terminal, or a terminal of 100 columns with colours."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")
    return str(request.param)


def shown(text: str) -> str:
    """`text` without the terminal's own codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def odd_tables(folder: Path) -> tuple[Path, Path]:
    """Made runs whose domains, metrics and names look like markup and emoji codes."""
    ratios, metrics = tables(folder, n=12, metrics=METRICS)
    made = [pl.read_csv(path.read_bytes()) for path in (ratios, metrics)]
    names = [f"{NAMES[j % len(NAMES)]}{j}" for j in range(12)]
    frame = made[0].rename(dict(zip(DOMAINS, NAMES, strict=True)))
    frame.with_columns(run=pl.Series(names)).write_csv(ratios)
    made[1].with_columns(run=pl.Series(names)).write_csv(metrics)
    return ratios, metrics


def test_every_command_on_finished_runs_prints_names_as_they_are(
    tmp_path: Path, run: Run, kind: str
) -> None:
    folder = tmp_path / "[blue]data :books:"
    ratios, metrics = odd_tables(folder)
    files = ("--ratios", ratios, "--metrics", metrics)
    fit = run("fit", *files, "--out", folder / "fit", "--surrogate", "linear")
    out = shown(fit.out)
    assert fit.code == 0, fit.err
    for name in (*NAMES, *METRICS):
        assert name in out
    assert "The best run is " in out
    assert "[blue]data :books:" in out.replace("\n", "")
    predicted = run("predict", folder / "fit", "--ratios", ratios, "--out", folder / "P.csv")
    assert re.search(r"\(run (\[red\]web\[/red\]|:book:|a\\\[b|\[/\])\d+\)", shown(predicted.out))
    bounds = ("--bounds", ":book:=:0.1", "--linear", "a\\[b <= 0.3", "--proposer", "random")
    proposed = run("propose", folder / "fit", "-n", 2, "--out", folder / "N.csv", *bounds)
    assert proposed.code == 0, proposed.err
    assert any(name in shown(proposed.out) for name in NAMES)
    replayed = run("replay", *files, "--proposer", "random", "--budget", 6, "--seeds", 2)
    assert replayed.code == 0, replayed.err
    best = shown(replayed.out).replace("\n", " ")
    assert re.search(r"\((\[red\]web\[/red\]|:book:|a\\\[b|\[/\])\d+: ", best)


def test_errors_are_printed_as_they_are(tmp_path: Path, run: Run, kind: str) -> None:
    for name in ("[red]no[/red].csv", ":book:.csv", "a\\[b[/]"):
        answer = run("predict", tmp_path / name, "--ratios", "R.csv", "--out", "P.csv")
        assert answer.code == 1
        assert str(tmp_path / name) in shown(answer.err)


def test_a_studys_lines_phases_and_bars_show_texts_as_they_are(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    display = Display(make_console(), 10.0)
    for name in NAMES:
        display.say(f"said {name}.")
        display.warn(f"warned {name}.")
        with display.phase(f"phase {name}.", 10.0, 2, {}):
            display.progress(name, 1.0)
    out = shown(capsys.readouterr().out)
    for name in NAMES:
        for what in ("said", "warned", "phase"):
            assert f"{what} {name}." in out or f"{what} {name}.:" in out


def test_no_console_interprets_texts(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    for console in (make_console(), make_error_console()):
        for name in NAMES:
            console.print(name)
            console.rule(name)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert all(shown(text).count(name) == 2 for name in NAMES)


def test_consoles_and_texts_on_them_are_made_where_nothing_interprets_them() -> None:
    """Rich takes markup from any string that one of its own parts is given."""
    for path in SOURCES:
        source = path.read_text()
        assert "rich.markup" not in source, path
        assert "from_markup" not in source, path
        assert not re.search(r"\[(bold|dim|red|green|yellow)\b[^]]*\]", source), path
        assert path.name == "console.py" or not re.search(r"(?<!\w)Console\(", source), path
        for call in re.findall(r"TextColumn\([^)]*\{[^)]*\)", source):
            assert "markup=False" in call, path
        for call in re.findall(r"\.status\(.*", source):
            assert "styled(" in call, path


def test_the_terminal_kind_of_these_tests_is_one(kind: str) -> None:
    assert Console().is_terminal == (kind == "terminal")


def test_the_time_left_of_what_goes_on_follows_from_what_was_trained_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr(f"{Display.__module__}.SECONDS_BETWEEN_RECORDS", 0.0)
    monkeypatch.setattr(f"{Display.__module__}.SECONDS_BETWEEN_LINES", 0.0)
    display = Display(make_console(), 200.0)
    display.home, began = tmp_path, time.monotonic()
    with display.phase("experts", 200.0, 2, {}):
        for flops in (91.0, 92.0):
            for key in ("law", "code"):
                time.sleep(0.2)
                display.progress(key, flops, resumed=90.0)
    expected = 4 * (time.monotonic() - began)  # 16 of 200 are left, and 4 were trained
    recorded = read_progress(tmp_path)
    assert recorded is not None
    assert recorded.seconds_left == pytest.approx(expected, rel=0.2)
    out = shown(capsys.readouterr().out)
    left = re.findall(r"about (\S+) s left|· left 00:(\d\d)", out)[-1]
    assert float("".join(left)) == pytest.approx(expected, rel=0.5)


def test_an_attempt_of_this_command_that_is_tried_again_has_trained_since_its_own_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{Display.__module__}.SECONDS_BETWEEN_RECORDS", 0.0)
    display = Display(make_console(), 100.0)
    display.home, began = tmp_path, time.monotonic()
    with display.phase("upcycled model", 100.0, 1, {}):
        time.sleep(0.2)
        display.progress("moe", 60.0, resumed=0.0)
        display.progress("moe", 50.0, resumed=50.0)  # what is lost has cost time as well
    recorded = read_progress(tmp_path)
    assert recorded is not None
    assert recorded.seconds_left == pytest.approx(time.monotonic() - began, rel=0.2)
