"""The receipt of an upcycling: what a conversion did. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 2  # of the receipt's fields


@dataclass(frozen=True)
class Receipt:
    """What a conversion did.

    Attributes:
        method: registry name of the upcycler.
        experts: where each expert came from, in order.
        channels_kept: share of the experts' hidden channels that a source model holds unchanged,
            but for a scale.
        preserves_function: whether the method should leave the seed's logits as they are.
        merge: registry name of what merged the rest; empty where it is the seed's.
        router: registry name of what the routers started from.
        logit_difference: largest absolute difference to the seed model's logits on the samples;
            None without samples.
        router_entropy: domain → entropy of a token's gates in nats, mean over tokens and layers.
        loads: domain → share of assignments per expert, mean over layers; sums to 1.
        dead_experts: `layer.expert` of those that no token of any sample reached.
        notes: what was not carried over, and what to know of the format, a line each.
        version: of this record's fields.
    """

    method: str
    experts: tuple[str, ...]
    channels_kept: float
    preserves_function: bool = False
    merge: str = ""
    router: str = "random"
    logit_difference: float | None = None
    router_entropy: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    dead_experts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """The receipt as JSON-able values; `from_json` gives it back exactly."""
        values = dataclasses.asdict(self)
        lists = {name: list(values[name]) for name in ("experts", "dead_experts", "notes")}
        loads = {domain: list(shares) for domain, shares in self.loads.items()}
        return {**values, **lists, "loads": loads}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Receipt:
        """The receipt that `to_json` described.

        Raises:
            ValueError: its fields are those of another version.
            TypeError, AttributeError: its values are of another shape.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if values.keys() != fields or values["version"] != VERSION:
            raise ValueError(f"this is no receipt of version {VERSION}")
        tuples = {name: tuple(values[name]) for name in ("experts", "dead_experts", "notes")}
        loads = {domain: tuple(shares) for domain, shares in values["loads"].items()}
        return cls(**{**values, **tuples, "loads": loads})
