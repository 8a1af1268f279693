"""An unfinished run tells its end."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tables import DATA, mixing_laws
from mixopt.core.errors import SurrogateError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import CurvePoint, Fidelity, TrialSpec
from mixopt.surrogates.fidelity.curves import chance_to_beat, curve_table, forecast

END = 3e10  # tokens of the published curves' end: 30,000 steps


def published(family: str, size: str) -> tuple[TrialTable, Objective]:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    table = mixing_laws(family, size)
    whole = np.isfinite(table.values).all(axis=1)
    return table.select((table.tokens <= END) & whole), Objective(dict.fromkeys(table.metrics, 1.0))


@pytest.mark.parametrize("family", ["5Mix", "RedPajama"])
@pytest.mark.parametrize("size", ["70M", "305M"])
def test_half_a_published_curve_tells_its_end_far_better_than_its_last_value(
    family: str, size: str
) -> None:
    table, objective = published(family, size)
    half = table.select(table.tokens <= END / 2)
    result = forecast(half, END)
    ends = table.select(table.tokens == END)
    assert result.runs.tolist() == sorted(ends.runs.tolist())
    truth = ends.values[np.argsort(ends.runs)]
    last = half.final.values[np.argsort(half.final.runs)]
    # measured: ratios of .11 to .17
    assert np.abs(result.mean - truth).mean() < 0.25 * np.abs(last - truth).mean()
    assert (np.abs(result.mean - truth) < 1.645 * result.std).mean() >= 0.8
    mean, std = result.compose(objective)
    assert (np.abs(mean - truth.mean(axis=1)) < 1.645 * std).mean() >= 0.8


@pytest.mark.slow
def test_finished_runs_sharpen_what_is_said_of_the_others() -> None:
    table, objective = published("5Mix", "160M")
    done = np.isin(table.runs, np.unique(table.runs)[::4])
    ends = table.select(table.tokens == END)
    truth = objective.of_table(ends)[np.argsort(ends.runs)]
    without, _ = forecast(table.select(table.tokens <= END / 2), END).compose(objective)
    result = forecast(table.select(done | (table.tokens <= END / 2)), END)
    mean, std = result.compose(objective)
    open_ = ~result.finished
    assert open_.sum() == 19
    assert np.abs(mean - truth)[open_].mean() < np.abs(without - truth)[open_].mean()
    np.testing.assert_allclose(mean[result.finished], truth[result.finished])
    assert (std[result.finished] == 0).all()


def run(mixture: Mixture, level: float, steps: list[int]) -> tuple[TrialSpec, list[CurvePoint]]:
    spec = TrialSpec(mixture, Fidelity("small", 1_000_000, 8_000_000), seed=0)
    return spec, [
        CurvePoint(s, s * 1000, {"bpb/a": level + 2.0 * max(s, 1) ** -0.4}) for s in steps
    ]


def test_evaluations_of_running_trials_become_a_table_and_a_forecast() -> None:
    rng = np.random.default_rng(0)
    steps = [0, 500, 1000, 2000, 3000, 4000, 6000, 8000]
    curves = [
        run(Mixture.of(dict(zip("ab", w, strict=True))), level, steps if done else steps[:6])
        for w, level, done in zip(
            rng.dirichlet([1, 1], 8), np.linspace(1, 2, 8), [1, 1, 1, 1, 0, 0, 0, 0], strict=True
        )
    ]
    table = curve_table(curves, ["bpb/a"])
    assert len(table) == 4 * 7 + 4 * 5  # step 0 obeys no law
    result = forecast(table, 8_000_000)
    assert result.finished.tolist() == [True] * 4 + [False] * 4
    truth = np.linspace(1, 2, 8) + 2.0 * 8000**-0.4
    np.testing.assert_allclose(result.mean[:, 0], truth, atol=0.01)
    objective = Objective({"a": 1.0})
    chance = chance_to_beat(result, objective, incumbent=float(truth[0]))
    assert chance[4:].max() < 0.05
    assert chance_to_beat(result, objective, incumbent=3.0).min() > 0.99


def test_a_law_of_steps_reads_a_curve_on_one_text() -> None:
    spec, points = run(Mixture.of({"a": 1}), 1.0, [500, 1000])
    end = CurvePoint(2000, 2_000_000, {"bpb/a": 0.5}, on_curve_text={"bpb/a": 1.09})
    table = curve_table([(spec, [*points, end])], ["bpb/a"])
    assert table.values[-1, 0] == 1.09


def test_runs_measured_at_one_time_only_are_refused() -> None:
    mixtures = [Mixture.of({"a": w, "b": 1 - w}) for w in (0.2, 0.4, 0.6)]
    table = curve_table([run(m, 1.0, [500]) for m in mixtures], ["bpb/a"])
    with pytest.raises(SurrogateError, match="no other time"):
        forecast(table, 8_000_000)


def test_no_evaluation_at_all_is_refused() -> None:
    with pytest.raises(SurrogateError, match="no run was evaluated"):
        curve_table([run(Mixture.of({"a": 0.5, "b": 0.5}), 1.0, [0])], ["bpb/a"])
