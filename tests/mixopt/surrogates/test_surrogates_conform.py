"""Every surrogate keeps the contract, and knows what it knows on the published RegMix table."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mixopt.core.errors import StudyError, SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.surrogates import make
from mixopt.surrogates.auto import Auto
from mixopt.surrogates.gp.gp import GaussianProcess
from mixopt.surrogates.regression.lightgbm import LightGBM
from mixopt.surrogates.scoring import OBJECTIVE, out_of_fold, spearman
from mixopt.testing.surrogates import SurrogateConformance, example_table, example_values

REPOSITORY = Path(__file__).parents[3]
DATA = Path(os.environ.get("MIXOPT_DATA", REPOSITORY / ".." / "shared" / "data"))


class TestGaussianProcess(SurrogateConformance):
    surrogate = GaussianProcess


class TestLightGBM(SurrogateConformance):
    surrogate = LightGBM


class TestAuto(SurrogateConformance):
    surrogate = Auto


def regmix(kind: str, size: str) -> TrialTable:
    """One of the published RegMix tables: 17 training domains, 13 validation losses."""
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    mixtures = pl.read_csv(DATA / "regmix" / f"{kind}_mixture_{size}.csv").sort("index")
    losses = pl.read_csv(DATA / "regmix" / f"{kind}_pile_loss_{size}.csv").sort("index")
    weights = mixtures.drop("index").to_numpy()
    n = len(weights)
    return TrialTable(
        domains=tuple(mixtures.columns[1:]),
        metrics=tuple(losses.columns[1:]),
        weights=weights / weights.sum(axis=1, keepdims=True),
        values=losses.drop("index").to_numpy(),
        params=np.full(n, 1e6),
        tokens=np.full(n, 1e9),
        seeds=np.zeros(n, dtype=int),
    )


@pytest.mark.parametrize(("name", "least"), [("gp", 0.93), ("lightgbm", 0.88)])
@pytest.mark.slow
def test_64_small_runs_rank_models_60_times_larger(name: str, least: float) -> None:
    train, small, large = regmix("train", "1m"), regmix("test", "1m"), regmix("test", "60m")
    objective = Objective(dict.fromkeys(train.metrics, 1.0))
    rows = np.random.default_rng(3).permutation(len(train))[:64]
    predicted = make(name).fit(train.select(rows)).predict(large.weights)
    mean, std = predicted.compose(objective)
    assert spearman(mean, objective.of_table(large)) >= least
    run = np.hypot(predicted.std, np.nan_to_num(predicted.noise))
    within = np.abs(predicted.mean - small.values) < 1.645 * run
    assert 0.82 <= within.mean() <= 0.97
    assert 0.80 <= (np.abs(mean - objective.of_table(small)) < 1.645 * std).mean() <= 0.98


def test_the_botorch_model_of_the_gaussian_process_says_what_it_predicts() -> None:
    table = example_table()
    test = np.random.default_rng(1).dirichlet(np.ones(4), 20)
    holed = table.values.copy()
    holed[::4, 0] = np.nan
    for values in (table.values, holed):
        fitted = GaussianProcess().fit(
            TrialTable(
                table.domains,
                table.metrics,
                table.weights,
                values,
                table.params,
                table.tokens,
                table.seeds,
            )
        )
        with torch.no_grad():
            posterior = fitted.model.posterior(torch.from_numpy(test))
        order = [table.metrics.index(metric) for metric in fitted.modelled]
        predicted = fitted.predict(test)
        np.testing.assert_allclose(predicted.mean[:, order], posterior.mean.numpy(), rtol=1e-8)
        np.testing.assert_allclose(
            predicted.std[:, order], posterior.variance.sqrt().numpy(), rtol=1e-4
        )


def test_a_measured_noise_is_taken_as_it_is() -> None:
    predicted = GaussianProcess(noise={"bpb/b": 0.03}).fit(example_table()).predict(np.eye(4))
    assert predicted.noise[1] == pytest.approx(0.03)


def test_the_gaussian_process_finds_the_noise_of_repeats() -> None:
    once = example_table(12, noise=0.0)
    repeats = once.select(np.tile(np.arange(12), 4))
    noise = 0.05 * np.random.default_rng(0).normal(size=repeats.values.shape)
    table = TrialTable(
        once.domains,
        once.metrics,
        repeats.weights,
        repeats.values + noise,
        repeats.params,
        repeats.tokens,
        repeats.seeds,
    )
    predicted = GaussianProcess().fit(table).predict(once.weights)
    np.testing.assert_allclose(predicted.noise, 0.05, rtol=0.35)
    assert np.abs(predicted.mean - example_values(once.weights)).mean() < 0.03


def test_fitting_leaves_torchs_threads_and_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    GaussianProcess().fit(example_table()).predict(np.eye(4))
    assert torch.get_num_threads() == threads
    torch.testing.assert_close(torch.rand(3), expected)


def test_auto_keeps_the_surrogate_that_ranks_held_out_trials_best() -> None:
    fitted = Auto(objective=Objective({"a": 1.0, "c": 1.0})).fit(example_table(32))
    assert fitted.choice is not None
    assert set(fitted.choice.scores) == {"effective-data", "gp", "linear"}
    best = max(fitted.choice.scores, key=lambda name: fitted.choice.scores[name].spearman)
    assert fitted.chosen is not None
    assert fitted.chosen.name == best


def test_held_out_diagnostics_never_see_a_repeat_of_what_they_predict() -> None:
    # noise without any signal: only a leak through the repeats could predict it
    table = example_table(16, noise=0.0)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(16, 3))[np.tile(np.arange(16), 3)]
    rows = table.select(np.tile(np.arange(16), 3))
    leaky = TrialTable(
        table.domains,
        table.metrics,
        rows.weights,
        values,
        rows.params,
        rows.tokens,
        rows.seeds,
    )
    held = out_of_fold(leaky, Objective({"a": 1, "b": 1}), partial(make, "gp"))
    assert held.scores["bpb/a"].r2 < 0.3
    assert set(held.scores) == {"bpb/a", "bpb/b", "bpb/c", OBJECTIVE}


def test_diagnostics_of_a_learnable_table_are_good_and_repeatable() -> None:
    objective = Objective({"a": 1, "b": 1})
    once = out_of_fold(example_table(32), objective, partial(make, "gp"))
    again = out_of_fold(example_table(32), objective, partial(make, "gp"))
    assert once.scores == again.scores
    assert once.scores[OBJECTIVE].spearman > 0.9
    assert once.scores[OBJECTIVE].r2 > 0.8
    assert once.scores[OBJECTIVE].n == 32


def test_three_mixtures_are_too_few_to_hold_some_out() -> None:
    with pytest.raises(SurrogateError, match="too few"):
        out_of_fold(example_table(3), Objective({"a": 1}), partial(make, "gp"))


def test_an_unknown_surrogate_is_named_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match="gp, lightgbm, linear"):
        make("forest")
