"""`plan` and `select` say what the seeds can see before they are spent, and by which noise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixopt.core.objective import Objective
from mixopt.pipelines.study.elsewhere import ask_trials
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.views.smallest_difference import smallest_difference_line
from mixopt.selection.power import smallest_differences
from mixopt.study.records import read_verdict
from mixopt.study.settings import load_study
from mixopt.study.smallest_difference import SmallestDifference, of_plan
from mixopt.surrogates.noise import SeedScatter, pair_scatter_of, seed_scatter_of
from tests.pipelines.study.noisy_study import FILE, tell_all
from tests.pipelines.whole_study import ledger_trials

SAID = re.compile(r"Smallest difference that (\d+) seeds of (\d+) mixtures can see: (.*?)\).")


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed since, of the smallest difference."""
    captured = capsys.readouterr()
    found = SAID.search(" ".join((captured.out + captured.err).split()))
    assert found is not None, captured
    return found[0]


def test_plan_and_select_agree_and_follow_the_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noisy.yaml"
    file.write_text(FILE)
    show_plan(file, 0)
    first = line(capsys)
    half, most = (f"{it:.1f}" for it in smallest_differences(4, [2], 0.1).values())
    assert f"2 seeds of 4 mixtures can see: {half} seed standard deviations" in first
    assert f" of a run in 50 % of studies, {most} in 80 % (selected at" in first
    assert "not known yet: search.repeats measures it" in first

    tell_all(file, 1.0)
    study, fidelity = load_study(file), ledger_trials(file)[0].spec.fidelity
    objective = study.mixture_objective()
    show_plan(file, 0)
    second = line(capsys)
    scatter = seed_scatter_of(ledger_trials(file), objective, fidelity)
    assert scatter is not None
    half, most = (f"{it * scatter.std:.3g}" for it in smallest_differences(4, [2], 0.1).values())
    assert f"{half} accuracy in 50 % of studies, {most} in 80 %" in second
    assert "from 4 repeated runs" in second

    tell_all(file, 1.0)  # the round; then selection hands out its runs, and says before what it can
    capsys.readouterr()
    ask_trials(file, 100, tmp_path / "selection.csv")
    chosen = SAID.search(" ".join(capsys.readouterr().err.split()))
    assert chosen is not None
    seen = of_plan(study.select, int(chosen[2]), ledger_trials(file), objective, fidelity)
    assert chosen[0] == smallest_difference_line(seen, objective)[: len(chosen[0])]
    assert not seen.of_pairs


@pytest.mark.slow
def test_another_look_takes_the_noise_of_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noisy.yaml"
    file.write_text(FILE.replace("{seeds: 2}", "{seeds: 2, looks: 2}"))
    for _ in range(3):
        tell_all(file, 1.0)
    ask_trials(file, 1)  # writes the verdict
    study, trials = load_study(file), ledger_trials(file)
    assert read_verdict(study.home) is not None
    pairs = pair_scatter_of(trials, study.mixture_objective(), trials[0].spec.fidelity)
    assert pairs is not None
    capsys.readouterr()
    file.write_text(FILE.replace("{seeds: 2}", "{seeds: 4, looks: 2}"))
    show_plan(file, 0)
    said = line(capsys)
    assert "4 seeds of" in said
    assert "adjusted p-value of at most 0.05" in said
    assert f"{pairs.std:.3g}, from {pairs.runs} runs of earlier looks" in said


def test_a_level_that_nothing_reaches_is_said_so() -> None:
    never = SmallestDifference(4, 2, 1e-6, {0.5: float("inf")}, SeedScatter(0.1, 2.0, 3), False)
    said = smallest_difference_line(never, Objective({"web": 1}))
    assert "can see: none in 50 % of studies" in said
