"""A chain of links over the law as a BoTorch model, differentiable in the weights.

Shapes: n trials of a link, b mixtures, m domains, p metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mixopt.surrogates.fidelity._link import LEVEL, OFFSET, Link
from mixopt.surrogates.gp._law_model import LawModel, matern_tensor

if TYPE_CHECKING:
    from botorch.models.model import Model


class ChainModel(LawModel):
    """All metrics of a `Cokriging` surrogate at one fidelity, in their own units."""

    def __init__(self, base: Model, links: Sequence[Link]) -> None:
        if not isinstance(base, LawModel):
            raise TypeError(f"a chain begins with the law, not with {type(base).__name__}")
        super().__init__(base.posteriors, base.warp)
        self._links = [_Step(link) for link in links]

    def normal(self, i: int, X: Tensor) -> tuple[Tensor, Tensor]:
        """See `LawModel.normal`."""
        mean, covariance = super().normal(i, X)
        for link in self._links:
            mean, covariance = link(i, X, mean, covariance)
        return mean, covariance


class _Step:
    """One link in torch."""

    def __init__(self, link: Link) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64)

        self.link = link
        self.trials, self.length = tensor(link.roots / link.length), tensor(link.length)
        self.lower, self.cholesky, self.alpha = (
            tensor(link.lower),
            tensor(link.cholesky),
            tensor(link.alpha),
        )

    def __call__(
        self, i: int, weights: Tensor, lower: Tensor, lower_variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean (..., b) and covariance (..., b, b) of metric i, from those one fidelity below."""
        link = self.link
        scale, centre = float(link.scale[i]), float(link.centre[i])
        slope, variance = float(link.slope[i]), float(link.variance[i])
        f = (lower - centre) / scale
        scaled = (weights + OFFSET).sqrt() / self.length
        cross = variance * matern_tensor(scaled, self.trials)
        cross = cross + LEVEL**2 + link.tau**2 * f.unsqueeze(-1) * self.lower[:, i]
        mean = slope * f + cross @ self.alpha[i]
        half = torch.linalg.solve_triangular(self.cholesky[i], cross.mT, upper=False)
        prior = variance * matern_tensor(scaled, scaled)
        prior = prior + LEVEL**2 + link.tau**2 * f.unsqueeze(-1) * f.unsqueeze(-2)
        own = (prior - half.mT @ half) * (scale * float(link.calibration[i])) ** 2
        return centre + scale * mean, float(link.mean_slope[i]) ** 2 * lower_variance + own
