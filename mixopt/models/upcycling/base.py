"""What every upcycling method is, and the receipt that it must print.

Shapes: states are of one model, without the cohort axis. E experts, D width, F expert width,
n sequences of a sample, T tokens of each.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import StudyError, TrainingError
from mixopt.core.registry import resolve
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import gate_entropies
from mixopt.models.transformer import State, Transformer
from mixopt.models.upcycling import UPCYCLERS
from mixopt.models.upcycling.receipt import Receipt

GATE_UP, DOWN, ROUTER = "feed_forward.gate_up", "feed_forward.down", "feed_forward.router."


def upcycler_class(name: str) -> type[Upcycler]:
    """The upcycler of that registry name, or of a user's `package.module:Name`.

    Raises:
        StudyError: nothing of that name, or it is no `Upcycler`.
    """
    return resolve("upcycler", name, UPCYCLERS, Upcycler)  # type: ignore[type-abstract]


class Upcycler(ABC):
    """Turns a dense seed model and dense experts branched from it into one MoE.

    Implementations are deterministic given `seed`, leave their inputs alone, return a state that
    loads into `Transformer(config_moe)`, and pass `mixopt.testing.upcyclers`.
    """

    @abstractmethod
    def sources(self, experts: tuple[str, ...], config_moe: ModelConfig) -> tuple[str, ...]:
        """Where each of the E experts comes from: names of `experts`, or `seed`.

        Raises:
            StudyError: so many experts cannot be made of these models.
        """

    @abstractmethod
    def convert(
        self,
        seed_state: State,
        expert_states: Mapping[str, State],
        config_moe: ModelConfig,
        fresh: State,
    ) -> State:
        """The MoE's state; `fresh` is a newly initialized one, to take routers from."""

    def preserves_function(self, config_moe: ModelConfig) -> bool:
        """Whether the MoE should compute what the seed model does."""
        return False

    def channels_kept(self) -> float:
        """Share of the experts' hidden channels that are a source model's."""
        return 1.0

    def upcycle(
        self,
        seed_state: State,
        expert_states: Mapping[str, State],
        config_dense: ModelConfig,
        config_moe: ModelConfig,
        seed: int = 0,
        samples: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[State, Receipt]:
        """The MoE's state and the receipt of the conversion.

        Args:
            seed_state: the dense seed model.
            expert_states: expert name → dense model branched from it; order is expert order.
            config_dense: shape of all the dense models.
            config_moe: shape of the MoE; same trunk.
            seed: draws what is new (the routers).
            samples: domain → token ids (n, T) for the receipt.

        Raises:
            StudyError: the shapes do not go together.
            TrainingError: a state is not of the shape that `config_dense` says.
        """
        check_shapes(config_dense, config_moe)
        for name, state in {"seed": seed_state, **expert_states}.items():
            _check_state(name, state, seed_state)
        origins = self.sources(tuple(expert_states), config_moe)
        fresh = Transformer(config_moe, (seed,)).proxy_state()
        state = self.convert(seed_state, expert_states, config_moe, fresh)
        receipt = Receipt(type(self).__name__, origins, self.channels_kept())
        if samples:
            receipt = self._measure(receipt, state, seed_state, config_dense, config_moe, samples)
        return state, receipt

    @torch.no_grad()
    def _measure(
        self,
        receipt: Receipt,
        state: State,
        seed_state: State,
        config_dense: ModelConfig,
        config_moe: ModelConfig,
        samples: Mapping[str, np.ndarray],
    ) -> Receipt:
        moe, dense = Transformer(config_moe).eval(), Transformer(config_dense).eval()
        moe.load_proxy_state(state)
        dense.load_proxy_state(seed_state)
        difference: float | None = 0.0 if self.preserves_function(config_moe) else None
        entropies: dict[str, float] = {}
        loads: dict[str, tuple[float, ...]] = {}
        for domain, ids in samples.items():
            ids_KBT = torch.from_numpy(np.asarray(ids, dtype=np.int64)).unsqueeze(0)
            _, routings = moe.trunk(ids_KBT)
            counts_E = sum((r.counts_KE[0] for r in routings), torch.zeros(config_moe.experts))
            loads[domain] = tuple((counts_E / counts_E.sum().clamp_min(1)).tolist())
            layers = [float(gate_entropies(routing).mean()) for routing in routings]
            entropies[domain] = sum(layers) / max(1, len(layers))
            if difference is not None:
                gap = (moe.logits(ids_KBT) - dense.logits(ids_KBT)).abs().max()
                difference = max(difference, float(gap))
        return dataclasses.replace(
            receipt, logit_difference=difference, router_entropy=entropies, loads=loads
        )


def check_shapes(config_dense: ModelConfig, config_moe: ModelConfig) -> None:
    """Refuse a dense and an MoE shape whose trunks differ.

    Raises:
        StudyError: naming the setting that differs.
    """
    if not config_dense.dense:
        raise StudyError(f"the seed has {config_dense.experts} experts, not 1", where="experts")
    if config_moe.dense:
        raise StudyError("a model of one expert has no router to make", where="experts")
    if not config_moe.settings.plain_experts:
        raise StudyError(
            f"experts of {config_moe.router!r} are not of the shape of a dense layer",
            where="router",
            hint="Choose a router over plain experts for a promoted model",
        )
    same = ("width", "layers", "heads", "rope_theta", "tie_embeddings", "vocab_size")
    for name in (*same, "shared_experts"):
        of_dense, of_moe = getattr(config_dense, name), getattr(config_moe, name)
        if of_dense != of_moe:
            raise StudyError(
                f"is {of_dense} in the seed and {of_moe} in the MoE",
                where=name,
                hint="Give both the same trunk",
            )


def check_width(config_dense_width: int, config_moe: ModelConfig) -> None:
    """Refuse experts of another width than the feed-forward layers that they are made of.

    Raises:
        StudyError: the widths differ.
    """
    if config_dense_width != config_moe.expert_width:
        raise StudyError(
            f"is {config_moe.expert_width}, the dense layers have {config_dense_width}",
            where="expert_width",
            hint="Give the dense models and the experts the same width",
        )


def average(states: list[State], name: str) -> Tensor:
    """Mean of one tensor over models, in fp32 whatever the states' dtype."""
    return torch.stack([state[name].float() for state in states]).mean(0)


def _check_state(name: str, state: State, seed_state: State) -> None:
    for key in state.keys() | seed_state.keys():
        mine, seeds = state.get(key), seed_state.get(key)
        if mine is None or seeds is None or mine.shape != seeds.shape:
            raise TrainingError(f"{key} is not as in the seed model", where=name)
