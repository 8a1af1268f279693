"""Routers by ridge regression of domains on hidden states (DUME).

Shapes: E experts, D width, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.hidden_states import LayerStates
from mixopt.models.upcycling.router_starts import RouterStart, expert_means


@dataclass(frozen=True)
class Ridge(RouterStart):
    """Rows that predict from a token's state which expert's text it is of.

        W = scale · (XᵀX + λ I)⁻¹ XᵀY

    X (N, D) are the states that the block's router reads on the samples, Y (N, E) is 1 where a
    token is of the expert's sample, else 0; for the seed without a sample, 1 over the number of
    samples everywhere. Every sample counts the same. A token's logits are about its probabilities
    of being of each sample, times scale.

    Attributes:
        penalty: λ, as a share of the mean eigenvalue of XᵀX.
        scale: of the logits.
    """

    penalty: float = 0.01
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.penalty <= 0:
            raise StudyError(f"must be above 0, is {self.penalty}", where="router_settings.penalty")

    @property
    def needs_samples(self) -> bool:
        """Yes."""
        return True

    def start(
        self,
        sources: Sequence[str],
        width: int,
        random: torch.Generator,
        states: LayerStates | None,
    ) -> Tensor:
        """See the class."""
        means_ED = expert_means(sources, states).double()
        assert states is not None  # else there are no means
        moments_DD = states.moments.double()
        ridge = self.penalty * moments_DD.trace() / width
        moments_DD = moments_DD + ridge * torch.eye(width, dtype=torch.float64)
        rows_ED: Tensor = torch.linalg.solve(moments_DD, means_ED.T).T * self.scale
        return rows_ED.float()
