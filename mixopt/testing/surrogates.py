"""What every surrogate must pass.

Derive from the suite in your tests and name your class:

class TestMine(SurrogateConformance):
    surrogate = MySurrogate
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from mixopt.errors import SurrogateError
from mixopt.mixture import Mixture
from mixopt.surrogates.base import Surrogate
from mixopt.trials import Fidelity, TrialTable


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
        said = self.make().fit(table).predict(table.weights[:5])
        assert said.metrics == table.metrics
        assert said.mean.shape == said.std.shape == (5, 3)
        assert said.noise.shape == (3,)
        assert np.isfinite(said.mean).all()
        assert (said.std >= 0).all()

    def test_unseen_mixtures_are_ranked_better_than_by_chance(self) -> None:
        """Every metric is learned from 48 trials."""
        test = example_table(64, noise=0.0, seed=1)
        said = self.make().fit(example_table(48)).predict(test.weights)
        for j in range(3):
            assert np.corrcoef(said.mean[:, j], test.values[:, j])[0, 1] > 0.6

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
        """The shortcut for screening says the same."""
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
        """Without doubt and without failing."""
        table = example_table()
        values = table.values.copy()
        values[:, 2] = 1.25
        said = self.make().fit(dataclasses.replace(table, values=values)).predict(table.weights)
        np.testing.assert_allclose(said.mean[:, 2], 1.25)
        np.testing.assert_allclose(said.std[:, 2], 0.0, atol=1e-9)

    def test_too_few_trials_are_refused(self) -> None:
        """Two are no ground to stand on."""
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
            params=np.concatenate([small.params, large.params * 10]),
            tokens=np.concatenate([small.tokens, large.tokens]),
            seeds=np.concatenate([small.seeds, large.seeds]),
            runs=np.arange(48),
        )
        asked = self.make(fidelity=Fidelity("large", 10_000_000, 10_000_000)).fit(both)
        mean = asked.predict(large.weights).mean
        assert np.abs(mean - (large.values - 1.0)).mean() < np.abs(mean - large.values).mean()


def _refuses(act: Callable[[], object]) -> None:
    try:
        act()
    except SurrogateError:
        return
    raise AssertionError("no SurrogateError was raised")
