"""What is predicted of held-out trials is kept as it was, and scored by what they measure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from mixopt.core.errors import StudyError
from mixopt.core.intervals import rank_interval
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import (
    Cost,
    Failure,
    Fidelity,
    Role,
    State,
    Trial,
    TrialResult,
    TrialSpec,
)
from mixopt.selection.results import Predicted
from mixopt.study.holdout import FILE, HeldOut, Holdout, read_holdout, score_holdout, write_holdout
from mixopt.study.model import ModelSettings, StudyModel
from mixopt.surrogates.noise import seed_scatter_of

SIZE = Fidelity("proxy", 1000, 20_000)


def spec(number: int, role: Role = Role.HOLDOUT, seed: int = 0) -> TrialSpec:
    weight = (number + 1) / 10
    return TrialSpec(Mixture.of({"web": weight, "code": 1 - weight}), SIZE, seed, role)


def trial(number: int, asked: TrialSpec, value: float | None) -> Trial:
    if value is None:
        return Trial(number, asked, State.FAILED, failure=Failure.DIVERGED)
    result = TrialResult({"bpb/law": value}, (), Cost(tokens=20_000))
    return Trial(number, asked, State.COMPLETE, result)


def holdout(means: list[float], scatter: float | None = 0.01) -> Holdout:
    held = [
        HeldOut(spec(i), Predicted(mean, 0.01, mean - 0.02, mean + 0.02))
        for i, mean in enumerate(means)
    ]
    return Holdout("gp", 12, {"bpb/law": 1.0}, scatter, tuple(held))


def test_predictions_come_back_exactly(tmp_path: Path) -> None:
    held = holdout([0.1 + 0.2, 1 / 3, 2.0, math.pi], scatter=None)
    digest = write_holdout(tmp_path, held)
    assert read_holdout(tmp_path, digest) == read_holdout(tmp_path, None) == held


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.write_text(file.read_text().replace("2.0", "2.1")), "was changed after"),
        (lambda file: file.write_text("{}"), "was changed after"),
    ],
)
def test_what_was_changed_afterwards_is_refused(tmp_path: Path, edit, message: str) -> None:
    digest = write_holdout(tmp_path, holdout([1.0, 2.0, 3.0, 4.0]))
    edit(tmp_path / FILE)
    with pytest.raises(StudyError, match=f"{FILE}: {message}") as refused:
        read_holdout(tmp_path, digest)
    assert "backup" in str(refused.value)


def test_the_score_is_that_of_the_measured_ones() -> None:
    means = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    measured = [1.01, 1.15, 1.13, 1.31, None, 1.49]
    trials = [trial(i, spec(i), value) for i, value in enumerate(measured)]
    searched = trial(9, spec(0, Role.DESIGN), 5.0)  # the same mixture, but learned from
    score = score_holdout(holdout(means), [searched, *trials])
    assert (score.asked, score.n, score.inside) == (6, 5, 3)
    assert score.mae == pytest.approx(np.mean([0.01, 0.05, 0.07, 0.01, 0.01]))
    pairs = [(p, m) for p, m in zip(means, measured, strict=True) if m is not None]
    assert score.spearman == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert score.low < score.spearman < score.high
    assert score.noise == pytest.approx(0.01 * math.sqrt(2 / math.pi))
    assert [it.number for it in score.trials] == [0, 1, 2, 3, 4, 5]


def test_too_few_or_equal_values_have_no_rank_correlation() -> None:
    few = [trial(i, spec(i), 1.0 + i) for i in range(3)]
    assert math.isnan(score_holdout(holdout([1.0, 2.0, 3.0, 4.0]), few).spearman)
    equal = [trial(i, spec(i), 1.0) for i in range(4)]
    score = score_holdout(holdout([1.0, 2.0, 3.0, 4.0]), equal)
    assert math.isnan(score.spearman)
    assert (score.low, score.high) == (-1, 1)
    none = score_holdout(holdout([1.0, 2.0, 3.0, 4.0]), [])
    assert math.isnan(none.mae)
    assert none.n == 0


@pytest.mark.parametrize(("n", "truth"), [(4, 0.8), (8, 0.0), (8, 0.5), (8, 0.95), (16, 0.9)])
def test_the_interval_of_a_rank_correlation_holds_90_percent(n: int, truth: float) -> None:
    rng = np.random.default_rng(n)
    pairs = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], (1000, n))
    ranked = 6 / math.pi * math.asin(truth / 2)  # Spearman's, of a normal pair
    intervals = [rank_interval(spearmanr(own).statistic, n) for own in pairs]
    assert np.mean([low <= ranked <= high for low, high in intervals]) > 0.87


def test_nothing_learns_from_them() -> None:
    searched = [trial(i, spec(i, Role.DESIGN), 1.0 + i) for i in range(5)]
    again = trial(5, spec(0, Role.REPEAT, seed=1), 1.1)
    held = [trial(6 + i, spec(0, seed=500 + i), 9.0 + i) for i in range(4)]
    objective = Objective({"law": 1.0})
    settings = ModelSettings("gp", 0, SIZE, objective)
    alone = StudyModel(settings, [*searched, again])
    assert StudyModel(settings, [*searched, again, *held]).key == alone.key
    scatter = seed_scatter_of([*searched, again], objective, SIZE)
    assert seed_scatter_of([*searched, again, *held], objective, SIZE) == scatter
