"""Counts as people write them: `600k`, `1.5M`, `20B`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def parse_count(text: str) -> float | None:
    """A count such as `600k`, `60M`, `1.5B`, `1e9`, `6_000`, `6,000`; None for other text.

    >>> parse_count("1.5B"), parse_count("6,000"), parse_count("large")
    (1500000000.0, 6000.0, None)
    """
    text = text.strip().lower()
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+", text):
        text = text.replace(",", "")
    found = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]*)?(?:e\+?[0-9]+)?)\s*([kmbgt]?)", text)
    if not found:
        return None
    value = float(found[1].replace("_", "")) * SUFFIXES[found[2]]
    return float(round(value)) if math.isfinite(value) else None


def parse_tokens(value: Any) -> Any:
    """A token count: text such as `600k`, `1.5M`, `20B`, `6_000` as a number; else as it is.

    Raises:
        ValueError: the text is no count.

    >>> parse_tokens("600k"), parse_tokens(600_000)
    (600000, 600000)
    """
    if not isinstance(value, str):
        return value
    count = parse_count(value)
    if count is None:
        raise ValueError(f"{value!r} is not a finite token count; write 600000, 600k, 1.5M or 20B")
    return int(count)


def with_token_counts(keys: Mapping[str, Any]) -> dict[str, Any]:
    """`keys` with what ends in `_tokens` as numbers.

    Raises:
        ValueError: one is no count.

    >>> with_token_counts({"evaluations": 5, "curve_tokens": "4k"})
    {'evaluations': 5, 'curve_tokens': 4000}
    """
    return {
        key: parse_tokens(value) if key.endswith("_tokens") else value
        for key, value in keys.items()
    }
