"""What BoTorch models here do to weights before a kernel sees them."""

from __future__ import annotations

from botorch.models.transforms.input import InputTransform
from torch import Tensor

from mixopt.surrogates.gp._law_gp import OFFSET


class SquareRoot(InputTransform):
    """√w, under which Euclidean distance is the Hellinger distance of mixtures.

    The offset keeps the gradient finite for a domain with weight 0.
    """

    offset = OFFSET

    def __init__(self) -> None:
        super().__init__()
        self.transform_on_train = True
        self.transform_on_eval = True
        self.transform_on_fantasize = True

    def transform(self, X: Tensor) -> Tensor:
        """√(X + 1e-7) for raw weights X (..., m)."""
        return (X + self.offset).sqrt()
