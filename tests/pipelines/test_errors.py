"""Whatever a user gives a command, it ends with a message; only our own errors leave a report."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mixopt.pipelines.cli.error_report import error_report
from mixopt.pipelines.offline import fit
from tests.pipelines.made_runs import CommandResult, Run

RUNS = ("--ratios", "{}", "--metrics", "{}")
COMMANDS = {
    **{
        name: (name, "{}")
        for name in ("plan", "run", "search", "select", "promote", "status", "report", "trials")
    },
    **{name: (name, "{}") for name in ("front", "sync", "ask", "predict")},
    "retry": ("retry", "{}", "1"),
    "fail": ("fail", "{}", "1"),
    "tell": ("tell", "{}", "{}"),
    "approve": ("approve", "{}", "--why", "x"),
    "overrule": ("overrule", "{}", "--why", "x"),
    "export": ("export", "{}", "--mixture", "json"),
    "predict fit": ("predict", "{}", "--ratios", "{}", "--out", "P.csv"),
    "propose": ("propose", "{}", "--out", "P.csv"),
    "fit": ("fit", *RUNS, "--out", "fit"),
    "replay": ("replay", *RUNS, "--proposer", "random", "--budget", "4"),
    "upcycle": ("upcycle", "{}", "moe"),
    "corpus build": ("corpus", "build", "{}", "corpus"),
    "corpus describe": ("corpus", "describe", "{}"),
    "init": ("init", "study.yaml", "--corpus", "{}"),
}
BAD = {
    "absent": None,
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "a list": b"- 1\n- 2\n",
    "a number": b"7\n",
    "a table of words": b"run,web,code\na,b,c\n",
}


def bad_input(kind: str) -> str:
    """The name of a file or folder here that no command can use."""
    if kind == "a folder":
        Path("bad.yaml").mkdir()
    elif (content := BAD[kind]) is not None:
        Path("bad.yaml").write_bytes(content)
    return "bad.yaml"


def is_a_message(result: CommandResult) -> bool:
    """Whether it ended as a user's mistake does: with a message that names what is wrong."""
    return result.code in (1, 2) and "Traceback" not in result.err and "rror" in result.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [*BAD, "a folder"])
def test_no_command_ends_with_a_traceback_whatever_it_is_given(
    command: str, kind: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = bad_input(kind)
    result = run(*(word.format(path) for word in COMMANDS[command]))
    assert is_a_message(result), result
    assert sorted(p.name for p in tmp_path.iterdir()) in ([], [path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text("name: mine")
    Path("study.yaml").chmod(0)
    assert is_a_message(run("plan", "study.yaml"))


def test_an_error_of_ours_is_one_line_and_a_file_to_send(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is made up: a function of ours that meets what it does not expect."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("postgresql://me:secret@host/db")

    monkeypatch.setattr(fit, "fit_runs", broken)
    monkeypatch.chdir(tmp_path)
    result = run("fit", "--ratios", "R.csv", "--metrics", "M.csv", "--out", "my fit")
    assert result.code == 70
    (line,) = result.err.splitlines()
    found = re.search(r"ZeroDivisionError\. Please send (\S+) to ", line)
    assert found is not None, line
    text = Path(found[1]).read_text()
    assert "mixopt fit --ratios R.csv --metrics M.csv --out 'my fit'" in text
    assert "ray " in text
    assert "Traceback" in text
    assert "in broken" in text
    assert "secret" not in text


def test_a_report_names_versions_and_the_cause_of_the_error() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise RuntimeError("then") from first
    except RuntimeError as error:
        text = error_report(error, ["run", "study.yaml"])
    assert re.search(r"^mixopt \S+, Python \d", text)
    assert text.index("KeyError") < text.index("RuntimeError: then")
