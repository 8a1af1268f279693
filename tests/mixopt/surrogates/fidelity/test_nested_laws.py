"""Nested laws predict at a size and for tokens that nothing was trained at."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.extrapolation import measure, splits
from benchmarks.tables import DATA, mixing_laws
from mixopt.core.errors import SurrogateError
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.fidelity.nested_laws import NestedLaws
from mixopt.surrogates.gp.effective_data import EffectiveData
from mixopt.testing.surrogates import SurrogateConformance, example_table, example_values

TARGET = Fidelity("305M", 305_000_000, 30_000_000_000)


class TestNestedLaws(SurrogateConformance):
    surrogate = NestedLaws


def published(family: str, step: int | None = 30_000) -> TrialTable:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    table = mixing_laws(family, None, step)
    return table.select(table.tokens <= TARGET.tokens)


def scaled(sizes: list[float], steps: list[float], n: int = 20) -> TrialTable:
    """`example_table` at every size and token count: L = values + 20 N^-.3 + 30 D^-.4."""
    small = example_table(n, noise=0.002)
    parts = []
    for i, size in enumerate(sizes):
        for tokens in steps:
            level = 20.0 * size**-0.3 + 30.0 * tokens**-0.4
            parts.append((small.values + level, np.full(n, size), np.full(n, tokens), i))
    count = len(parts)
    return TrialTable(
        domains=small.domains,
        metrics=small.metrics,
        weights=np.tile(small.weights, (count, 1)),
        values=np.concatenate([p[0] for p in parts]),
        params=np.concatenate([p[1] for p in parts]),
        tokens=np.concatenate([p[2] for p in parts]),
        seeds=np.zeros(n * count, dtype=int),
        runs=np.concatenate([np.arange(n) + n * p[3] for p in parts]),
    )


def truth(weights: np.ndarray, fidelity: Fidelity) -> np.ndarray:
    level = 20.0 * fidelity.params**-0.3 + 30.0 * fidelity.tokens**-0.4
    return example_values(weights) + level


@pytest.mark.parametrize(("family", "most"), [("5Mix", 0.0105), ("RedPajama", 0.0140)])
def test_two_large_runs_set_the_level_of_all(family: str, most: float) -> None:
    # measured (mean of six pairs): .0091 and .0123 by the laws alone; 160M x slope^r, the best
    # known, .0117 and .0140
    table = published(family)
    large = np.flatnonzero(table.at(TARGET))
    rest = np.random.default_rng(0).permutation(large)[2:]
    known = np.setdiff1d(np.arange(len(table)), rest)
    predicted = NestedLaws(fidelity=TARGET).fit(table.select(known)).predict(table.weights[rest])
    error = np.abs(predicted.mean - table.values[rest])
    half = 1.645 * np.hypot(predicted.std, predicted.noise)
    assert error.mean() < most
    assert (error < half).mean() >= 0.75  # measured: .96 and .99
    # Nor too wide. Of a normal error, the 90 % interval's half is 2.06 times its mean size; a share
    # inside says less, for errors of one draw of two runs go one way.
    assert half.mean() < 3.2 * error.mean()  # measured: 2.6 and 2.9


@pytest.mark.parametrize("family", ["5Mix", "RedPajama"])
def test_without_any_large_run_it_beats_the_value_of_the_largest_size(family: str) -> None:
    table = published(family)
    small, large = table.select(table.params < TARGET.params), table.select(table.at(TARGET))
    predicted = NestedLaws(fidelity=TARGET).fit(small).predict(large.weights)
    middle = small.select(small.params == 1.6e8)
    rows = [int(np.flatnonzero((middle.weights == w).all(axis=1))[0]) for w in large.weights]
    naive = np.abs(middle.values[rows] - large.values).mean()
    error = np.abs(predicted.mean - large.values)
    assert error.mean() < 0.4 * naive  # measured: a fifth
    assert (error < 1.645 * np.hypot(predicted.std, predicted.noise)).mean() > 0.75


@pytest.mark.slow
def test_curves_to_two_thirds_of_the_steps_tell_the_end_at_a_larger_size() -> None:
    table = published("5Mix", None)
    small = table.select((table.params < TARGET.params) & (table.tokens <= 2e10))
    large = table.select(table.at(TARGET))
    predicted = NestedLaws(fidelity=TARGET).fit(small).predict(large.weights)
    last = small.select((small.params == 1.6e8) & (small.tokens == 2e10))
    rows = [int(np.flatnonzero((last.weights == w).all(axis=1))[0]) for w in large.weights]
    error, naive = (np.abs(v - large.values).mean() for v in (predicted.mean, last.values[rows]))
    assert error < 0.35 * naive


@pytest.mark.parametrize(
    ("sizes", "steps", "asked"),
    [
        ([1e6], [1e7, 2e7, 4e7, 8e7], (1e6, 3.2e8)),  # curves only
        ([1e6, 3e6, 9e6], [1e8], (2.7e7, 1e8)),  # sizes only
        ([1e6, 3e6, 9e6], [1e7, 3e7, 9e7], (2.7e7, 2.7e8)),  # both
    ],
)
def test_the_law_that_made_the_data_is_carried_beyond_it(
    sizes: list[float], steps: list[float], asked: tuple[float, float]
) -> None:
    table = scaled(sizes, steps)
    fidelity = Fidelity("target", int(asked[0]), int(asked[1]))
    predicted = NestedLaws(fidelity=fidelity).fit(table).predict(table.weights[:20])
    expected = truth(table.weights[:20], fidelity)
    fall = table.final.values.max(axis=0).mean() - expected.mean()
    nearest = np.abs(table.values[-20:] - expected).mean()
    assert fall > 0
    assert np.abs(predicted.mean - expected).mean() < 0.3 * nearest
    assert (np.abs(predicted.mean - expected) < 3 * np.hypot(predicted.std, predicted.noise)).all()


@pytest.mark.slow
def test_the_mean_of_losses_lies_in_its_interval_from_few_dear_runs() -> None:
    table, inside, wide = published("RedPajama"), [], []
    loss = Objective(dict.fromkeys(table.metrics, 1.0))
    large = np.flatnonzero(table.at(TARGET))
    for seed in range(3):
        rest = np.random.default_rng(seed).permutation(large)[3:]
        known = np.setdiff1d(np.arange(len(table)), rest)
        predicted = (
            NestedLaws(fidelity=TARGET).fit(table.select(known)).predict(table.weights[rest])
        )
        spread = np.hypot(predicted.std, predicted.noise)
        mean, std = loss.compose(predicted.mean, spread, predicted.metrics, predicted.correlation)
        truth = table.values[rest].mean(axis=1)
        inside.append(np.abs(mean - truth) < 1.645 * std)
        wide.append(1.645 * std / np.abs(mean - truth).mean())
    assert np.mean(inside) >= 0.75  # with the base's correlation of errors: .6
    assert np.mean(wide) < 3  # measured: 1.9


def test_losses_beyond_the_largest_size_lie_in_their_intervals() -> None:
    if not DATA.exists():
        pytest.skip(f"no published run tables at {DATA}; set MIXOPT_DATA")
    chosen = {
        ("chains", "5Mix 70M to 305M 30B"),  # no law through three sizes ends at the fourth
        ("chains", "5Mix 70M to 70M 100B"),
        ("chains", "RedPajama 305M to 305M 30B"),
        ("curves", "2Mix 160M 30B"),
        ("curves", "3Mix 160M 60B"),
    }
    found = [measure(s, "nested-laws") for s in splits() if (s.kind, s.name) in chosen]
    inside = {(each.split.name, each.split.runs): each.inside for each in found}
    assert len(inside) == 8
    # measured: .83 to 1, mean .95; without what all mixtures miss together .20 to 1, mean .68
    assert np.mean(list(inside.values())) >= 0.85
    assert min(inside.values()) >= 0.7
    # two runs at the target show how far the laws miss there: no wide interval then
    two = [each.width for each in found if each.split.runs]
    none = [each.width for each in found if not each.split.runs and each.split.kind == "chains"]
    assert np.mean(two) < 0.75 * np.mean(none)


def test_further_away_is_less_sure() -> None:
    fitted = NestedLaws(fidelity=Fidelity("", 9_000_000, 10**8)).fit(scaled([1e6, 3e6, 9e6], [1e8]))
    mixtures = example_table(4).weights
    spread = [
        fitted.predict(mixtures, Fidelity("", params, 10**8)).std.mean()
        for params in (9_000_000, 30_000_000, 300_000_000)
    ]
    assert spread[0] < spread[1] < spread[2]


def test_one_fidelity_is_the_base_as_it_is() -> None:
    table = example_table()
    nested = NestedLaws(seed=1).fit(table).predict(table.weights)
    plain = EffectiveData(seed=1).fit(table).predict(table.weights)
    np.testing.assert_array_equal(nested.mean, plain.mean)
    np.testing.assert_array_equal(nested.std, plain.std)


def test_a_joint_posterior_is_the_bases_at_the_target() -> None:
    table = scaled([1e6, 3e6, 9e6], [1e8], n=12)
    fidelity = Fidelity("", 27_000_000, 10**8)
    fitted = NestedLaws(fidelity=fidelity).fit(table)
    objective = Objective({"a": 1.0, "b": 1.0})
    mean, cover = fitted.joint(table.weights[:5], objective)
    composed, _ = fitted.predict(table.weights[:5]).compose(objective)
    np.testing.assert_allclose(mean, composed, rtol=5e-3)  # outliers stay winsorized (`winsorize`)
    assert cover.shape == (5, 5)
    assert fitted.modelled == table.metrics
    with pytest.raises(SurrogateError, match="covariance between fidelities"):
        fitted.joint(table.weights[:2], objective, [fidelity, Fidelity("", 9_000_000, 10**8)])


def test_another_size_cannot_be_told_from_one() -> None:
    with pytest.raises(SurrogateError, match="one size"):
        NestedLaws(fidelity=Fidelity("", 10**9, 10**7)).fit(example_table())


def test_other_tokens_cannot_be_told_without_curves() -> None:
    table = scaled([1e6, 3e6], [1e7, 1e8])
    ends = table.select((table.params == 1e6) | (table.tokens == 1e8))
    asked = Fidelity("", 3_000_000, 10**9)
    with pytest.raises(SurrogateError, match="learning curves"):
        NestedLaws(fidelity=asked).fit(ends)
