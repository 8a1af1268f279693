"""D-optimal choice: nearly as good as trying every subset, where that is possible."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt.search.exchange import RIDGE, d_optimal


def log_determinant(rows: np.ndarray, fixed: np.ndarray | None = None) -> float:
    known = rows if fixed is None else np.concatenate([fixed, rows])
    return float(np.linalg.slogdet(known.T @ known + RIDGE * np.eye(rows.shape[1]))[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_it_is_near_the_best_of_all_subsets_and_never_worse_than_most(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    candidates, fixed = rng.normal(size=(10, 3)), rng.normal(size=(2, 3))
    chosen = d_optimal(candidates, n, fixed)
    assert len(set(chosen.tolist())) == n
    every = [log_determinant(candidates[list(rows)], fixed) for rows in combinations(range(10), n)]
    reached = log_determinant(candidates[chosen], fixed)
    assert reached > max(every) - 0.35  # exchange ends in a local optimum now and then
    assert np.mean(np.array(every) > reached + 1e-9) < 0.05


def test_no_single_exchange_would_make_it_better() -> None:
    candidates = np.random.default_rng(1).normal(size=(40, 4))
    chosen = d_optimal(candidates, 6)
    reached = log_determinant(candidates[chosen])
    for i in range(6):
        for j in set(range(40)) - set(chosen.tolist()):
            other = chosen.copy()
            other[i] = j
            assert log_determinant(candidates[other]) <= reached + 1e-4


def test_what_is_there_already_is_not_asked_for_again() -> None:
    corners = np.eye(3)
    assert d_optimal(corners, 1, fixed=corners[[0, 2]]).tolist() == [1]


def test_fewer_points_than_features_are_chosen_apart() -> None:
    candidates = np.concatenate([np.eye(5), 0.9 * np.eye(5)[:2]])
    assert sorted(d_optimal(candidates, 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [0, 3, 9])
def test_it_never_chooses_more_than_there_is(n: int) -> None:
    chosen = d_optimal(np.random.default_rng(0).normal(size=(3, 2)), n)
    assert len(chosen) == min(n, 3)
