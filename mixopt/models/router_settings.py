"""Settings of each router, and what it and its experts weigh: no torch, so that files read fast.

A router that is a class of your own names its settings by `Router.settings_class`; those that come
with mixopt are in `SETTINGS`. Counts are of the weights of one layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mixopt.errors import StudyError

if TYPE_CHECKING:
    from mixopt.models.config import ModelConfig


@dataclass(frozen=True)
class RouterSettings:
    """No settings: one matrix (D, E), and k of E SwiGLU experts of width F for every token.

    A subclass adds fields with defaults, and says what differs in size.
    """

    plain_experts: ClassVar[bool] = True  # E SwiGLUs of (D, F): what upcycling can fill

    def check(self, config: ModelConfig) -> None:
        """Refuse a shape that does not go with these settings.

        Raises:
            StudyError: naming the setting.
        """

    def unit_gates(self, config: ModelConfig) -> bool:
        """Whether a token's gates always sum to 1."""
        return config.renormalize and config.experts_per_token > 1

    def router_weights(self, config: ModelConfig) -> int:
        """Weights of the router, frozen ones included."""
        return config.width * config.experts

    def reached_router_weights(self, config: ModelConfig) -> int:
        """Those of them that one token reaches."""
        return self.router_weights(config)

    def expert_weights(self, config: ModelConfig) -> int:
        """Weights of all routed experts."""
        return config.experts * config.weights_per_expert

    def reached_expert_weights(self, config: ModelConfig) -> float:
        """Those of them that one token reaches, on average where their number varies."""
        return config.experts_per_token * config.weights_per_expert


@dataclass(frozen=True)
class PlainGates(RouterSettings):
    """No settings; the gates are the scores themselves, whatever `renormalize` says."""

    def unit_gates(self, config: ModelConfig) -> bool:
        """Never."""
        return False


SETTINGS: Mapping[str, type[RouterSettings]] = {"softmax": RouterSettings}


def build_settings(kind: type[RouterSettings], values: Mapping[str, Any]) -> RouterSettings:
    """The settings that `values` of a study file give.

    Raises:
        StudyError: a key that there is not, or a value of another type or out of range.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    taken: dict[str, Any] = {}
    for key, value in values.items():
        where = f"router_settings.{key}"
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise StudyError(
                "this router has no such setting", where=where, mend=f"It has: {names}"
            )
        taken[key] = _as(type(fields[key]), value, where)
    return kind(**taken)


def _as(kind: type, value: Any, where: str) -> Any:
    """`value` if it is a `kind`; whole numbers stand for decimal ones, lists for tuples."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is tuple and fits:
        fits = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if kind is float and fits:
        fits = math.isfinite(value)
    if not fits:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        said = words.get(kind, "a list of whole numbers")
        raise StudyError(f"must be {said}, is {value!r}", where=where)
    return value


def _require(holds: bool, name: str, said: str, value: object, mend: str = "") -> None:
    """Refuse the setting `name` unless `holds`."""
    if not holds:
        raise StudyError(f"must be {said}, is {value}", where=f"router_settings.{name}", mend=mend)
