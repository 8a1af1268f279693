"""The command line: quick to answer, and clear about what is wrong."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mixopt.pipelines.cli import app
from tests.pipelines.finished_study import write_study
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import environment, mixopt, succeeded


def walk(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `command`, with the words that call it."""
    for name, below in getattr(command, "commands", {}).items():
        yield (*words, name), below
        yield from walk(below, *words, name)


ALL = dict(walk(typer.main.get_command(app)))
COMMANDS = sorted(words[0] for words in ALL if len(words) == 1)
every_command = pytest.mark.parametrize("words", sorted(ALL), ids=" ".join)
HEAVY = ("torch", "ray", "mlflow", "optuna", "botorch", "lightgbm", "pandas", "polars", "scipy")
BARE = """
import pathlib, typer
app = typer.Typer()
@app.callback()
def root(version: bool = False) -> None: ...
@app.command()
def bare(file: pathlib.Path) -> None: ...
try: app(["bare", "--help"])
except SystemExit: pass
"""
OURS = """
import mixopt.pipelines.cli as cli
for words in {lines}:
    try: cli.main([*words])
    except SystemExit: pass
"""


def installed_packages(code: str, folder: Path) -> set[str]:
    """Top-level packages of site-packages that a process which runs `code` has loaded."""
    shown = (
        "\nimport sys\n"
        "files = {n: getattr(m, '__file__', None) or '' for n, m in [*sys.modules.items()]}\n"
        "print(*{n.split('.')[0] for n, f in files.items() if 'site-packages' in f}, "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + shown],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_no_help_loads_more_than_typer_does(tmp_path: Path) -> None:
    every = OURS.format(lines=[(*words, "--help") for words in [(), *ALL]])
    assert installed_packages(every, tmp_path) - installed_packages(BARE, tmp_path) <= {"mixopt"}


def test_import_mixopt_loads_no_other_package(tmp_path: Path) -> None:
    loaded = installed_packages("import mixopt", tmp_path) - installed_packages("", tmp_path)
    assert loaded <= {"mixopt"}


def test_init_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = installed_packages(OURS.format(lines=[("init", "--trainer", "elsewhere")]), tmp_path)
    assert (tmp_path / "study.yaml").exists()
    assert loaded & set(HEAVY) == set()


def test_the_commands_of_the_loop_are_there() -> None:
    loop = {"corpus", "init", "plan", "run", "search", "select", "promote"}
    views = {"status", "report", "sync"}
    assert loop | views | {"demo"} <= set(COMMANDS)


@every_command
def test_every_command_explains_itself_in_100_columns(
    words: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, long = run(*words, "-h"), run(*words, "--help")
    assert (short.code, short.out) == (0, long.out)
    assert max(map(len, short.out.splitlines())) <= 100
    assert f"mixopt {' '.join(words)} " in short.out


@every_command
def test_every_command_ends_its_help_with_examples_that_it_takes(words: tuple[str, ...]) -> None:
    command = ALL[words]
    title, *examples = command.epilog.strip().splitlines()
    assert title in ("Example:", "Examples:")
    for example in examples:
        _, *arguments = shlex.split(example.replace("\\[", "["))
        assert tuple(arguments[: len(words)]) == words
        if not hasattr(command, "commands"):
            command.make_context(words[-1], arguments[len(words) :])  # raises UsageError


@every_command
def test_every_command_stands_in_a_group(words: tuple[str, ...]) -> None:
    assert ALL[words].rich_help_panel


NO_TABLE = {
    *("demo", "init", "report", "sync", "retry", "fail", "approve", "overrule", "tell", "export"),
    "corpus",
    "ui",
}


@every_command
def test_every_command_that_prints_a_table_prints_json_too(words: tuple[str, ...]) -> None:
    options = {option for parameter in ALL[words].params for option in parameter.opts}
    assert ("--json" in options) == (words not in {(name,) for name in NO_TABLE})


@every_command
def test_every_command_that_reads_a_study_file_takes_overrides(words: tuple[str, ...]) -> None:
    parameters = ALL[words].params
    reads = any(p.metavar in ("STUDY.yaml", "DIR|STUDY.yaml") for p in parameters)
    options = {option for parameter in parameters for option in parameter.opts}
    assert ("--set" in options) == (reads and words != ("init",))


def test_an_override_holds_for_its_command_alone(run: Run, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    seeds = ("--set", "select.seeds=9", "--set", "search={trials: 3, rounds: 0}")
    values = json.loads(run("plan", study.path, "--no-measure", "--json", *seeds).out)
    assert [(s["step"], s["trainings"]) for s in values["steps"][:2]] == [
        ("initial design", 5),
        ("selection (at most)", 36),
    ]
    refused = run("plan", study.path, "--set", "search.trails=3")
    assert (refused.code, refused.out) == (1, "")
    assert "--set search.trails=3: search.trails: there is no such key" in refused.err
    assert run("status", study.path).code == 0


def test_help_lists_groups_and_exit_codes(run: Run) -> None:
    shown = run("-h").out
    panels = {ALL[(name,)].rich_help_panel for name in COMMANDS}
    assert [panel for panel in panels if f" {panel} " not in shown] == []
    assert len(panels) < len(COMMANDS) / 2
    assert [code for code in ("0", "1", "2", "70", "130", "143") if f" {code} " not in shown] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str, tmp_path: Path) -> None:
    asked = {
        "_MIXOPT_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "mixopt pr",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": "mixopt pr",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'mixopt'; import mixopt.pipelines.cli as c; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment() | asked,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^(?:_arguments)?\W*([a-z]+)\b", done.stdout, re.MULTILINE)
    assert set(found) == {"predict", "propose", "promote"}, done.stdout


def test_the_version_is_printed(tmp_path: Path) -> None:
    from mixopt import __version__

    assert succeeded(mixopt("--version", cwd=tmp_path)).stdout == f"mixopt {__version__}\n"


@pytest.mark.parametrize("command", ["plan", "status", "report", "sync"])
def test_a_study_file_that_is_not_there_is_one_clean_message(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(command, "nowhere.yaml")
    assert result.code == 1
    assert result.err.startswith("error nowhere.yaml")
    assert len(result.err.splitlines()) == 1, result.err
    assert list(tmp_path.iterdir()) == []


FILES = ("--ratios", "R.csv", "--metrics", "M.csv")
REPLAY = ("replay", *FILES, "--proposer", "random")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (("fit", *FILES, "--out", "fit"), "--seed", "-1"),
        (("propose", "fit", "--out", "next.csv"), "--seed", "-1"),
        (("propose", "fit", "--out", "next.csv"), "-n", "-1"),
        ((*REPLAY, "--budget", "4"), "--seed", "-1"),
        ((*REPLAY, "--budget", "4"), "--seeds", "-1"),
        ((*REPLAY, "--budget", "4"), "--jobs", "-1"),
        ((*REPLAY, "--budget", "4"), "--batch", "-1"),
        ((*REPLAY, "--budget", "4"), "--every", "-1"),
        ((*REPLAY, "--budget", "4"), "--initial", "-1"),
        ((*REPLAY, "--budget", "4"), "--free", "-1"),
        (REPLAY, "--budget", "inf"),
        (REPLAY, "--budget", "nan"),
        (("plan", "study.yaml"), "--slots", "-1"),
        (("corpus", "from-environment", "corpus"), "--megabytes", "nan"),
        (("corpus", "from-environment", "corpus"), "--vocabulary", "-1"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_read_or_written(
    command: tuple[str, ...],
    option: str,
    value: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, option, value)
    assert result.code in (1, 2)
    assert option.removeprefix("--") in result.err
    assert list(tmp_path.iterdir()) == []


def test_so_it_is_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = mixopt("run", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error nowhere.yaml")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_study_file_names_line_and_key(run: Run, tmp_path: Path) -> None:
    text = "name: mine\ncorpus: corpus\nobjective: {law: 1}\nsearch:\n  trails: 8\n"
    (tmp_path / "study.yaml").write_text(text)
    result = run("run", tmp_path / "study.yaml")
    assert result.code == 1
    assert "study.yaml:5" in result.err
    assert "trails" in result.err
    assert "trials" in result.err  # what was meant
    assert "Traceback" not in result.err


def test_a_corpus_that_is_not_there_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: mine\ncorpus: corpus\nobjective: {law: 1}\n")
    result = run("run", tmp_path / "study.yaml")
    assert result.code == 1
    assert "mixopt corpus build" in result.err
    assert not (tmp_path / "mine").exists()


def test_the_module_wants_a_study_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mixopt", "run"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Usage: python -m mixopt run" in done.stderr
