"""What the settings of every router share, and what a layer of it weighs. Needs no torch.

A router's own settings stand beside its class; counts are of the weights of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from mixopt.core.errors import StudyError
from mixopt.core.registry import resolve
from mixopt.models.routers import DEFAULT, ROUTERS


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


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Refuse the setting `name` unless `holds`.

    Raises:
        StudyError: naming the setting, what was expected and its value.
    """
    if not holds:
        raise StudyError(f"must be {expected}, is {value}", where=f"router_settings.{name}")
