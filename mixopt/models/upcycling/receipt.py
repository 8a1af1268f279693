"""The receipt of an upcycling: what a conversion did. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1  # of the receipt's fields


@dataclass(frozen=True)
class Receipt:
    """What a conversion did.

    Attributes:
        method: the upcycler's class name.
        experts: where each expert came from, in order.
        channels_kept: share of the experts' hidden channels that a source model holds unchanged.
        logit_difference: largest absolute difference to the seed model's logits on the samples,
            where the method should preserve the function; None where it should not, or no sample
            was given.
        router_entropy: domain → entropy of a token's gates in nats, mean over tokens and layers.
        loads: domain → share of assignments per expert, mean over layers; sums to 1.
        version: of this record's fields.
    """

    method: str
    experts: tuple[str, ...]
    channels_kept: float
    logit_difference: float | None = None
    router_entropy: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """The receipt as JSON-able values; `from_json` gives it back exactly."""
        values = dataclasses.asdict(self)
        loads = {domain: list(shares) for domain, shares in self.loads.items()}
        return {**values, "experts": list(self.experts), "loads": loads}

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
        loads = {domain: tuple(shares) for domain, shares in values["loads"].items()}
        return cls(**{**values, "experts": tuple(values["experts"]), "loads": loads})
