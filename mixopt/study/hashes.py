"""Short hashes of settings: identities of trainings, looks and promotions."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(settings: Any) -> str:
    """Short hash of JSON-able settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
