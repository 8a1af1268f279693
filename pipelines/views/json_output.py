"""What `--json` prints, the same way for every command: one object, without NaN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mixopt.io.json_values import finite


def json_text(values: Mapping[str, Any], indent: int | None = 1) -> str:
    """`values` as a JSON object; NaN and infinities are null.

    >>> json_text({"mean": float("nan"), "domains": ("web", "code")}, indent=None)
    '{"mean": null, "domains": ["web", "code"]}'
    """
    return json.dumps(finite(values), indent=indent, ensure_ascii=False, allow_nan=False)


def print_json(values: Mapping[str, Any]) -> None:
    """Print `values` as one JSON object on stdout."""
    print(json_text(values))
