"""A gain is told as tokens: by curves of which the true multiplier is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from mixopt.selection.multiplier import EXPONENT, FARTHEST, SPREAD, Multiplier, multiplier

TOKENS = 1000
STUDIES = 200
FALL = 0.3  # of the baseline, from 40 % of its tokens to the end


def law(tokens: float, alpha: float) -> float:
    """The baseline's objective after a whole training of so many tokens."""
    return 2 + FALL / (0.4**-alpha - 1) * (tokens / TOKENS) ** -alpha


def simulated(
    rng: np.random.Generator, times: float, alpha: float, *, seeds: int = 3, decay: float = 0.0
) -> tuple[list[dict[int, float]], tuple[float, float]]:
    """The baseline's curves, and the 90 % interval of what `times` the tokens are worth.

    `decay` is what a run gains by the decay of its learning rate over its last 30 %.
    """
    curves = []
    for _ in range(seeds):
        shift = rng.normal(0, 0.01)  # a seed moves its whole curve
        held_back = {
            t: decay * min(1, (TOKENS - t) / (0.3 * TOKENS)) for t in range(200, 1001, 200)
        }
        curves.append(
            {t: law(t, alpha) + shift + rng.normal(0, 0.004) + h for t, h in held_back.items()}
        )
    gains = law(times * TOKENS, alpha) - law(TOKENS, alpha) + rng.normal(0, 0.01, seeds)
    half = student.ppf(0.95, seeds - 1) * gains.std(ddof=1) / math.sqrt(seeds)
    return curves, (gains.mean() - half, gains.mean() + half)


def holds(found: Multiplier, times: float) -> bool:
    low, high = found.low, found.high
    return low is not None and low <= times and (high is None or times <= high)


@pytest.mark.parametrize("times", [1.2, 1.5, 2.0])
@pytest.mark.parametrize("seeds", [3, 6])
def test_the_interval_holds_the_true_multiplier(times: float, seeds: int) -> None:
    rng = np.random.default_rng(round(10 * times) + seeds)
    held, values = [], []
    for _ in range(STUDIES):
        alpha = EXPONENT * math.exp(SPREAD * rng.standard_normal())
        found = multiplier(*_at(simulated(rng, times, alpha, seeds=seeds)), lower_bound=False)
        held.append(holds(found, times))
        values.append(found.value or math.inf)
    assert np.mean(held) >= 0.87
    assert np.median(values) == pytest.approx(times, rel=0.1)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_it_does_so_at_each_usual_exponent(alpha: float) -> None:
    rng = np.random.default_rng(1)
    found = [
        multiplier(*_at(simulated(rng, 1.5, alpha)), lower_bound=False) for _ in range(STUDIES)
    ]
    assert np.mean([holds(it, 1.5) for it in found]) >= 0.87


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("times", [1.2, 2.0])
def test_curves_of_decaying_rates_give_a_lower_bound(alpha: float, times: float) -> None:
    rng = np.random.default_rng(2)
    found = [
        multiplier(*_at(simulated(rng, times, alpha, decay=0.1)), lower_bound=True)
        for _ in range(STUDIES)
    ]
    assert np.mean([it.low is not None and it.low <= times for it in found]) >= 0.95
    assert np.mean([it.value is not None and it.value <= times for it in found]) >= 0.9


def test_ends_of_runs_of_several_lengths_give_an_estimate() -> None:
    ends = [{500: law(500, 0.5) + s, 1000: law(1000, 0.5) + s} for s in (0.0, 0.01, -0.01)]
    gain = law(1500, 0.5) - law(1000, 0.5)
    found = multiplier(ends, TOKENS, (gain, gain), lower_bound=False, fewest=2)
    assert found.value == pytest.approx(1.5, rel=0.03)
    assert not found.lower_bound


def _at(
    drawn: tuple[list[dict[int, float]], tuple[float, float]],
) -> tuple[list[dict[int, float]], int, tuple[float, float]]:
    return drawn[0], TOKENS, drawn[1]


CURVE = {t: law(t, 0.5) for t in range(200, 1001, 200)}


@pytest.mark.parametrize(
    ("curves", "difference", "reason"),
    [
        ([], (-0.1, -0.05), "fewer than two seeds of the baseline have a learning curve"),
        ([CURVE], (-0.1, -0.05), "fewer than two seeds"),
        ([CURVE, {500: 2.5}], (-0.1, -0.05), "fewer than two seeds"),  # pruned before its end
        ([{500: 2.5, 1000: 2.3}] * 2, (-0.1, -0.05), "2 of 3 evaluations needed in the last 60%"),
        ([{200: 9.0, 800: 2.5, 1000: 2.3}] * 2, (-0.1, -0.05), "2 of 3 evaluations"),
        ([dict.fromkeys(CURVE, 2.0)] * 2, (-0.1, -0.05), "not seen to fall"),
        ([CURVE, {t: 5 - y for t, y in CURVE.items()}], (-0.1, -0.05), "not seen to fall"),
        ([CURVE] * 3, (-9.0, -8.0), "or than the baseline's curve will ever reach"),
    ],
)
def test_what_cannot_be_known_is_no_number(
    curves: list[dict[int, float]], difference: tuple[float, float], reason: str
) -> None:
    found = multiplier(curves, TOKENS, difference, lower_bound=True)
    assert found.value is None
    assert reason in found.reason


def test_an_end_beyond_the_asymptote_is_left_open() -> None:
    reached = law(2 * TOKENS, 0.5) - law(TOKENS, 0.5)
    found = multiplier([CURVE] * 3, TOKENS, (3 * reached, 0.0), lower_bound=False)
    assert found.value is not None
    assert found.low is not None
    assert found.low <= 1.05 <= found.value < FARTHEST
    assert found.high is None


def test_it_is_the_same_each_time_and_comes_back_from_json() -> None:
    found = multiplier([CURVE] * 2, TOKENS, (-0.1, -0.05), lower_bound=True)
    assert multiplier([CURVE] * 2, TOKENS, (-0.1, -0.05), lower_bound=True) == found
    assert Multiplier.from_json(found.to_json()) == found
