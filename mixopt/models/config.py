"""The shape of a model, and the arithmetic of its size and cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from mixopt.errors import StudyError


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder-only transformer whose feed-forward layers are mixtures of experts.

    With `experts == 1` every feed-forward layer is dense: no router, no balance loss.

    Attributes:
        width: model width D.
        layers: number of blocks.
        heads: attention heads; the head width is width / heads.
        experts: routed experts E per layer.
        experts_per_token: k, how many of them a token reaches.
        expert_width: hidden width F of one expert (SwiGLU).
        shared_experts: experts that every token reaches besides (DeepSeekMoE, 2401.06066).
        router: registry name, or `package.module:Name` of your own.
        renormalize: whether the k gates are divided by their sum.
        balance_coefficient: weight of the global-batch balance loss (2501.11873).
        z_coefficient: weight of the router z-loss (2202.08906).
        rope_theta: base of the rotary positions.
        tie_embeddings: whether the output head is the embedding.
        vocab_size: 0 takes it from the corpus.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    experts: int = 4
    experts_per_token: int = 2
    expert_width: int = 128
    shared_experts: int = 0
    router: str = "softmax"
    renormalize: bool = True
    balance_coefficient: float = 0.01
    z_coefficient: float = 1e-3
    rope_theta: float = 10_000.0
    tie_embeddings: bool = True
    vocab_size: int = 0

    # read by pydantic when a study file holds this class; a plain dict needs no import
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "experts", "experts_per_token", "expert_width"):
            if getattr(self, name) < 1:
                raise StudyError(f"must be at least 1, is {getattr(self, name)}", where=name)
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise StudyError(
                f"width {self.width} does not split into {self.heads} heads of even width",
                where="heads",
                mend="Choose heads so that width / heads is an even whole number",
            )
        if self.experts_per_token > self.experts:
            raise StudyError(
                f"{self.experts_per_token} experts per token, but only {self.experts} experts",
                where="experts_per_token",
            )

    def as_dense(self) -> ModelConfig:
        """The dense shape whose feed-forward layers can become this model's experts."""
        return dataclasses.replace(self, experts=1, experts_per_token=1)

    @property
    def dense(self) -> bool:
        """Whether the feed-forward layers have a single expert and no router."""
        return self.experts == 1

    def active_params(self) -> int:
        """Parameters that one token reaches, embeddings and head not counted."""
        return self._params(min(self.experts_per_token, self.experts))

    def total_params(self) -> int:
        """All parameters, embeddings and head not counted."""
        return self._params(self.experts)

    def _params(self, routed: int) -> int:
        attention = 4 * self.width * self.width
        experts = 3 * self.width * self.expert_width * (routed + self.shared_experts)
        router = 0 if self.dense else self.width * self.experts
        norms = 2 * self.width
        return self.layers * (attention + experts + router + norms) + self.width

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one token's forward pass; training costs three times that.

        Two per active weight, head included, and causal attention's two products over half of
        `sequence_length` keys on average.
        """
        head = self.width * self.vocab_size
        attention = self.layers * self.width * sequence_length
        return 2.0 * (self.active_params() + head + attention)
