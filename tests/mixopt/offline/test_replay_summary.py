"""Many replays in few numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixopt.offline.replay import Point, Replay
from mixopt.offline.replay_summary import cost_grid, curve, summary


def made(seed: int, trained: list[float], until: float | None) -> Replay:
    """A replay at costs 1, 2, …, recommending .5 more than it trained, at every second run."""
    points = tuple(
        Point(float(k + 1), k + 1, regret, regret + 0.5 if k % 2 else math.nan)
        for k, regret in enumerate(trained)
    )
    return Replay("made", seed, points, until, 0, 0, tuple(range(len(trained))), seed, False)


def test_a_summary_is_the_mean_over_seeds_with_its_error() -> None:
    result = summary([made(0, [3, 1], 2.0), made(1, [2, 2], None), made(2, [4, 0], 1.0)])
    assert result.trained == 1
    assert result.trained_error == pytest.approx(np.std([1, 2, 0], ddof=1) / math.sqrt(3))
    assert result.recommended == 1.5
    assert (result.found, result.until_best, result.until_best_median) == (2 / 3, None, 2.0)
    assert (result.cost, result.runs, result.drawn, result.emptied) == (2, 2, 1, 0)
    found = summary([made(0, [3, 1], 2.0), made(1, [2, 2], 1.0)])
    assert (found.found, found.until_best, found.until_best_median) == (1, 1.5, 1.5)
    assert summary([made(0, [1, 1], 2.0), made(1, [1, 1], None)]).until_best_median is None


def test_curves_hold_the_last_known_regret_at_every_cost() -> None:
    replays = [made(0, [3, 1, 1, 0], 4.0), made(1, [2, 2], None)]
    cost = cost_grid(replays)
    assert cost.tolist() == [1, 2, 3, 4]
    trained = curve(replays, "trained", cost)
    assert trained.mean.tolist() == [2.5, 1.5, 1.5, 1]
    assert trained.low.tolist() == [2.25, 1.25, 1.25, 0.5]
    recommended = curve(replays, "recommended", cost)
    assert recommended.seeds.tolist() == [0, 2, 2, 2]
    assert np.isnan(recommended.mean[0])
    assert recommended.median[1:].tolist() == [2.0, 2.0, 1.5]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    cost = cost_grid([made(0, list(np.linspace(1, 0, 1000)), None)])
    assert len(cost) == 200
    assert (cost[0], cost[-1]) == (1, 1000)
