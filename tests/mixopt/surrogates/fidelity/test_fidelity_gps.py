"""Gaussian processes of several fidelities learn about the target from low-fidelity runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.tables import DATA, regmix, stacked
from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.fidelity._fidelity_gp import FidelityGaussianProcess
from mixopt.surrogates.fidelity.multi_fidelity_gp import MultiFidelityGP
from mixopt.surrogates.fidelity.multitask_gp import MultitaskGP
from mixopt.surrogates.gp.gp import GaussianProcess
from mixopt.surrogates.scoring import spearman
from mixopt.testing.surrogates import SurrogateConformance, example_table, example_values

LOW, TARGET = Fidelity("low", 10**6, 10**7), Fidelity("target", 10**7, 10**7)
BOTH = pytest.mark.parametrize("kind", [MultitaskGP, MultiFidelityGP])


@pytest.mark.slow
class TestMultitaskGP(SurrogateConformance):
    surrogate = MultitaskGP


class TestMultiFidelityGP(SurrogateConformance):
    surrogate = MultiFidelityGP


def two_fidelities(low: int = 32, target: int = 6) -> TrialTable:
    """Low-fidelity runs, and some of the target: 0.8 times the low value, less 0.5."""
    small, large = example_table(low), example_table(target, seed=4)
    return dataclasses.replace(
        small,
        weights=np.concatenate([small.weights, large.weights]),
        values=np.concatenate([small.values, 0.8 * large.values - 0.5]),
        noise_std=np.concatenate([small.noise_std, large.noise_std]),
        params=np.concatenate([small.params, large.params * 10]),
        tokens=np.concatenate([small.tokens, large.tokens]),
        seeds=np.concatenate([small.seeds, large.seeds]),
        runs=np.arange(low + target),
    )


@BOTH
@pytest.mark.slow
def test_64_cheap_runs_beside_8_of_the_target_halve_the_error(
    kind: type[FidelityGaussianProcess],
) -> None:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    # four of the thirteen losses, for time: metrics are modelled side by side
    low, large = (
        t.with_metrics(t.metrics[::4]) for t in (regmix("train", "1m"), regmix("test", "60m"))
    )
    rng = np.random.default_rng(0)
    few = rng.permutation(len(large))[:8]
    rest = np.setdiff1d(np.arange(len(large)), few)
    table = stacked(low.select(rng.permutation(len(low))[:64]), large.select(few))
    predicted = kind(fidelity=large.fidelities[0]).fit(table).predict(large.weights[rest])
    alone = GaussianProcess().fit(large.select(few)).predict(large.weights[rest])
    truth = large.values[rest]
    # measured on three subsets: .09 (multi-task) and .13 (multi-fidelity) against .30
    assert np.abs(predicted.mean - truth).mean() < 0.55 * np.abs(alone.mean - truth).mean()
    objective = Objective(dict.fromkeys(large.metrics, 1.0))
    ranked = [spearman(p.compose(objective)[0], truth.mean(axis=1)) for p in (predicted, alone)]
    assert ranked[0] > max(0.85, ranked[1])
    within = np.abs(predicted.mean - truth) < 1.645 * np.hypot(predicted.std, predicted.noise)
    assert 0.75 <= within.mean() <= 0.98


@BOTH
def test_every_fidelity_has_its_own_level_and_scale(kind: type[FidelityGaussianProcess]) -> None:
    fitted = kind(fidelity=TARGET).fit(two_fidelities())
    test = np.random.default_rng(2).dirichlet(np.full(4, 0.7), 40)
    at_target, at_cheap = fitted.predict(test), fitted.predict(test, LOW)
    truth = example_values(test)
    assert np.abs(at_cheap.mean - truth).mean() < 0.03
    assert np.abs(at_target.mean - (0.8 * truth - 0.5)).mean() < 0.06


@BOTH
def test_fast_predictions_are_botorchs_posterior(kind: type[FidelityGaussianProcess]) -> None:
    fitted = kind(fidelity=TARGET).fit(two_fidelities())
    test = np.random.default_rng(2).dirichlet(np.ones(4), 10)
    with torch.no_grad():
        posterior = fitted.model.posterior(torch.from_numpy(test))
    mean, _ = fitted.joint(test, Objective({"b": 1.0}))
    np.testing.assert_allclose(mean, posterior.mean[:, 1].numpy(), rtol=1e-6)
    predicted = fitted.predict(test)
    ratio = predicted.std / posterior.variance.sqrt().numpy()
    assert (ratio > 1 - 1e-6).all()  # deviations may only be widened


@BOTH
def test_the_joint_posterior_agrees_with_predictions_at_every_fidelity(
    kind: type[FidelityGaussianProcess],
) -> None:
    fitted = kind(fidelity=TARGET).fit(two_fidelities())
    test = np.random.default_rng(2).dirichlet(np.ones(4), 3)
    objective = Objective({"a": 1.0, "c": 1.0})
    mean, cover = fitted.joint(np.concatenate([test, test]), objective, [TARGET] * 3 + [LOW] * 3)
    for rows, fidelity in ((slice(0, 3), TARGET), (slice(3, 6), LOW)):
        alone, own = fitted.predict(test, fidelity).compose(objective)
        np.testing.assert_allclose(mean[rows], alone, rtol=5e-3)  # outliers stay winsorized
        np.testing.assert_allclose(np.sqrt(np.diag(cover)[rows]), own, rtol=0.1)
    assert np.linalg.eigvalsh(cover).min() > -1e-9
    # a low-fidelity run of a mixture tells of the same mixture at the target
    assert cover[0, 3] > 0.1 * np.sqrt(cover[0, 0] * cover[3, 3])


@BOTH
def test_other_fidelities_are_refused(kind: type[FidelityGaussianProcess]) -> None:
    fitted = kind(fidelity=TARGET).fit(two_fidelities())
    with pytest.raises(SurrogateError, match="does not extrapolate"):
        fitted.predict(np.full((1, 4), 0.25), Fidelity("", 10**9, 10**7))
    with pytest.raises(SurrogateError, match="does not extrapolate"):
        kind(fidelity=Fidelity("", 10**9, 10**7)).fit(two_fidelities())


def test_the_multi_fidelity_process_speaks_between_what_was_measured() -> None:
    fitted = MultiFidelityGP(fidelity=TARGET).fit(two_fidelities())
    test = example_table(4).weights
    between = fitted.predict(test, Fidelity("", 3_000_000, 10**7)).mean.mean()
    ends = sorted(fitted.predict(test, f).mean.mean() for f in (LOW, TARGET))
    assert ends[0] < between < ends[1]


def test_a_measured_noise_and_many_rows_are_welcome() -> None:
    table = two_fidelities(270, 12)
    fitted = MultitaskGP(fidelity=TARGET, noise={"bpb/b": 0.02}).fit(table)
    predicted = fitted.predict(table.weights[:5])
    assert predicted.noise[1] == pytest.approx(0.02)
    assert np.isfinite(predicted.mean).all()


def test_a_curve_counts_as_one_run() -> None:
    table = two_fidelities()
    half = dataclasses.replace(table, values=table.values + 1.0, tokens=table.tokens / 2)
    both = stacked(table, dataclasses.replace(half))
    same = dataclasses.replace(both, runs=np.concatenate([table.runs, table.runs]))
    fitted = MultitaskGP(fidelity=TARGET).fit(same)
    assert [(f.params, f.tokens) for f in fitted.fidelities] == [(10**6, 10**7), (10**7, 10**7)]
