"""Hash layers (2106.04426): a token's experts are a function of its id, and nothing is learned.

Shapes: K proxies, N tokens, V vocabulary, E experts, S = k experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Router, Routing, RoutingContext
from mixopt.models.routers.settings import RouterSettings, Shape

STEP = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's


@dataclass(frozen=True)
class HashSettings(RouterSettings):
    """Experts by token id (2106.04426).

    Attributes:
        seed: which of the random tables.
    """

    seed: int = 0

    def unit_gates(self, config: Shape) -> bool:
        """Always: each gate is 1 / k."""
        return True

    def router_weights(self, config: Shape) -> float:
        """None."""
        return 0


class HashRouter(Router):
    """The k experts with the smallest hash(id, expert), each with gate 1 / k.

    Every layer has its own table, and all proxies the same: there is no specialisation to compare
    other routers with.
    """

    settings_class = HashSettings
    capturable = True
    settings: HashSettings
    table_VS: Tensor

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__(config, cohort, layer)
        keys_VE = _hashes((config.vocab_size, config.experts), (self.settings.seed, layer))
        order_VE = np.argsort(keys_VE, axis=1, kind="stable")
        table_VS = torch.from_numpy(order_VE[:, : config.experts_per_token].copy())
        self.register_buffer("table_VS", table_VS, persistent=False)

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Nothing is drawn."""

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """Experts by `context.ids_KN`.

        Raises:
            TrainingError: the ids are not given.
        """
        if context.ids_KN is None:
            raise TrainingError("needs the token ids", where="router hash")
        indices_KNS = self.table_VS[context.ids_KN]
        counts_KE = self.count(indices_KNS, context.mask_KN)
        share = 1 / self.config.experts_per_token
        gates_KNS = torch.full(indices_KNS.shape, share, device=indices_KNS.device)
        return Routing(indices_KNS, gates_KNS, counts_KE)


def _hashes(shape: tuple[int, int], salt: tuple[int, int]) -> np.ndarray:
    """A 64-bit hash of every place: SplitMix64, the same on every machine and version."""
    mixed: np.ndarray = np.arange(shape[0] * shape[1], dtype=np.uint64).reshape(shape)
    with np.errstate(over="ignore"):
        for number in salt:
            mixed = mixed + np.uint64(number % 2**63) * STEP + STEP
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
