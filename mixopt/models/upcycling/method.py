"""An upcycling by the names and settings of its parts, as files and workers hold it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """How dense models become one mixture of experts. All values are JSON-able.

    Attributes:
        upcycler: registry name, or `package.module:Name`.
        settings: of the upcycler.
        merge: registry name of what merges what is no expert, where the upcycler merges.
        merge_settings: of the merge.
        router_start: registry name of what the routers start from.
        router_start_settings: of it.
    """

    upcycler: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    merge: str = "average"
    merge_settings: Mapping[str, Any] = field(default_factory=dict)
    router_start: str = "random"
    router_start_settings: Mapping[str, Any] = field(default_factory=dict)
