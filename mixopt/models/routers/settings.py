"""What the settings of every router share, and what a layer of it weighs. Needs no torch.

A router's own settings stand beside its class; counts are of the weights of one layer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mixopt.core.errors import StudyError
from mixopt.core.registry import resolve
from mixopt.models.routers import DEFAULT, ROUTERS

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Shape(Protocol):
    """The numbers of a `ModelConfig` that settings read."""

    @property
    def width(self) -> int:
        """Model width D."""

    @property
    def layers(self) -> int:
        """Number of blocks."""

    @property
    def experts(self) -> int:
        """Routed experts E of a layer."""

    @property
    def experts_per_token(self) -> int:
        """Experts k of a token."""

    @property
    def expert_width(self) -> int:
        """Hidden width F of an expert."""

    @property
    def renormalize(self) -> bool:
        """Whether gates are divided by their sum, where the router leaves it open."""

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""

    @property
    def weights_per_expert(self) -> int:
        """Weights of one SwiGLU expert of width F."""


@dataclass(frozen=True)
class RouterSettings:
    """No settings: one matrix (D, E), and k of E SwiGLU experts of width F for every token.

    A subclass adds fields with defaults, and says what differs in size.
    """

    plain_experts: ClassVar[bool] = True  # E SwiGLUs of (D, F): what upcycling can fill

    def check(self, config: Shape) -> None:
        """Refuse a shape that does not go with these settings.

        Raises:
            StudyError: naming the setting.
        """

    def unit_gates(self, config: Shape) -> bool:
        """Whether a token's gates always sum to 1."""
        return config.renormalize and config.experts_per_token > 1

    def router_weights(self, config: Shape) -> float:
        """Weights of the router, frozen ones included."""
        return config.width * config.experts

    def reached_router_weights(self, config: Shape) -> float:
        """Those of them that one token reaches."""
        return self.router_weights(config)

    def expert_weights(self, config: Shape) -> int:
        """Weights of all routed experts."""
        return config.experts * config.weights_per_expert

    def reached_expert_weights(self, config: Shape) -> float:
        """Those of them that one token reaches, on average where their number varies."""
        return config.experts_per_token * config.weights_per_expert


@dataclass(frozen=True)
class PlainGates(RouterSettings):
    """No settings; the gates are the scores themselves, whatever `renormalize` says."""

    def unit_gates(self, config: Shape) -> bool:
        """Never."""
        return False


def settings_class(router: str) -> type[RouterSettings]:
    """The class of the settings of that router; imports it (and torch) unless it is the default.

    Args:
        router: registry name, or `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `Router`.
    """
    if router == DEFAULT:
        return RouterSettings
    found = resolve("router", router, ROUTERS, object)
    kind = getattr(found, "settings_class", None)
    if not (isinstance(kind, type) and issubclass(kind, RouterSettings)):
        raise StudyError(f"router {router!r} is not a Router", where="router")
    return kind


def build_settings(kind: type[RouterSettings], values: Mapping[str, Any]) -> RouterSettings:
    """The settings that `values` of a study file give.

    Raises:
        StudyError: a key that there is not, or a value of another type or out of range.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    converted: dict[str, Any] = {}
    for key, value in values.items():
        where = f"router_settings.{key}"
        if key not in fields:
            names = ", ".join(fields) or "none"
            raise StudyError(
                "this router has no such setting", where=where, hint=f"It has: {names}"
            )
        converted[key] = _as(type(fields[key]), value, where)
    return kind(**converted)


def _as(kind: type, value: Any, where: str) -> Any:
    """`value` if it is a `kind`; whole numbers stand for decimal ones, lists for tuples.

    YAML reads 1e-3 as text.
    """
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
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
        expected = TYPE_NAMES.get(kind, "a list of whole numbers")
        raise StudyError(f"must be {expected}, is {value!r}", where=where)
    return value


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Refuse the setting `name` unless `holds`.

    Raises:
        StudyError: naming the setting, what was expected and its value.
    """
    if not holds:
        raise StudyError(f"must be {expected}, is {value}", where=f"router_settings.{name}")
