"""Any value that we keep as JSON is JSON, also where a number could not be measured."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixopt.io.json_values import finite

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_whatever_is_given_can_be_written_and_read_back(value: object) -> None:
    clean = finite(value)
    assert json.loads(json.dumps(clean, allow_nan=False)) == clean


def test_numbers_that_json_lacks_become_null() -> None:
    assert finite([math.nan, math.inf, -math.inf, 1.5]) == [None, None, None, 1.5]


def test_arrays_become_lists_and_their_scalars_numbers() -> None:
    values = {"a": np.array([[1.0, np.nan]]), "b": np.float32(0.5), "c": np.int64(3)}
    assert finite(values) == {"a": [[1.0, None]], "b": 0.5, "c": 3}
