"""Switch routing (2101.03961): plain softmax gates, balanced within each micro-batch.

Shapes: K proxies, E experts. The paper's k is 1, and its experts have a capacity; here k is the
model's, and no token is dropped.
"""

from __future__ import annotations

from torch import Tensor

from mixopt.models.routers.settings import PlainGates
from mixopt.models.routers.softmax import SoftmaxRouter


class SwitchRouter(SoftmaxRouter):
    """The k largest of softmax(x W) as they are; balance loss over the micro-batch, no z-loss."""

    settings_class = PlainGates
    has_z_loss = False

    def shares(self, counts_KE: Tensor) -> Tensor:
        """Shares of this micro-batch, whatever `config.balance` says."""
        return counts_KE / counts_KE.sum(-1, keepdim=True).clamp_min(1.0)
