"""Branch-Train-MiX (2403.07816): the feed-forward layers of domain experts become the experts."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State
from mixopt.models.upcycling.base import DOWN, GATE_UP, ROUTER, Upcycler, average, check_width


class BranchTrainMix(Upcycler):
    """Feed-forward layers become experts, the rest is averaged in fp32, routers are fresh.

    With one more expert than there are dense experts, the seed itself is the last expert and takes
    part in the average, as in the paper. Train the result with a balance loss: without one an
    expert dies.
    """

    def sources(self, experts: tuple[str, ...], config_moe: ModelConfig) -> tuple[str, ...]:
        """The dense experts in order, then the seed if there is room for it."""
        if experts and config_moe.experts == len(experts):
            return experts
        if experts and config_moe.experts == len(experts) + 1:
            return (*experts, "seed")
        raise StudyError(
            f"{config_moe.experts} experts cannot be made of {len(experts)} dense models",
            where="experts",
            hint=f"Ask for {len(experts)} experts, or one more to keep the seed among them",
        )

    def convert(
        self,
        seed_state: State,
        expert_states: Mapping[str, State],
        config_moe: ModelConfig,
        fresh: State,
    ) -> State:
        """See the class."""
        names = self.sources(tuple(expert_states), config_moe)
        parts = list(expert_states.values())
        if len(names) > len(parts):
            parts.append(seed_state)
        state: State = {}
        for name, drawn in fresh.items():
            if ROUTER in name:
                state[name] = drawn
            elif name.endswith((GATE_UP, DOWN)):
                if name.endswith(DOWN):
                    check_width(seed_state[name].shape[1], config_moe)
                state[name] = torch.cat([part[name].float() for part in parts])
            else:
                state[name] = average(parts, name)
        return state
