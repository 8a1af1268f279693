"""An interval holds what runs with fresh seeds give, though a search's trials share one seed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from mixopt import surrogates
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Cost, Fidelity, Role, State, Trial, TrialResult, TrialSpec
from mixopt.surrogates.noise import (
    Forecast,
    SeedScatter,
    pair_scatter,
    seed_scatter,
    seed_scatter_of,
)

DOMAINS = ("a", "b", "c")
SMALL, LARGE = Fidelity("small", 10, 100), Fidelity("large", 100, 100)
OBJECTIVE = Objective({"m": 1.0})
SCATTER = 0.05  # of a run over seeds in the generated world; mixtures differ by about .3


def trial(
    weights: np.ndarray,
    seed: int,
    value: float,
    fidelity: Fidelity = SMALL,
    role: Role = Role.SEARCH,
) -> Trial:
    spec = TrialSpec(Mixture.from_array(DOMAINS, weights), fidelity, seed, role)
    return Trial(0, spec, State.COMPLETE, TrialResult({"bpb/m": value}, (), Cost()))


def scatter_of(trials: list[Trial]) -> SeedScatter | None:
    return seed_scatter_of(trials, OBJECTIVE, SMALL)


def test_variances_are_pooled_over_mixtures_as_the_textbook_does() -> None:
    one, other = {0: 1.0, 1: 1.2}, {5: 3.0, 6: 3.1, 7: 3.5}
    result = seed_scatter([one, other, {0: 9.0}])
    assert result is not None
    pooled = (np.var([1.0, 1.2], ddof=1) + 2 * np.var([3.0, 3.1, 3.5], ddof=1)) / 3
    assert result.std == pytest.approx(math.sqrt(pooled))
    assert result.runs == 5
    assert result.freedom == 3  # no seed in common: nothing is told twice


def test_mixtures_that_scatter_as_one_tell_as_much_as_one() -> None:
    near = [{s: v + shift for s, v in enumerate([2.0, 2.1, 1.8, 2.3])} for shift in (0, 1, 5)]
    result, alone = seed_scatter(near), seed_scatter(near[:1])
    assert result is not None
    assert alone is not None
    assert (result.std, result.freedom) == (pytest.approx(alone.std), pytest.approx(3))


@pytest.mark.parametrize("tied", [0.0, 0.8, 1.0])
def test_degrees_of_freedom_are_those_of_a_variance_that_scatters_as_much(tied: float) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1500):
        common = rng.normal(size=12)
        values = math.sqrt(tied) * common + math.sqrt(1 - tied) * rng.normal(size=(3, 12))
        found.append(seed_scatter([dict(enumerate(row)) for row in values[:, :].tolist()]))
    variances = [result.std**2 for result in found if result]
    expected = 2 * np.mean(variances) ** 2 / np.var(variances)
    assert np.median([result.freedom for result in found if result]) == pytest.approx(
        expected, rel=0.15
    )


def test_without_repeats_nothing_is_known() -> None:
    assert seed_scatter([]) is None
    assert seed_scatter([{0: 1.0}, {0: 2.0}]) is None


def test_only_runs_of_one_mixture_and_fidelity_are_repeats() -> None:
    middle, corner = np.full(3, 1 / 3), np.array([1.0, 0.0, 0.0])
    runs = [trial(middle, 0, 1.0), trial(corner, 1, 2.0), trial(middle, 2, 5.0, LARGE)]
    assert scatter_of(runs) is None
    rounded = middle + np.array([1e-12, -1e-12, 0.0])  # as a projection leaves it
    result = scatter_of([*runs, trial(rounded, 3, 1.2)])
    assert result is not None
    assert result.std == pytest.approx(0.2 / math.sqrt(2))


def test_how_far_fresh_runs_lie_from_the_searchs_is_no_scatter() -> None:
    middle = np.full(3, 1 / 3)
    fresh = [trial(middle, 1000 + s, v, role=Role.SELECT) for s, v in enumerate([2.0, 2.1, 2.2])]
    result = scatter_of([trial(middle, 0, 1.0), *fresh])
    assert result is not None
    assert result.std == pytest.approx(0.1)


def test_without_scatter_an_interval_is_for_this_seed_only() -> None:
    result = Forecast(3.0, 0.1)
    assert result.within() == result.within(runs=1) == result.this_seed
    assert result.this_seed == pytest.approx((3 - 0.16449, 3 + 0.16449))


def test_the_interval_of_many_repeats_is_the_normal_one() -> None:
    known = SeedScatter(0.4, 1e6, 10**6)
    half = 1.6449 * np.array([math.sqrt(0.3**2 + 0.4**2), math.sqrt(0.3**2 + 2 * 0.4**2)])
    result = Forecast(0.0, 0.3, scatter=known)
    assert [result.within()[1], result.within(runs=1)[1]] == pytest.approx(half, rel=1e-4)
    # a mixture that was itself run with four seeds hides the error of their mean alone
    four = Forecast(0.0, 0.3, seeds=4, scatter=known)
    assert four.within()[1] == pytest.approx(1.6449 * math.sqrt(0.3**2 + 0.2**2), rel=1e-4)


def test_few_repeats_make_the_interval_wide() -> None:
    wide, narrow = (Forecast(0.0, 0.0, scatter=SeedScatter(1.0, d, 2)).within()[1] for d in (1, 9))
    assert (wide, narrow) == (pytest.approx(6.3138, rel=1e-4), pytest.approx(1.8331, rel=1e-4))


def seed_error(rng: np.random.Generator, length: float) -> Callable[[np.ndarray], float]:
    """What a seed adds: a random function of √w with deviation `SCATTER`; the same if infinite."""
    if math.isinf(length):
        level = SCATTER * rng.normal()
        return lambda _: level
    waves, phases = rng.normal(size=(200, 3)) / length, rng.uniform(0, 2 * np.pi, 200)

    def error(weights: np.ndarray) -> float:
        return float(SCATTER * math.sqrt(2 / 200) * np.cos(waves @ np.sqrt(weights) + phases).sum())

    return error


def loss(weights: np.ndarray) -> float:
    return float(3.0 - 0.6 * np.sqrt(weights) @ np.array([0.2, 0.9, 0.4]))


def search_in_a_world(seed: int, length: float, repeats: int) -> list[bool]:
    """One search with one seed, and three fresh ones at natural and the mixture it picks.

    Returns:
        Whether the mean over all seeds lies in the interval of this seed, and in that of all by the
        search's repeats; whether the fresh mean lies in theirs, by all repeats.
    """
    rng = np.random.default_rng([seed, repeats])
    errors = [seed_error(rng, length) for _ in range(1 + repeats + 3)]

    def run(weights: np.ndarray, s: int) -> Trial:
        value = loss(weights) + errors[s](weights) + rng.normal(0, SCATTER / 5)
        role = Role.SELECT if s > repeats else Role.SEARCH
        return trial(weights, s, value, role=role)

    natural = np.full(3, 1 / 3)
    best = np.array([0.05, 0.8, 0.15])
    swarm = [natural, *rng.dirichlet(np.ones(3), 8), *rng.dirichlet(200 * best, 12)]
    searched = [run(weights, 0) for weights in swarm]
    searched += [run(natural, s) for s in range(1, 1 + repeats)]
    surrogate = surrogates.make("linear").fit(TrialTable.of(searched, OBJECTIVE.metrics))
    candidates = np.stack(swarm)
    mean, std = surrogate.predict(candidates).compose(OBJECTIVE)
    picked = int(np.argmin(mean + 0.5 * std))
    result = (float(mean[picked]), float(std[picked]))
    before = Forecast(*result, scatter=scatter_of(searched))
    fresh = [run(candidates[picked], s) for s in range(1 + repeats, 4 + repeats)]
    base = [run(natural, s) for s in range(1 + repeats, 4 + repeats)]
    after = Forecast(*result, scatter=scatter_of([*searched, *fresh, *base]))
    measured = float(np.mean([t.metrics["bpb/m"] for t in fresh]))
    return [
        low <= value <= high
        for value, (low, high) in (
            (loss(candidates[picked]), before.this_seed),
            (loss(candidates[picked]), before.within()),
            (measured, after.within(runs=3)),
        )
    ]


# Lengths over √w: seeds that move all mixtures alike, and such that let go of far ones as the
# demo's do (docs/decisions.md): half the variance of a difference is left .17 apart, all at .4.
@pytest.mark.parametrize(("length", "believed"), [(math.inf, 0.60), (0.2, 0.85)])
@pytest.mark.parametrize("repeats", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_intervals_hold_their_share_of_searches_with_one_seed(
    length: float, believed: float, repeats: int
) -> None:
    held = np.array([search_in_a_world(seed, length, repeats) for seed in range(200)])
    this_seed, before, after = held.mean(axis=0).tolist()
    assert this_seed < believed  # where .90 was said
    assert 0.88 < after < 0.985
    assert before == this_seed if not repeats else 0.88 < before < 0.985


def test_pairs_scatter_by_what_mixtures_and_seeds_leave() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3)) + np.array([0.0, 5.0, -3.0])
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    result = pair_scatter([dict(enumerate(row)) for row in values.tolist()])
    assert result is not None
    assert result.std == pytest.approx(math.sqrt((rest**2).sum() / 6))
    assert (result.freedom, result.runs) == (6, 12)
    # mixtures that were run once, and a seed that one mixture has alone, tell nothing
    more = [{0: 9.0}, {2: 1.0}, {7: 4.0}]
    alone = pair_scatter([*(dict(enumerate(row)) for row in values.tolist()), *more])
    assert alone is not None
    assert (alone.std, alone.freedom) == (pytest.approx(result.std), 6)


def test_without_two_mixtures_of_two_seeds_pairs_are_unknown() -> None:
    assert pair_scatter([]) is None
    assert pair_scatter([{0: 1.0, 1: 2.0, 2: 3.0}]) is None
    assert pair_scatter([{0: 1.0, 1: 2.0}, {2: 3.0, 3: 4.0}]) is None
