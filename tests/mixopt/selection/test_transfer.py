"""The order at a larger size counts as lost where noise does not explain that it differs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mixopt.core.trials import Fidelity
from mixopt.selection.transfer import LEVEL, Agreement, Scatter, Transfer, agreement

STUDIES = 200


def runs(
    rng: np.random.Generator, means: dict[str, float], std: float, seeds: int
) -> dict[str, dict[int, float]]:
    shift = rng.normal(0, 1, seeds)  # what a seed does to all mixtures alike
    return {
        name: {s: mean + shift[s] + rng.normal(0, std) for s in range(seeds)}
        for name, mean in means.items()
    }


def studies(gaps: Sequence[float], factor: float, seeds: int) -> list[Agreement]:
    """Simulated ones whose best candidate beat the baseline; larger differences are `factor`."""
    rng = np.random.default_rng([seeds, round(10 * factor) + 20])
    found = []
    while len(found) < STUDIES:
        means = {f"m{i}": gap for i, gap in enumerate(gaps)}
        small = runs(rng, means, 1.0, 3)
        order = sorted(small, key=lambda name: np.mean(list(small[name].values())))
        order.remove("m0")
        kept = ["m0", *order[:2]]
        if np.mean(list(small[kept[1]].values())) >= np.mean(list(small["m0"].values())):
            continue
        there = runs(rng, {name: factor * means[name] for name in kept}, 0.7, seeds)
        found.append(agreement({name: small[name] for name in kept}, there))
    return found


@pytest.mark.parametrize("gaps", [(0, -2, -1.5, -0.5), (0, -4, -3, -1), (0, -8, -4, -2)])
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_gains_that_carry_over_are_hardly_ever_stopped(
    gaps: Sequence[float], seeds: int, factor: float
) -> None:
    assert np.mean([not it.kept for it in studies(gaps, factor, seeds)]) <= 2 * LEVEL


@pytest.mark.parametrize(
    ("gaps", "seeds", "least"), [((0, -4, -3, -1), 2, 0.8), ((0, -8, -4, -2), 1, 0.95)]
)
def test_gains_that_turn_into_losses_are_stopped(
    gaps: Sequence[float], seeds: int, least: float
) -> None:
    assert np.mean([not it.kept for it in studies(gaps, -1.0, seeds)]) >= least


def test_where_noise_could_have_reversed_it_that_is_said() -> None:
    near = studies((0, -2, -1.5, -0.5), 1.0, 1)
    assert np.median([it.reversal for it in near]) > LEVEL
    far = studies((0, -8, -4, -2), 1.0, 2)
    assert np.median([it.reversal for it in far]) < LEVEL


def test_differences_are_paired_with_intervals_of_the_right_width() -> None:
    rng = np.random.default_rng(0)
    small = {"b": {0: 0.0, 1: 0.1}, "p": {0: -5.0, 1: -5.2}, "q": {0: -3.0, 1: -3.3}}
    held = []
    for _ in range(STUDIES):
        row = agreement(small, runs(rng, {"b": 0, "p": -1, "q": 0}, 0.5, 3)).rows[1]
        assert row.low is not None
        assert row.high is not None
        held.append(row.low <= -1 <= row.high)
    assert 0.84 <= np.mean(held) <= 0.96


def test_scatter_leaves_out_what_a_seed_does_to_all() -> None:
    rng = np.random.default_rng(1)
    found = Scatter.of(runs(rng, {"a": 0, "b": 5, "c": 9}, 0.2, 40))
    assert found.std == pytest.approx(0.2, rel=0.2)
    assert found.freedom == 2 * 39
    few = Scatter(0.1, 2)
    assert few.with_more(Scatter(0.2, 2)).std == pytest.approx(np.sqrt((0.01 + 0.04) / 2))
    assert few.with_more(Scatter(float("nan"), 0)) == few
    assert found.with_more(few) == found


def test_without_the_promoted_mixture_there_is_no_agreement() -> None:
    small = {"b": {0: 0.0, 1: 0.1}, "p": {0: -5.0, 1: -5.2}}
    found = agreement(small, {"b": {0: 1.0}, "p": {}})
    assert (found.correlation, found.kept) == (None, False)
    assert found.rows[1].mean is None
    once = agreement(small, {"b": {0: 1.0, 1: 1.1}, "p": {0: 0.0}})  # the other run diverged
    assert (once.correlation, once.kept) == (None, False)
    assert once.rows[1].difference == -1.0


def test_means_are_over_the_seeds_that_all_mixtures_share() -> None:
    small = {"b": {0: 0.0, 1: 0.1, 2: 9.0}, "p": {0: -5.0, 1: -5.2}}
    found = agreement(small, {"b": {0: 1.0, 1: 3.0}, "p": {0: 0.0, 1: 1.8}})
    assert found.rows[1].before == pytest.approx(-5.15)
    assert found.rows[1].difference == pytest.approx(-1.1)


def test_it_comes_back_from_json() -> None:
    rng = np.random.default_rng(2)
    means = {"b": 0.0, "p": -2.0, "q": -1.0}
    it = agreement(runs(rng, means, 0.3, 3), runs(rng, means, 0.3, 2))
    size = Fidelity("larger 1f", 1_000, 20_000)
    found = Transfer(
        "b",
        "p",
        "cd",
        size,
        2,
        it.rows,
        it.correlation,
        it.order_p,
        it.gain_p,
        it.kept,
        "holds",
        "ab",
    )
    assert Transfer.from_json(found.to_json()) == found
