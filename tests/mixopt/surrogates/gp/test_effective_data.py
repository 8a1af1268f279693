"""The effective-data law: its gradient, its posterior, and what it finds in what it made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixopt.core.objective import Objective
from mixopt.surrogates.gp._law_gp import ABSENT, OFFSET, LawGP, law
from mixopt.surrogates.gp._matern import JITTER, distances, matern
from mixopt.surrogates.gp.effective_data import EffectiveData
from mixopt.surrogates.gp.gaussian import Gaussian, Posterior
from mixopt.surrogates.gp.gp import GaussianProcess
from mixopt.testing.surrogates import SurrogateConformance, example_table


class TestEffectiveData(SurrogateConformance):
    surrogate = EffectiveData


@pytest.mark.parametrize("holes", [False, True])
def test_the_gradient_is_that_of_the_density(holes: bool) -> None:
    rng = np.random.default_rng(0)
    weights, values = rng.dirichlet(np.full(5, 0.5), 12), rng.normal(size=(12, 3))
    if holes:
        values[3, 1] = np.nan
    density = LawGP(weights, values, known_noise=np.array([np.nan, 0.01, np.nan]))
    at = 0.5 * rng.normal(size=len(density.start()))
    step = 1e-5
    numeric = [
        (density.density(at + step * e)[0] - density.density(at - step * e)[0]) / (2 * step)
        for e in np.eye(len(at))
    ]
    np.testing.assert_allclose(density.density(at)[1], numeric, rtol=1e-5, atol=1e-5)


def test_the_density_of_many_metrics_is_the_sum_of_each_computed_plainly() -> None:
    rng = np.random.default_rng(3)
    n, m, q = 90, 4, 7
    weights, values = rng.dirichlet(np.full(m, 0.5), n), rng.normal(size=(n, q))
    values[5, 2] = np.nan
    density = LawGP(weights, values)
    at = 0.3 * rng.normal(size=len(density.start()))
    result = density.parameters(at)
    x = (weights + OFFSET) ** result.gamma
    value = 0.5 * at @ at
    for i in range(q):
        known = np.isfinite(values[:, i])
        scaled = x[known] / result.length[i]
        covariance = result.variance[i] * matern(distances(scaled, scaled))
        covariance += (result.noise[i] + JITTER) * np.eye(known.sum())
        left = values[known, i] - law(x[known], result.law[i])[0]
        value += 0.5 * left @ np.linalg.solve(covariance, left)
        value += 0.5 * np.linalg.slogdet(covariance)[1]
    missing = 0.5 * np.log(ABSENT)  # what a value that was not measured adds
    assert density.density(at)[0] == pytest.approx(value + missing, rel=1e-6)


def test_the_slopes_of_the_law_are_its_derivatives() -> None:
    rng = np.random.default_rng(1)
    x, at = rng.random((4, 3)), rng.normal(size=6)
    numeric = [(law(x, at + 1e-6 * e)[0] - law(x, at - 1e-6 * e)[0]) / 2e-6 for e in np.eye(6)]
    np.testing.assert_allclose(law(x, at)[1], np.transpose(numeric), rtol=1e-6, atol=1e-8)


def test_leaving_out_in_closed_form_is_leaving_out() -> None:
    table = example_table(16)
    values = (table.values - table.values.mean(axis=0)) / table.values.std(axis=0)
    density = LawGP(table.weights, values)
    fitted = density.fit(30)
    whole = Posterior.of(density, fitted, 0, table.weights, values[:, 0])
    errors, deviations = whole.leave_one_out()
    for i in (0, 7):
        rest = np.arange(16) != i
        part = Posterior.of(density, fitted, 0, table.weights[rest], values[rest, 0])
        result = part.mean(table.weights[[i]])[0]
        assert values[i, 0] - result == pytest.approx(errors[i], rel=1e-6)
        run = np.hypot(part.spread(table.weights[[i]])[0], np.sqrt(part.noise))
        assert run == pytest.approx(deviations[i], rel=1e-4)


def test_it_extrapolates_what_the_law_itself_made() -> None:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.full(6, 0.6), 80)
    truth = np.r_[1.0, np.log(0.4), -4.0, rng.normal(-3, 2, 6)]
    values = np.exp(0.1 * law((weights + OFFSET) ** 0.6, truth)[0])[:, None]
    table = example_table(80)
    made = type(table)(
        tuple("abcdef"), ("bpb/a",), weights, values, table.params, table.tokens, table.seeds
    )
    predicted = EffectiveData().fit(made.select(np.arange(30))).predict(weights[30:])
    error = np.abs(predicted.mean - values[30:]).mean()
    assert error < 0.1 * np.abs(values[30:] - values[:30].mean()).mean()


def test_the_botorch_model_says_what_predict_says_and_can_be_differentiated() -> None:
    table = example_table()
    fitted = EffectiveData().fit(table)
    test = np.random.default_rng(1).dirichlet(np.ones(4), 5)
    points = torch.from_numpy(test).requires_grad_(True)
    posterior = fitted.model.posterior(points)
    predicted = fitted.predict(test)
    np.testing.assert_allclose(posterior.mean.detach().numpy(), predicted.mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.variance.detach().numpy() ** 0.5, predicted.std, rtol=1e-4)
    (slope,) = torch.autograd.grad(posterior.mean.sum() + posterior.variance.sum(), points)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("surrogate", [EffectiveData, GaussianProcess])
def test_slopes_are_those_of_the_botorch_model(surrogate: type[Gaussian]) -> None:
    fitted = surrogate().fit(example_table())
    test = np.random.default_rng(1).dirichlet(np.ones(4), 5)
    test[0] = [0.0, 0.5, 0.5, 0.0]
    points = torch.from_numpy(test).requires_grad_(True)
    posterior = fitted.model.posterior(points)
    mean, std, mean_slope, std_slope = fitted.slopes(test)
    for j in range(len(fitted.modelled)):
        deviation = posterior.variance[:, j].sqrt()
        for found, slope, result in (
            (mean, mean_slope, posterior.mean[:, j]),
            (std, std_slope, deviation),
        ):
            np.testing.assert_allclose(found[:, j], result.detach().numpy(), rtol=1e-5)
            (expected,) = torch.autograd.grad(result.sum(), points, retain_graph=True)
            np.testing.assert_allclose(slope[:, j], expected.numpy(), rtol=1e-3, atol=1e-5)


def test_scores_that_are_zero_or_negative_are_not_logged() -> None:
    table = example_table()
    shifted = type(table)(
        table.domains,
        table.metrics,
        table.weights,
        table.values - table.values.mean(axis=0),
        table.params,
        table.tokens,
        table.seeds,
    )
    predicted = EffectiveData().fit(shifted).predict(table.weights)
    assert np.corrcoef(predicted.mean[:, 0], shifted.values[:, 0])[0, 1] > 0.9


def test_a_measured_noise_is_believed() -> None:
    predicted = EffectiveData(noise={"bpb/b": 0.03}).fit(example_table()).predict(np.eye(4))
    assert predicted.noise[1] == pytest.approx(0.03)


def test_deviations_of_the_objective_are_those_of_the_joint() -> None:
    objective = Objective({"a": 1.0, "b": -0.5})
    fitted = EffectiveData().fit(example_table())
    test = np.random.default_rng(1).dirichlet(np.ones(4), 5)
    mean, covariance = fitted.joint(test, objective)
    expected = fitted.predict(test).compose(objective)
    np.testing.assert_allclose(mean, expected[0])
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected[1], rtol=1e-6)
