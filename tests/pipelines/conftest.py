"""A fit of made runs that several files look at, and the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixopt.pipelines.cli import main
from tests.pipelines.made_runs import CommandResult, Run, tables
from tests.pipelines.whole_study import mixopt, succeeded


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `mixopt` in this process."""

    def once(*arguments: str | Path) -> CommandResult:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return CommandResult(code, *capsys.readouterr())

    return once


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made runs and a fit of a Gaussian process to them, all constraints given."""
    folder = tmp_path_factory.mktemp("gp")
    ratios, metrics = tables(folder)
    (folder / "P.yaml").write_text(
        "natural: {web: 6B, code: 1B, books: 2B, news: 1B}\nbounds: {code: [0, 0.2]}\n"
        "available_tokens: {books: 2B}\nbudget: 40B\nmax_epochs: 4\n"
    )
    arguments = ("--ratios", ratios, "--metrics", metrics, "--out", folder / "fit")
    more = ("--surrogate", "gp", "--priors", folder / "P.yaml", "--json")
    result = succeeded(mixopt("fit", *arguments, *more, cwd=folder))
    (folder / "result.json").write_text(result.stdout)
    return folder
