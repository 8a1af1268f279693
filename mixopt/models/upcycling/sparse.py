"""Sparse upcycling (2212.05055): every expert starts as a copy of the dense feed-forward layer."""

from __future__ import annotations

from collections.abc import Mapping

from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State
from mixopt.models.upcycling.base import DOWN, GATE_UP, ROUTER, Upcycler, check_width


class SparseUpcycling(Upcycler):
    """Copies of the seed's layers; the dense experts are not used.

    The MoE computes what the seed does as long as a token's gates sum to 1.
    """

    def sources(self, experts: tuple[str, ...], config_moe: ModelConfig) -> tuple[str, ...]:
        """The seed, E times."""
        return ("seed",) * config_moe.experts

    def preserves_function(self, config_moe: ModelConfig) -> bool:
        """Where the router's gates sum to 1; a single gate is never renormalised."""
        return config_moe.settings.unit_gates(config_moe)

    def convert(
        self,
        seed_state: State,
        expert_states: Mapping[str, State],
        config_moe: ModelConfig,
        fresh: State,
    ) -> State:
        """See the class."""
        state: State = {}
        for name, drawn in fresh.items():
            if ROUTER in name:
                state[name] = drawn
            elif name.endswith((GATE_UP, DOWN)):
                if name.endswith(DOWN):
                    check_width(seed_state[name].shape[1], config_moe)
                state[name] = seed_state[name].float().repeat(config_moe.experts, 1, 1)
            else:
                state[name] = seed_state[name].float().clone()
        return state
