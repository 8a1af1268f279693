"""The fidelity to predict at: the most expensive that was measured, or what is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.offline.fidelity_words import fidelity_text, target_fidelity


def table(params: list[float], tokens: list[float], runs: list[int] | None = None) -> TrialTable:
    n = len(params)
    return TrialTable(
        ("web", "code"),
        ("loss",),
        np.full((n, 2), 0.5),
        np.ones((n, 1)),
        np.array(params),
        np.array(tokens),
        np.zeros(n, dtype=int),
        None if runs is None else np.array(runs),
    )


TWO = table([1e6] * 9 + [6e7] * 2, [1e9] * 9 + [2e9] * 2)


def test_the_most_expensive_runs_are_the_target_and_few_of_them_are_remarked() -> None:
    target, notes = target_fidelity(TWO)
    assert target == Fidelity("", 60_000_000, 2_000_000_000)
    assert "1M parameters and 1B tokens (9 runs), 60M parameters and 2B tokens (2 runs)" in notes[0]
    assert "Only 2 of 11 runs" in notes[1]


def test_runs_of_one_fidelity_need_no_word() -> None:
    assert target_fidelity(table([1.0, 1.0], [1.0, 1.0])) == (Fidelity("", 1, 1), [])
    assert fidelity_text(Fidelity("", 1, 1)) == "the runs' own"


def test_tokens_follow_from_the_size_that_is_asked_for() -> None:
    assert target_fidelity(TWO, "1M")[0] == Fidelity("", 1_000_000, 1_000_000_000)
    assert target_fidelity(TWO, "1M", "500M")[0].tokens == 500_000_000


def test_a_size_that_no_run_has_is_taken_with_a_warning() -> None:
    target, notes = target_fidelity(TWO, "1B")
    assert target == Fidelity("", 1_000_000_000, 2_000_000_000)
    assert "extrapolate" in notes[-1]


def test_points_of_a_curve_are_no_target() -> None:
    target, _ = target_fidelity(table([1e6] * 4, [10, 20, 10, 20], [0, 0, 1, 1]))
    assert target.tokens == 20


def test_a_size_of_runs_that_tell_none_is_refused() -> None:
    with pytest.raises(StudyError, match="--model-params: the runs have no"):
        target_fidelity(table([1.0, 1.0], [1.0, 1.0]), "1B")
    with pytest.raises(StudyError, match="--tokens: the runs have no"):
        target_fidelity(table([1e6, 1e6], [1.0, 1.0]), None, "1B")


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(StudyError, match="'large' is not a count"):
        target_fidelity(TWO, "large")
    with pytest.raises(StudyError, match="--tokens"):
        target_fidelity(TWO, None, "0")
