"""Co-kriging: low-fidelity runs predict high-fidelity ones, and what lies beyond all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.base import Surrogate, as_it_stood
from mixopt.surrogates.fidelity._link import FARTHEST, HYPER, METRIC, fit_link
from mixopt.surrogates.fidelity.cokriging import Cokriging
from mixopt.surrogates.fidelity.multitask_gp import MultitaskGP
from mixopt.surrogates.fidelity.nested_laws import NestedLaws
from mixopt.surrogates.gp.effective_data import EffectiveData
from mixopt.surrogates.scoring import spearman
from mixopt.testing.surrogates import SurrogateConformance, example_table, example_values

SLOPES = np.array([0.9, 0.6, 0.3])  # how much of each metric's differences remains at ten times
OBJECTIVE = Objective({"a": 1.0, "b": 1.0, "c": 1.0})


class TestCokriging(SurrogateConformance):
    surrogate = Cokriging


def larger(weights: np.ndarray, times: int = 1) -> np.ndarray:
    """What models ten (10 ** `times`) times as large show at `weights`."""
    values = example_values(weights)
    for _ in range(times):
        values = 0.5 + 0.7 * values + (SLOPES - 0.7) * (values - 2.2)
    return values


def two_sizes(low: int = 40, high: int = 6, noise: float = 0.005) -> TrialTable:
    """`example_table` at 1M and the same world at 10M."""
    small = example_table(low, noise=noise)
    rng = np.random.default_rng(5)
    weights = rng.dirichlet(np.full(4, 0.7), high)
    values = larger(weights) + noise * rng.normal(size=(high, 3))
    return TrialTable(
        small.domains,
        small.metrics,
        np.concatenate([small.weights, weights]),
        np.concatenate([small.values, values]),
        np.repeat([1e6, 1e7], [low, high]),
        np.full(low + high, 1e7),
        np.zeros(low + high, dtype=int),
    )


def held_out(n: int = 200) -> np.ndarray:
    return np.random.default_rng(9).dirichlet(np.full(4, 0.7), n)


def test_a_few_dear_runs_and_many_cheap_ones_beat_the_dear_ones_alone() -> None:
    table, test = two_sizes(), held_out()
    chain = Cokriging().fit(table).predict(test)
    alone = EffectiveData(fidelity=Fidelity("", 10_000_000, 10_000_000)).fit(table).predict(test)
    error = np.abs(chain.mean - larger(test)).mean()
    assert error < 0.5 * np.abs(alone.mean - larger(test)).mean()
    run = np.hypot(chain.std, chain.noise)
    assert 0.8 <= (np.abs(chain.mean - larger(test)) < 1.645 * run).mean() <= 1.0


def test_it_finds_how_much_of_each_metric_remains() -> None:
    table, test = two_sizes(high=10), held_out()
    objective = OBJECTIVE.of_table
    truth = dataclasses.replace(table.select(np.zeros(200, int)), weights=test, values=larger(test))
    chain, _ = Cokriging().fit(table).predict(test).compose(OBJECTIVE)
    low, _ = EffectiveData(fidelity=table.fidelities[0]).fit(table).predict(test).compose(OBJECTIVE)
    assert spearman(chain, objective(truth)) > spearman(low, objective(truth))


def test_errors_that_high_fidelity_runs_have_in_common_widen_the_objective() -> None:
    test, inside = held_out(), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        table = two_sizes(high=8)
        values = table.values.copy()
        values[40:] += 0.05 * rng.normal(size=(8, 1))
        runs = larger(test) + 0.05 * rng.normal(size=(200, 1))
        known = dict.fromkeys(table.metrics, 0.05)
        fitted = Cokriging(noise=known).fit(dataclasses.replace(table, values=values))
        predicted = fitted.predict(test)
        spread = np.hypot(predicted.std, predicted.noise)
        mean, std = OBJECTIVE.compose(
            predicted.mean, spread, predicted.metrics, predicted.correlation
        )
        inside.append(np.abs(runs.mean(axis=1) - mean) < 1.645 * std)
    assert 0.85 <= np.mean(inside) <= 0.97


def test_beyond_the_largest_size_slopes_and_levels_go_on_and_deviations_grow() -> None:
    table, test = two_sizes(high=10), held_out()
    fitted = Cokriging().fit(table)
    at, beyond = (fitted.predict(test, Fidelity("", 10**k, 10**7)) for k in (7, 8))
    ratio = beyond.mean.std(axis=0) / at.mean.std(axis=0)
    assert ratio[0] > ratio[1] > ratio[2]
    np.testing.assert_allclose(ratio, SLOPES, atol=0.15)
    assert (beyond.std.mean(axis=0) > 0).all()
    assert (beyond.std / beyond.mean.std(axis=0) > at.std / at.mean.std(axis=0)).mean() > 0.9


def test_between_two_sizes_it_interpolates() -> None:
    fitted, test = Cokriging().fit(two_sizes()), held_out(20)
    low, mid, high = (
        fitted.predict(test, Fidelity("", round(10**k), 10**7)).mean for k in (6, 6.5, 7)
    )
    np.testing.assert_allclose(mid, (low + high) / 2, rtol=1e-6)


def test_below_the_lowest_fidelity_it_refuses() -> None:
    with pytest.raises(SurrogateError, match="nothing is known of 1000 parameters"):
        Cokriging().fit(two_sizes()).predict(held_out(2), Fidelity("", 1000, 10**7))


def test_of_a_curve_only_the_last_point_counts() -> None:
    table = two_sizes()
    early = table.select(np.arange(40))
    curves = TrialTable(
        table.domains,
        table.metrics,
        np.concatenate([early.weights, table.weights]),
        np.concatenate([early.values + 1, table.values]),
        np.concatenate([early.params, table.params]),
        np.concatenate([early.tokens / 2, table.tokens]),
        np.concatenate([early.seeds, table.seeds]),
        np.concatenate([np.arange(40), np.arange(46)]),
    )
    test = held_out(10)
    np.testing.assert_allclose(
        Cokriging().fit(curves).predict(test).mean, Cokriging().fit(table).predict(test).mean
    )


def test_the_joint_posterior_ties_fidelities_together() -> None:
    table = two_sizes()
    fitted, test = Cokriging().fit(table), held_out(4)
    low, high = table.fidelities
    twice = np.concatenate([test, test])
    mean, covariance = fitted.joint(twice, OBJECTIVE, [low] * 4 + [high] * 4)
    for rows, fidelity in ((slice(0, 4), low), (slice(4, 8), high)):
        expected = fitted.predict(test, fidelity).compose(OBJECTIVE)
        np.testing.assert_allclose(mean[rows], expected[0])
        np.testing.assert_allclose(np.diag(covariance)[rows] ** 0.5, expected[1], rtol=1e-5)
    assert np.linalg.eigvalsh(covariance).min() > -1e-10
    tied = covariance[0, 4] / np.sqrt(covariance[0, 0] * covariance[4, 4])
    assert tied > 0.1


def test_the_botorch_model_says_what_predict_says() -> None:
    fitted, test = Cokriging().fit(two_sizes()), held_out(5)
    points = torch.from_numpy(test).requires_grad_(True)
    posterior = fitted.model.posterior(points)
    predicted = fitted.predict(test)
    np.testing.assert_allclose(posterior.mean.detach().numpy(), predicted.mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.variance.detach().numpy() ** 0.5, predicted.std, rtol=1e-4)
    (slope,) = torch.autograd.grad(posterior.variance.sum(), points)
    assert torch.isfinite(slope).all()


def test_metrics_missing_at_the_dear_size_keep_what_is_expected() -> None:
    table = two_sizes()
    values = table.values.copy()
    values[40:, 2] = np.nan
    predicted = Cokriging().fit(dataclasses.replace(table, values=values)).predict(held_out(20))
    assert np.isfinite(predicted.mean).all()
    assert (predicted.std[:, 2] > predicted.std[:, 0]).all()


@pytest.mark.parametrize(("n", "noise", "seed"), [(20, 3.0, 2), (40, 10.0, 3)])
def test_runs_that_vary_far_more_than_the_cheap_ones_do_not_lead_to_infinite_variances(
    n: int, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(6), n)
    lower = 0.5 * rng.normal(size=(n, 6))
    values = 30 * rng.normal(size=6) + noise * rng.normal(size=(n, 6))
    link = fit_link(weights, values, lower, np.full((n, 6), 0.2), np.ones(6), np.ones(6))
    # of log δ and log noise: the common one and the metric's own at their bounds
    most = np.exp(2 * (HYPER[2:, 0] + FARTHEST * (HYPER[2:, 1] + METRIC)))
    assert (link.variance <= most[0]).all()
    assert (link.noise <= most[1]).all()
    assert np.isfinite(link.mean(weights, lower)).all()
    assert np.isfinite(link.own_variance(weights, lower)).all()


def gone_past(table: TrialTable, beyond: int, exact: bool) -> TrialTable:
    """`table` whose first `beyond` rows are runs that go on to three times their tokens.

    Losses fall by 10 tokens^-.3. If not `exact`, these curves have points at .8 and 1.25 times the
    tokens instead of the one at them.
    """
    places = [1.0, 3.0] if exact else [0.8, 1.25, 3.0]
    rows = np.r_[np.arange(beyond, len(table)), np.repeat(np.arange(beyond), len(places))]
    tokens = table.tokens[rows] * np.r_[np.ones(len(table) - beyond), np.tile(places, beyond)]
    fall = 10 * (tokens**-0.3 - table.tokens[rows] ** -0.3)
    curves = table.select(rows)
    return dataclasses.replace(curves, tokens=tokens, values=curves.values + fall[:, None])


@pytest.mark.numerics
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "kind", [Cokriging, pytest.param(MultitaskGP, marks=pytest.mark.slow), NestedLaws]
)
def test_runs_that_trained_past_the_target_count_as_they_stood_there(
    kind: type[Surrogate], exact: bool
) -> None:
    table, test = two_sizes(high=8), held_out(10)
    target = Fidelity("", 10**7, 10**7)
    curves = gone_past(table, 5, exact)
    assert len(curves.final.fidelities) == 3  # ends at other tokens, which are no fidelity asked
    plain = kind(fidelity=target).fit(table).predict(test)
    past = kind(fidelity=target).fit(curves).predict(test)
    np.testing.assert_allclose(past.mean, plain.mean, atol=0.01)
    # rows are in another order, by which a search for hyperparameters may end elsewhere
    np.testing.assert_allclose(past.std.mean(axis=0), plain.std.mean(axis=0), rtol=0.3)


def test_points_of_a_curve_too_far_apart_are_not_read_between() -> None:
    table = two_sizes()
    far = gone_past(table, 5, exact=False)
    far = far.select(far.tokens != 1.25e7)  # .8 and 3 times: the run counts with its end
    assert (as_it_stood(far, 1e7).tokens == 3e7).sum() == 5
    near = as_it_stood(gone_past(table, 5, exact=False), 1e7)
    assert (near.tokens == 1e7).all()
    assert len(near) == len(table)


def test_a_place_on_the_curves_is_spoken_of_as_if_fitted_for_it() -> None:
    curves, test = gone_past(two_sizes(), 40, exact=True), held_out(5)
    at, past = Fidelity("", 10**7, 10**7), Fidelity("", 10**6, 3 * 10**7)
    predicted = Cokriging(fidelity=at).fit(curves).predict(test, past)
    asked = Cokriging(fidelity=past).fit(curves).predict(test)
    np.testing.assert_array_equal(predicted.mean, asked.mean)
