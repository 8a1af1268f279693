"""An unfinished run tells its end, and is stopped only where it cannot win."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tables import DATA, mixing_laws
from mixopt.curves import chance_to_beat, curve_table, forecast, hopeless
from mixopt.errors import SurrogateError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import CurvePoint, Fidelity, TrialSpec, TrialTable

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
    said = forecast(half, END)
    ends = table.select(table.tokens == END)
    assert said.runs.tolist() == sorted(ends.runs.tolist())
    truth = ends.values[np.argsort(ends.runs)]
    last = half.final.values[np.argsort(half.final.runs)]
    # measured: ratios of .11 to .17
    assert np.abs(said.mean - truth).mean() < 0.25 * np.abs(last - truth).mean()
    assert (np.abs(said.mean - truth) < 1.645 * said.std).mean() >= 0.8
    mean, std = said.compose(objective)
    assert (np.abs(mean - truth.mean(axis=1)) < 1.645 * std).mean() >= 0.8


def test_finished_runs_sharpen_what_is_said_of_the_others() -> None:
    table, objective = published("5Mix", "160M")
    done = np.isin(table.runs, np.unique(table.runs)[::4])
    ends = table.select(table.tokens == END)
    truth = objective.of_table(ends)[np.argsort(ends.runs)]
    without, _ = forecast(table.select(table.tokens <= END / 2), END).compose(objective)
    said = forecast(table.select(done | (table.tokens <= END / 2)), END)
    mean, std = said.compose(objective)
    open_ = ~said.finished
    assert open_.sum() == 19
    assert np.abs(mean - truth)[open_].mean() < np.abs(without - truth)[open_].mean()
    np.testing.assert_allclose(mean[said.finished], truth[said.finished])
    assert (std[said.finished] == 0).all()


@pytest.mark.parametrize("family", ["5Mix", "RedPajama"])
def test_hopeless_runs_are_stopped_and_no_better_one_ever_is(family: str) -> None:
    table, objective = published(family, "160M")
    ends = table.select(table.tokens == END)
    ends = ends.select(np.argsort(ends.runs))
    truth = objective.of_table(ends)
    stopped = spared = 0
    for seed in range(4):
        done = np.random.default_rng(seed).permutation(ends.runs)[:6]
        known = np.isin(table.runs, done) | (table.tokens <= END / 2)
        said = forecast(table.select(known), END)
        incumbent = truth[said.finished].min()
        stop = hopeless(said, objective, incumbent)
        assert not (stop & (truth < incumbent)).any()
        assert not (stop & said.finished).any()
        stopped, spared = stopped + stop.sum(), spared + (~stop & ~said.finished).sum()
    assert stopped > spared / 2  # it does stop: half of a run is saved each time


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
    said = forecast(table, 8_000_000)
    assert said.finished.tolist() == [True] * 4 + [False] * 4
    truth = np.linspace(1, 2, 8) + 2.0 * 8000**-0.4
    np.testing.assert_allclose(said.mean[:, 0], truth, atol=0.01)
    objective = Objective({"a": 1.0})
    chance = chance_to_beat(said, objective, incumbent=float(truth[0]))
    assert chance[4:].max() < 0.05
    assert hopeless(said, objective, float(truth[0])).tolist() == [False] * 4 + [True] * 4
    # the same runs against a beaten incumbent: nothing is stopped
    assert not hopeless(said, objective, incumbent=3.0).any()


def test_a_run_with_two_evaluations_is_never_stopped() -> None:
    mixtures = [Mixture.of({"a": w, "b": 1 - w}) for w in (0.2, 0.4, 0.6, 0.8)]
    curves = [run(m, 1.0, [500, 1000, 2000, 4000, 8000]) for m in mixtures[:3]]
    curves.append(run(mixtures[3], 5.0, [500, 1000]))
    said = forecast(curve_table(curves, ["bpb/a"]), 8_000_000)
    objective = Objective({"a": 1.0})
    assert chance_to_beat(said, objective, 1.06)[3] < 0.05
    assert not hopeless(said, objective, 1.06)[3]


def test_runs_measured_at_one_time_only_are_refused() -> None:
    mixtures = [Mixture.of({"a": w, "b": 1 - w}) for w in (0.2, 0.4, 0.6)]
    table = curve_table([run(m, 1.0, [500]) for m in mixtures], ["bpb/a"])
    with pytest.raises(SurrogateError, match="no other time"):
        forecast(table, 8_000_000)


def test_no_evaluation_at_all_is_refused() -> None:
    with pytest.raises(SurrogateError, match="no run was evaluated"):
        curve_table([run(Mixture.of({"a": 0.5, "b": 0.5}), 1.0, [0])], ["bpb/a"])
