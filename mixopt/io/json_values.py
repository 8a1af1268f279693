"""Values as JSON takes them: it has no NaN, no infinity and no arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def finite(value: Any) -> Any:
    """`value` with null for NaN and infinities, lists for sequences and arrays, texts for keys.

    Browsers, Polars and most parsers refuse the `NaN` that Python writes.

    >>> finite({"mean": float("nan"), "weights": np.array([0.25, 0.75]), 3: (1, "a")})
    {'mean': None, 'weights': [0.25, 0.75], '3': [1, 'a']}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return finite(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
