"""What every surrogate must pass.

Derive from the suite in your tests and name your class:

class TestMine(SurrogateConformance):
    surrogate = MySurrogate
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.base import Prediction, Surrogate

# How far rounding may move a prediction: means by this share of a run's deviation, deviations by
# this share of themselves. Orders of rows, BLAS kernels, threads and vector instructions round sums
# differently. Measured: .006 for the effective-data law, whose search stops before it settles (.05
# for 22 metrics of 10 mixtures), and for what is built on it; 5e-5 or less for all others.
ROUNDING = 0.1


def example_table(n: int = 24, noise: float = 0.01, seed: int = 0) -> TrialTable:
    """Trials over four domains whose three metrics fall with the logarithm of what helps them.

    Metrics are `bpb/a` to `bpb/c`; the fourth domain helps none.
    """
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(4, 0.7), n)
    values = example_values(weights) + noise * rng.normal(size=(n, 3))
    return TrialTable(
        domains=("a", "b", "c", "d"),
        metrics=("bpb/a", "bpb/b", "bpb/c"),
        weights=weights,
        values=values,
        params=np.full(n, 1e6),
        tokens=np.full(n, 1e7),
        seeds=np.zeros(n, dtype=int),
    )


def example_values(weights: np.ndarray) -> np.ndarray:
    """(n, 3) the noise-free metrics of `example_table` at `weights` (n, 4)."""
    helps = np.array([[1.0, 0.2, 0.0, 0.0], [0.1, 1.0, 0.3, 0.0], [0.0, 0.2, 1.0, 0.0]])
    return np.asarray(2.0 - 0.3 * np.log(0.05 + weights @ helps.T))


def wide_table(n: int, idle: int, seed: int = 0) -> TrialTable:
    """`example_table` with `idle` further domains, of half of all weight, that help nothing."""
    small = example_table(n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    rest = rng.dirichlet(np.ones(idle), n)
    return dataclasses.replace(
        small,
        domains=small.domains + tuple(f"idle{j}" for j in range(idle)),
        weights=np.concatenate([small.weights, rest], axis=1) / 2,
    )


def two_fidelities(n: int = 32, params: float = 1.0, tokens: float = 10.0) -> TrialTable:
    """`example_table` twice, other mixtures the second time: at so many times the size and tokens.

    There, metrics are lower by .5.
    """
    small, large = example_table(n), example_table(n, seed=2)
    return dataclasses.replace(
        small,
        weights=np.concatenate([small.weights, large.weights]),
        values=np.concatenate([small.values, large.values - 0.5]),
        noise_std=np.concatenate([small.noise_std, large.noise_std]),
        params=np.concatenate([small.params, large.params * params]),
        tokens=np.concatenate([small.tokens, large.tokens * tokens]),
        seeds=np.zeros(2 * n, dtype=int),
        runs=np.arange(2 * n),
    )


class SurrogateConformance:
    """Tests of the contract of `Surrogate`; pytest runs them in a derived class."""

    surrogate: type[Surrogate]

    def make(self, **settings: object) -> Surrogate:
        """A fresh surrogate; override where yours needs more."""
        return self.surrogate(**settings)  # type: ignore[arg-type]

    def test_fit_returns_itself(self) -> None:
        """`fit` can be chained."""
        surrogate = self.make()
        assert surrogate.fit(example_table()) is surrogate

    def test_predictions_have_a_row_per_mixture_and_a_column_per_metric(self) -> None:
        """Shapes and names are the table's."""
        table = example_table()
        prediction = self.make().fit(table).predict(table.weights[:5])
        assert prediction.metrics == table.metrics
        assert prediction.mean.shape == prediction.std.shape == (5, 3)
        assert prediction.noise.shape == (3,)
        assert np.isfinite(prediction.mean).all()
        assert (prediction.std >= 0).all()

    def test_unseen_mixtures_are_ranked_better_than_by_chance(self) -> None:
        """Every metric is learned from 48 trials, and predicted within less than it varies."""
        test = example_table(64, noise=0.0, seed=1)
        prediction = self.make().fit(example_table(48)).predict(test.weights)
        for j in range(3):
            assert np.corrcoef(prediction.mean[:, j], test.values[:, j])[0, 1] > 0.6
        assert (run_std(prediction).mean(axis=0) < test.values.std(axis=0)).all()

    def test_equal_seeds_and_tables_give_equal_predictions(self) -> None:
        """Nothing depends on the clock, on global generators or on earlier fits."""
        table = example_table()
        first = self.make(seed=3).fit(table)
        once = first.predict(table.weights)
        np.random.seed(7)  # a global generator must not matter
        again = self.make(seed=3).fit(example_table(12, seed=5)).fit(table).predict(table.weights)
        np.testing.assert_array_equal(once.mean, again.mean)
        np.testing.assert_array_equal(once.std, again.std)

    def test_a_prediction_does_not_depend_on_its_neighbours(self) -> None:
        """One mixture alone or among others: the same numbers."""
        table = example_table()
        surrogate = self.make().fit(table)
        together, alone = surrogate.predict(table.weights), surrogate.predict(table.weights[2:3])
        np.testing.assert_allclose(together.mean[2:3], alone.mean, rtol=1e-9)
        np.testing.assert_allclose(together.std[2:3], alone.std, rtol=1e-6, atol=1e-9)

    def test_means_alone_are_the_means_of_predict(self) -> None:
        """The shortcut for screening agrees with `predict`."""
        table = example_table()
        surrogate = self.make().fit(table)
        np.testing.assert_allclose(
            surrogate.mean(table.weights), surrogate.predict(table.weights).mean, rtol=1e-12
        )

    def test_missing_values_and_repeats_are_welcome(self) -> None:
        """NaN in one metric leaves the others usable."""
        table = example_table()
        values = table.values.copy()
        values[::3, 1] = np.nan
        holed = dataclasses.replace(table, values=values)
        twice = holed.select(np.r_[np.arange(len(table)), 0, 0, 1])
        assert np.isfinite(self.make().fit(twice).predict(table.weights).mean).all()

    def test_a_constant_metric_is_predicted_as_that_constant(self) -> None:
        """With deviation 0, and without failing."""
        table = example_table()
        values = table.values.copy()
        values[:, 2] = 1.25
        prediction = (
            self.make().fit(dataclasses.replace(table, values=values)).predict(table.weights)
        )
        np.testing.assert_allclose(prediction.mean[:, 2], 1.25)
        np.testing.assert_allclose(prediction.std[:, 2], 0.0, atol=1e-9)

    def test_too_few_trials_are_refused(self) -> None:
        """Two trials raise a SurrogateError."""
        _refuses(lambda: self.make().fit(example_table(2)))

    def test_predicting_before_fitting_is_refused(self) -> None:
        """With the family's error, not with an attribute error."""
        uniform = Mixture.uniform("abcd").array[None]
        _refuses(lambda: self.make().predict(uniform))

    def test_mixtures_over_other_domains_are_refused(self) -> None:
        """A wrong number of weights is noticed."""
        surrogate = self.make().fit(example_table())
        _refuses(lambda: surrogate.predict(np.full((1, 5), 0.2)))

    def test_the_asked_fidelity_is_the_one_learned_from(self) -> None:
        """Trials of another size do not shift the predictions of a surrogate without scaling."""
        small, large = example_table(24), example_table(24, seed=2)
        both = dataclasses.replace(
            small,
            weights=np.concatenate([small.weights, large.weights]),
            values=np.concatenate([small.values, large.values - 1.0]),
            noise_std=np.concatenate([small.noise_std, large.noise_std]),
            params=np.concatenate([small.params, large.params * 10]),
            tokens=np.concatenate([small.tokens, large.tokens]),
            seeds=np.concatenate([small.seeds, large.seeds]),
            runs=np.arange(48),
        )
        asked = self.make(fidelity=Fidelity("large", 10_000_000, 10_000_000)).fit(both)
        mean = asked.predict(large.weights).mean
        assert np.abs(mean - (large.values - 1.0)).mean() < np.abs(mean - large.values).mean()

    def test_nine_tenths_of_unseen_runs_lie_in_the_90_percent_interval(self) -> None:
        """About: from 48 trials nobody knows better."""
        test = example_table(150, noise=0.03, seed=1)
        prediction = self.make().fit(example_table(48, noise=0.03)).predict(test.weights)
        inside = np.abs(prediction.mean - test.values) <= NORMAL_90 * run_std(prediction)
        assert 0.75 <= inside.mean() <= 0.995

    def test_more_trials_lower_the_error(self) -> None:
        """Eight times as many, on mixtures that neither has seen."""
        test = example_table(100, noise=0.0, seed=1)

        def error(n: int) -> float:
            mean = self.make().fit(example_table(n, noise=0.02)).mean(test.weights)
            return float(np.abs(mean - test.values).mean())

        assert error(80) < error(10)

    def test_the_order_of_metrics_does_not_matter(self) -> None:
        """Every metric is predicted alike wherever its column is."""
        table, order = example_table(), np.array([2, 0, 1])
        turned = dataclasses.replace(
            table,
            metrics=tuple(table.metrics[j] for j in order),
            values=table.values[:, order],
        )
        first = self.make().fit(table).predict(table.weights)
        again = self.make().fit(turned).predict(table.weights)
        assert again.metrics == turned.metrics
        assert _apart(first.mean[:, order], again.mean) <= 0.1 * run_std(first).mean()
        np.testing.assert_allclose(run_std(again), run_std(first)[:, order], rtol=0.3)

    def test_the_order_of_trials_does_not_matter(self) -> None:
        """The same runs in another order give the same predictions, to rounding (1e-6)."""
        tables = [example_table()]
        if self.surrogate.multi_fidelity:
            tables.append(two_fidelities(12))
        for table in tables:
            mixed = table.select(np.random.default_rng(4).permutation(len(table)))
            first = self.make().fit(table).predict(table.weights)
            again = self.make().fit(mixed).predict(table.weights)
            np.testing.assert_allclose(again.mean, first.mean, rtol=1e-6)
            np.testing.assert_allclose(run_std(again), run_std(first), rtol=1e-6)

    def test_the_last_bits_of_the_trials_do_not_decide(self) -> None:
        """Values that differ by a rounding are predicted alike, to `ROUNDING`."""
        tables = [example_table()]
        if self.surrogate.multi_fidelity:
            tables.append(two_fidelities(12))
        rng = np.random.default_rng(8)
        for table in tables:
            rounded = table.values * (1 + 1e-14 * rng.normal(size=table.values.shape))
            first = self.make().fit(table).predict(table.weights)
            again = self.make().fit(dataclasses.replace(table, values=rounded))
            prediction = again.predict(table.weights)
            assert (np.abs(prediction.mean - first.mean) <= ROUNDING * run_std(first)).all()
            np.testing.assert_allclose(run_std(prediction), run_std(first), rtol=ROUNDING)

    def test_repeats_are_averaged_not_chased(self) -> None:
        """Four noisy runs of each of 16 mixtures teach more than one run of each."""
        test, once = example_table(100, noise=0.0, seed=1), example_table(16, noise=0.0)
        rows = np.tile(np.arange(16), 4)
        noise = 0.2 * np.random.default_rng(5).normal(size=(64, 3))
        repeats = once.select(rows)
        repeats = dataclasses.replace(
            repeats, values=repeats.values + noise, seeds=np.arange(64), runs=np.arange(64)
        )

        def error(table: TrialTable) -> float:
            return _apart(self.make().fit(table).mean(test.weights), test.values)

        assert error(repeats) < error(repeats.select(np.arange(16)))

    def test_fewer_trials_than_domains_are_enough_to_start(self) -> None:
        """Six trials over ten domains: finite, with a deviation above 0."""
        table = wide_table(6, idle=6)
        prediction = self.make().fit(table).predict(wide_table(20, idle=6, seed=3).weights)
        assert np.isfinite(prediction.mean).all()
        assert (run_std(prediction) > 0).all()

    def test_a_domain_that_was_never_varied_is_no_obstacle(self) -> None:
        """One that no trial has, and one that all have alike."""
        table = wide_table(24, idle=1)
        zero = np.concatenate([table.weights[:, :4] * 2, np.zeros((24, 1))], axis=1)
        for weights in (table.weights, zero):
            fitted = self.make().fit(dataclasses.replace(table, weights=weights))
            prediction = fitted.predict(weights)
            assert np.isfinite(prediction.std).all()
            assert _apart(prediction.mean, table.values) <= 1.1 * table.values.std()

    def test_a_measured_noise_is_reported_as_given(self) -> None:
        """`Prediction.noise` of a metric whose noise was given."""
        prediction = self.make(noise={"bpb/b": 0.03}).fit(example_table()).predict(np.eye(4))
        np.testing.assert_allclose(prediction.noise[1], 0.03, rtol=1e-6)
        assert np.isfinite(prediction.std).all()

    def test_one_of_several_fidelities_predicts_the_one_it_is_asked_about(self) -> None:
        """More tokens, then a larger model; .5 lower either way."""
        if not self.surrogate.multi_fidelity:
            pytest.skip("of one fidelity")
        test = example_table(40, noise=0.0, seed=3)
        for params, tokens in ((1.0, 10.0), (10.0, 1.0)):
            fitted = self.make().fit(two_fidelities(params=params, tokens=tokens))
            large = Fidelity("large", round(1e6 * params), round(1e7 * tokens))
            at_small = fitted.mean(test.weights, Fidelity("small", 1_000_000, 10_000_000))
            at_large = fitted.mean(test.weights, large)
            # the spread of the metrics is .3
            assert np.abs(at_small - test.values).mean() < 0.15
            assert np.abs(at_large - (test.values - 0.5)).mean() < 0.15

    def test_the_joint_posterior_is_that_of_predict(self) -> None:
        """Means, deviations on the diagonal, and a covariance; the model has the same means."""
        fitted = self.make().fit(example_table()).joint_posterior
        if fitted is None:
            pytest.skip("no joint posterior")
        import torch

        objective = Objective({"a": 1.0, "b": 0.5, "c": 2.0})
        new = np.random.default_rng(6).dirichlet(np.ones(4), 12)
        prediction = fitted.predict(new)
        mean, covariance = fitted.joint(new, objective)
        expected = prediction.compose(objective)
        np.testing.assert_allclose(mean, expected[0], rtol=1e-4)
        np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected[1], rtol=1e-3)
        np.testing.assert_allclose(covariance, covariance.T, rtol=1e-6, atol=1e-12)
        assert np.linalg.eigvalsh(covariance).min() > -1e-6 * np.diag(covariance).max()

        with torch.no_grad():
            posterior: Any = fitted.model.posterior(torch.from_numpy(new))
        order = [prediction.metrics.index(metric) for metric in fitted.modelled]
        np.testing.assert_allclose(
            posterior.mean.numpy(), prediction.mean[:, order], atol=0.1 * run_std(prediction).mean()
        )

    def test_a_model_leaves_out_what_does_not_vary(self) -> None:
        """And raises where nothing varies."""
        table = example_table(12)
        values = table.values.copy()
        values[:, 1] = 1.25
        fitted = self.make().fit(dataclasses.replace(table, values=values)).joint_posterior
        if fitted is None:
            pytest.skip("no joint posterior")
        assert set(fitted.modelled) == {"bpb/a", "bpb/c"}
        constant = dataclasses.replace(table, values=np.ones_like(values))
        flat = self.make().fit(constant).joint_posterior
        assert flat is not None
        assert flat.modelled == ()
        _refuses(lambda: flat.model)


def run_std(prediction: Prediction) -> np.ndarray:
    """(n, q) deviation of one more run."""
    return np.asarray(np.hypot(prediction.std, np.nan_to_num(prediction.noise)))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def _refuses(act: Callable[[], object]) -> None:
    try:
        act()
    except SurrogateError:
        return
    raise AssertionError("no SurrogateError was raised")
