"""The receipt of an upcycling: what a conversion did. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = 2  # of the receipt's fields


@dataclass(frozen=True)
class Seen:
    """What the two models computed on one sample.

    Attributes:
        counts: assignments to every expert, a row per layer.
        entropy: of a token's gates in nats, mean over tokens and layers.
        difference: largest absolute difference of the logits.
    """

    counts: Sequence[Sequence[float]]
    entropy: float
    difference: float


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

    def with_measures(self, seen: Mapping[str, Seen]) -> Receipt:
        """This receipt with what the two models computed on the samples, domain → seen."""
        loads: dict[str, tuple[float, ...]] = {}
        reached: set[tuple[int, int]] = set()
        everything: set[tuple[int, int]] = set()
        for domain, each in seen.items():
            columns = [sum(column) for column in zip(*each.counts, strict=True)]
            loads[domain] = tuple(count / max(1.0, sum(columns)) for count in columns)
            cells = {
                (layer, expert): count
                for layer, row in enumerate(each.counts)
                for expert, count in enumerate(row)
            }
            everything |= cells.keys()
            reached |= {cell for cell, count in cells.items() if count}
        return dataclasses.replace(
            self,
            logit_difference=max(each.difference for each in seen.values()),
            router_entropy={domain: each.entropy for domain, each in seen.items()},
            loads=loads,
            dead_experts=tuple(f"{layer}.{e}" for layer, e in sorted(everything - reached)),
        )

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
