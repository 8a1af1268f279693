"""The shape of a model, and the arithmetic of its size and cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mixopt.core.errors import StudyError
from mixopt.core.part_settings import build_settings
from mixopt.core.registry import check_name
from mixopt.models.routers import DEFAULT, ROUTERS
from mixopt.models.routers.settings import RouterSettings, settings_class


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder-only transformer whose feed-forward layers are mixtures of experts.

    With `experts == 1` every feed-forward layer is dense: no router, no balance loss.

    Attributes:
        width: model width D.
        layers: number of blocks.
        heads: attention heads; the head width is width / heads.
        experts: routed experts E per layer.
        experts_per_token: k, how many of them a token reaches; where a router lets the number vary,
            the average that it aims at or that plans count with.
        expert_width: hidden width F of one expert (SwiGLU).
        shared_experts: experts that every token reaches besides (DeepSeekMoE, 2401.06066).
        router: registry name (see docs/routers.md), or `package.module:Name` of your own.
        router_settings: settings of that router alone.
        renormalize: whether the k gates are divided by their sum, where the router leaves it open.
        balance: `global` counts assignments over the whole step (2501.11873), `micro` over each
            micro-batch (2101.03961).
        balance_coefficient: weight of the balance loss.
        z_coefficient: weight of the router z-loss (2202.08906).
        rope_theta: base of the rotary positions.
        tie_embeddings: whether the output head is the embedding.
        document_mask: whether a token attends to its own document alone where a sequence holds
            several (2402.13991), in evaluations too.
        vocab_size: tokens of the vocabulary; mixopt takes it from the corpus, and a study file that
            sets it is refused.
        end_of_text: id of the token between documents where they are masked; likewise.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    experts: int = 4
    experts_per_token: int = 2
    expert_width: int = 128
    shared_experts: int = 0
    router: str = DEFAULT
    router_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    renormalize: bool = True
    balance: Literal["global", "micro"] = "global"
    balance_coefficient: float = 0.01
    z_coefficient: float = 1e-3
    rope_theta: float = 10_000.0
    tie_embeddings: bool = True
    document_mask: bool = False
    vocab_size: int = 0
    end_of_text: int | None = None

    # read by pydantic when a study file holds this class; a plain dict needs no import
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "experts", "experts_per_token", "expert_width"):
            if getattr(self, name) < 1:
                raise StudyError(f"must be at least 1, is {getattr(self, name)}", where=name)
        for name in ("shared_experts", "balance_coefficient", "z_coefficient", "vocab_size"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise StudyError(f"must be at least 0 and finite, is {value}", where=name)
        if not 0 < self.rope_theta < math.inf:
            raise StudyError(
                f"must be above 0 and finite, is {self.rope_theta}", where="rope_theta"
            )
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise StudyError(
                f"width {self.width} does not split into {self.heads} heads of even width",
                where="heads",
                hint="Choose heads so that width / heads is an even whole number",
            )
        if self.experts_per_token > self.experts:
            raise StudyError(
                f"{self.experts_per_token} experts per token, but only {self.experts} experts",
                where="experts_per_token",
            )
        if self.balance not in ("global", "micro"):
            raise StudyError(f"must be global or micro, is {self.balance!r}", where="balance")
        check_name("router", self.router, ROUTERS, where="router")
        if not self.dense and (":" not in self.router or self.router_settings):
            self.settings.check(self)

    def of_text(self, vocab_size: int, end_of_text: int) -> ModelConfig:
        """The shape for a corpus' tokens; one that has a vocabulary keeps it."""
        return dataclasses.replace(
            self,
            vocab_size=self.vocab_size or vocab_size,
            end_of_text=end_of_text if self.document_mask else None,
        )

    def to_json(self) -> dict[str, Any]:
        """All fields; what came later is absent where it is unset, so that hashes stay."""
        values = dataclasses.asdict(self)
        if not self.document_mask:
            del values["document_mask"], values["end_of_text"]
        return values

    @property
    def settings(self) -> RouterSettings:
        """The router's settings.

        Raises:
            StudyError: there is no such router, or it has no such setting.
        """
        kind = settings_class(self.router)
        return build_settings(kind, self.router_settings, "router", "router_settings")

    @property
    def weights_per_expert(self) -> int:
        """Weights of one SwiGLU expert of width `expert_width`."""
        return 3 * self.width * self.expert_width

    def split_experts(self, granularity: int) -> ModelConfig:
        """Every expert cut into `granularity` finer ones, as many times more of them per token.

        Weights, also those that a token reaches, stay as many but for the router's (2401.06066).

        Raises:
            StudyError: the expert width does not divide so.
        """
        if granularity < 1 or self.expert_width % granularity:
            raise StudyError(
                f"{self.expert_width} does not split into {granularity} parts",
                where="expert_width",
            )
        return dataclasses.replace(
            self,
            experts=self.experts * granularity,
            experts_per_token=self.experts_per_token * granularity,
            expert_width=self.expert_width // granularity,
            shared_experts=self.shared_experts * granularity,
        )

    def as_dense(self) -> ModelConfig:
        """The dense shape whose feed-forward layers can become this model's experts."""
        return dataclasses.replace(self, experts=1, experts_per_token=1)

    @property
    def dense(self) -> bool:
        """Whether the feed-forward layers have a single expert and no router."""
        return self.experts == 1

    def active_params(self) -> int:
        """Parameters that one token reaches, embeddings and head not counted.

        An average where a router lets it vary: see `experts_per_token`.
        """
        if self.dense:
            return self._params(0, self.weights_per_expert)
        settings = self.settings
        return self._params(
            settings.reached_router_weights(self), settings.reached_expert_weights(self)
        )

    def total_params(self) -> int:
        """All parameters, embeddings and head not counted."""
        if self.dense:
            return self._params(0, self.weights_per_expert)
        return self._params(self.settings.router_weights(self), self.settings.expert_weights(self))

    def _params(self, router: float, experts: float) -> int:
        attention = 4 * self.width * self.width
        shared = self.shared_experts * self.weights_per_expert
        norms = 2 * self.width
        return round(self.layers * (attention + experts + shared + router + norms)) + self.width

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one token's forward pass; training costs three times that.

        Two per active weight, head included, and causal attention's two products over half of
        `sequence_length` keys on average.
        """
        head = self.width * self.vocab_size
        attention = self.layers * self.width * sequence_length
        return 2.0 * (self.active_params() + head + attention)
