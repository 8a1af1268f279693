"""Ridge regressions find what they are made of; their closed forms say what refits would."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mixopt.core.objective import Objective
from mixopt.surrogates.regression._ridge import PENALTIES, fit_ridge
from mixopt.surrogates.regression.linear import Linear, roots
from mixopt.surrogates.regression.quadratic import Quadratic
from mixopt.testing.surrogates import SurrogateConformance, example_table


class TestLinear(SurrogateConformance):
    surrogate = Linear


class TestQuadratic(SurrogateConformance):
    surrogate = Quadratic


def random_table(n: int, values: np.ndarray, weights: np.ndarray):
    table = example_table(n)
    return dataclasses.replace(table, weights=weights, values=values)


@pytest.mark.parametrize(("n", "f"), [(30, 5), (12, 40)])  # fewer and more features than trials
def test_errors_without_a_mixture_are_those_of_fits_without_it(n: int, f: int) -> None:
    rng = np.random.default_rng(0)
    points, values = rng.normal(size=(n, f)), rng.normal(size=(n, 2)) + 3
    kind = np.r_[np.arange(n), 0, 0, 1]  # some mixtures are repeated
    features = points[kind]
    values = values[kind] + 0.1 * rng.normal(size=(len(kind), 2))
    fit = fit_ridge(features, values, features)
    for left_out in (0, 1, 5):
        rest = kind != left_out
        x, centre = features[rest], features[rest].mean(axis=0)
        for j in range(2):
            y, level = values[rest, j], values[rest, j].mean()
            gram = (x - centre).T @ (x - centre) + fit.penalty[j] * np.eye(f)
            slope = np.linalg.solve(gram, (x - centre).T @ (y - level))
            predicted = level + (features[~rest] - centre) @ slope
            np.testing.assert_allclose(
                fit.errors[~rest, j], values[~rest, j] - predicted, rtol=1e-6
            )


def test_the_penalty_is_the_one_with_the_least_held_out_error() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(25, 40))
    values = features[:, :1] + 0.5 * rng.normal(size=(25, 1))
    fit = fit_ridge(features, values, features)

    def held_out(penalty: float) -> float:
        total = 0.0
        for i in range(25):
            x, y = np.delete(features, i, axis=0), np.delete(values[:, 0], i)
            centre, level = x.mean(axis=0), y.mean()
            gram = (x - centre).T @ (x - centre) + penalty * np.eye(40)
            slope = np.linalg.solve(gram, (x - centre).T @ (y - level))
            total += (values[i, 0] - level - (features[i] - centre) @ slope) ** 2
        return total

    unit = float(fit.strengths.mean())
    losses = [held_out(penalty) for penalty in PENALTIES[::4] * unit]
    assert held_out(float(fit.penalty[0])) <= min(losses) * (1 + 1e-6)


@pytest.mark.parametrize(("n", "f"), [(30, 8), (12, 40)])
def test_large_tables_are_decomposed_to_the_same_regression(
    n: int, f: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    features, values, new = (
        rng.normal(size=(n, f)),
        rng.normal(size=(n, 2)),
        rng.normal(size=(5, f)),
    )
    small = fit_ridge(features, values, features)
    monkeypatch.setattr("mixopt.surrogates.regression._ridge.LARGE", 4)
    large = fit_ridge(features, values, features)
    np.testing.assert_allclose(large.mean(new), small.mean(new), rtol=1e-6)
    np.testing.assert_allclose(large.std(new), small.std(new), rtol=1e-6)
    np.testing.assert_allclose(large.errors, small.errors, rtol=1e-5)


def test_deviations_are_those_of_bayesian_linear_regression() -> None:
    rng = np.random.default_rng(2)
    features, values = rng.normal(size=(8, 12)), rng.normal(size=(8, 1))
    fit = fit_ridge(features, values, features)
    new = rng.normal(size=(5, 12)) - fit.centre
    known = features - fit.centre
    precision = known.T @ known + fit.penalty[0] * np.eye(12)
    expected = fit.scale[0] ** 2 * (new @ np.linalg.solve(precision, new.T) + 1 / 8)
    np.testing.assert_allclose(fit.covariance(new + fit.centre)[0], expected, rtol=1e-8)
    run = np.sqrt(np.diag(expected) + fit.scale[0] ** 2)
    np.testing.assert_allclose(fit.std(new + fit.centre)[:, 0], run, rtol=1e-8)


def test_a_line_on_roots_is_found_exactly_by_linear_and_a_quadratic_by_quadratic() -> None:
    rng = np.random.default_rng(3)
    weights, new = rng.dirichlet(np.ones(4), 40), rng.dirichlet(np.ones(4), 20)
    slopes = rng.normal(size=(4, 3))
    lines = random_table(40, 2 + roots(weights) @ slopes, weights)
    np.testing.assert_allclose(
        Linear().fit(lines).predict(new).mean, 2 + roots(new) @ slopes, atol=1e-4
    )
    curvature = rng.normal(size=(3, 4, 4))

    def bent(r: np.ndarray) -> np.ndarray:
        return 1 + r @ slopes + np.einsum("ni,qij,nj->nq", r, curvature, r)

    predicted = Quadratic().fit(random_table(40, bent(weights), weights)).predict(new)
    np.testing.assert_allclose(predicted.mean, bent(new), atol=1e-4)
    assert np.abs(Linear().fit(lines).predict(new).mean - bent(new)).max() > 0.1


def test_the_model_is_the_same_regression() -> None:
    table = example_table(24)
    holed = table.values.copy()
    holed[::5, 1] = np.nan
    new = np.random.default_rng(4).dirichlet(np.ones(4), 10)
    for values in (table.values, holed):
        fitted = Linear().fit(dataclasses.replace(table, values=values))
        posterior = fitted.model.posterior(torch.from_numpy(new))
        order = [table.metrics.index(metric) for metric in fitted.modelled]
        np.testing.assert_allclose(
            posterior.mean.detach().numpy(), fitted.predict(new).mean[:, order], rtol=1e-4
        )
        line = {m: g.ridge.covariance(roots(new)) for ms, g in fitted._lines for m in ms[:1]}
        for metric, covariance in line.items():
            j = fitted.modelled.index(metric)
            np.testing.assert_allclose(
                posterior.variance[:, j].detach().numpy(), np.diag(covariance[0]), rtol=1e-3
            )


def test_a_measured_noise_is_taken_out_of_the_deviation() -> None:
    table = example_table(48, noise=0.05)
    plain = Linear().fit(table).predict(table.weights)
    predicted = Linear(noise={"bpb/a": 0.03}).fit(table).predict(table.weights)
    assert np.isnan(plain.noise).all()
    assert predicted.noise[0] == pytest.approx(0.03)
    np.testing.assert_allclose(np.hypot(predicted.std[:, 0], 0.03), plain.std[:, 0], rtol=1e-6)
    np.testing.assert_allclose(predicted.std[:, 1], plain.std[:, 1])


def test_the_joint_deviation_is_the_composed_one_also_with_a_large_noise() -> None:
    objective = Objective({"a": 1.0, "c": 2.0})
    for noise in ({}, {"bpb/a": 5.0}):
        fitted = Linear(noise=noise).fit(example_table(30))
        new = np.random.default_rng(5).dirichlet(np.ones(4), 12)
        mean, covariance = fitted.joint(new, objective)
        expected = fitted.predict(new).compose(objective)
        np.testing.assert_allclose(mean, expected[0])
        np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected[1], rtol=1e-8)
        assert np.linalg.eigvalsh(covariance).min() > -1e-10
