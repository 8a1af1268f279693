"""How much the routers' choices still move: the same text routed again at every evaluation.

Shapes: B sequences, T positions, N = B·T tokens, S slots of a token, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixopt.models.routers.base import Routing
from mixopt.proxies.foreign import LanguageModel


class Churn:
    """Compares the routing of a fixed sample with that of the time before.

    Args:
        ids_BX: the sample, X = T + 1 tokens of each sequence.
    """

    def __init__(self, ids_BX: Tensor) -> None:
        self._ids_BX = ids_BX
        self._before: list[Tensor] = []

    def measure(self, model: LanguageModel) -> float | None:
        """Share of the experts' tokens that are others than the last time, mean over layers.

        0 where every expert gets the tokens that it got, 1 where it gets none of them. None the
        first time, and of a dense model.
        """
        ids_KBX = self._ids_BX[None].to(model.device)
        training = model.training
        model.eval()
        with torch.no_grad():
            _, routings = model.nats(ids_KBX[..., :-1], ids_KBX[..., 1:])
        model.train(training)
        before, self._before = self._before, [_reached(r) for r in routings]
        if not before:
            return None
        pairs = list(zip(self._before, before, strict=True))
        return sum(1 - _share(new, old) for new, old in pairs) / len(pairs)


def _reached(routing: Routing) -> Tensor:
    """Whether a token reaches an expert: (tokens, experts + 1), the last of which is none."""
    indices_NS = routing.indices_KNS[0]
    experts = routing.counts_KE.shape[1]
    empty_NS = torch.where(indices_NS < 0, experts, indices_NS)
    reached_NE = torch.zeros(len(empty_NS), experts + 1, dtype=torch.bool, device=empty_NS.device)
    return reached_NE.scatter_(1, empty_NS, True)[:, :experts].cpu()


def _share(new_NE: Tensor, old_NE: Tensor) -> float:
    """Of the pairs of token and expert now, those that were there before."""
    return float((new_NE & old_NE).sum() / new_NE.sum().clamp_min(1))
