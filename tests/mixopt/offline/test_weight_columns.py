"""A column is a weight where rows need it to sum to 1, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.offline.sheets import Sheet
from mixopt.offline.weight_columns import weight_columns

WEIGHTS = {
    "web": [0.5, 0.25, 0.125, 0.3, 1.0],
    "code": [0.25, 0.5, 0.125, 0.3, 0.0],
    "wiki": [0.25, 0.25, 0.75, 0.4, 0.0],
}


def kept(columns: dict[str, list[float]], hyperparameters: tuple[str, ...] = ()) -> list[str]:
    cells = {name: [repr(value) for value in values] for name, values in columns.items()}
    rows = len(next(iter(cells.values())))
    sheet = Sheet(Path("R.csv"), tuple(cells), cells, list(range(2, rows + 2)))
    return weight_columns(sheet, list(columns), hyperparameters)


@pytest.mark.parametrize(
    "others",
    [
        {"alpha": [3e-4] * 5},
        {"alpha": [6e-4, 3e-4, 1e-3, 2e-4, 6e-4]},
        {"alpha": [3e-4] * 5, "beta": [0.01] * 5},
        {"tau": [0.1] * 5},
        {"total": [1.0] * 5},
        {"batch": [512.0, 256.0, 512.0, 512.0, 256.0], "alpha": [3e-4] * 5},
        {"log_alpha": [-7.0, -8.0, -7.0, -7.5, -8.0]},
        {"loss": [3.1, 3.2, 2.9, 3.0, 2.8]},
        {"bpb": [0.9, 0.8, 0.85, 0.95, 0.9]},
    ],
    ids=lambda others: ", ".join(others),
)
@pytest.mark.parametrize("total", [1, 100])
def test_a_column_without_which_rows_sum_more_exactly_is_left_out(
    others: dict[str, list[float]], total: int
) -> None:
    if total == 100 and "total" in others:
        others = {"total": [100.0] * 5}
    scaled = {name: [total * weight for weight in row] for name, row in WEIGHTS.items()}
    assert kept(scaled | others) == list(WEIGHTS)


def test_a_small_domain_that_rows_need_stays() -> None:
    rest = [0.5 - 3e-4, 0.25 - 3e-4, 0.125 - 3e-4, 0.3 - 3e-4, 1 - 3e-4]
    columns = WEIGHTS | {"web": rest, "lr": [3e-4] * 5}
    assert kept(columns, ("lr",)) == list(columns)


def test_named_hyperparameters_are_told_under_coarse_rounding() -> None:
    rounded = WEIGHTS | {"web": [0.5, 0.251, 0.125, 0.3, 1.0], "lr": [6e-4, 3e-4, 6e-4, 3e-4, 6e-4]}
    assert kept(rounded, ("lr",)) == list(WEIGHTS)


def test_phases_are_not_taken_for_other_columns() -> None:
    phases = {f"{name}_{phase}": row for phase in (0, 1) for name, row in WEIGHTS.items()}
    assert kept(phases) == list(phases)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(3, 40),
    m=st.integers(2, 20),
    decimals=st.integers(2, 5),
    concentration=st.floats(0.03, 3),
)
def test_rounding_costs_no_domain(
    seed: int, n: int, m: int, decimals: int, concentration: float
) -> None:
    rng = np.random.default_rng(seed)
    base = 10.0 ** rng.uniform(-2.5, 0, m)
    weights = rng.dirichlet(concentration * base / base.mean(), n).round(decimals)
    columns = {f"d{j}": column for j, column in enumerate(weights.T.tolist())}
    assert kept(columns) == list(columns)
