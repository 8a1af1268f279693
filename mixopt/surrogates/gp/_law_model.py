"""The posterior of the effective-data law as a BoTorch model, differentiable in the weights.

Shapes: n trials, b mixtures, m domains, p metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor

from mixopt.surrogates.gp._law_gp import OFFSET, law
from mixopt.surrogates.gp._matern import ROOT5

if TYPE_CHECKING:
    from mixopt.surrogates.gp._posterior import Posterior
    from mixopt.surrogates.gp.warp import Warp


class LawModel(Model):
    """All metrics of a `Gaussian` surrogate, in their own units.

    Where a metric is logged, its posterior is the normal one of least error near the mean (delta
    method). The law's slopes by its parameters are differentiated through as well.
    """

    def __init__(self, posteriors: Sequence[Posterior], warp: Warp) -> None:
        super().__init__()
        self.posteriors, self.warp = tuple(posteriors), warp
        self._parts = [_Part(posterior) for posterior in posteriors]
        self._logged = torch.from_numpy(warp.logged)
        self._centre = torch.from_numpy(warp.centre)
        self._scale = torch.from_numpy(warp.scale)

    @property
    def num_outputs(self) -> int:
        """P."""
        return len(self._parts)

    @property
    def batch_shape(self) -> torch.Size:
        """None: one model."""
        return torch.Size()

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The joint posterior of raw weights X (..., b, m): p outputs each."""
        chosen = range(len(self._parts)) if output_indices is None else output_indices
        normals = [MultivariateNormal(*self.normal(i, X)) for i in chosen]
        joint = (
            normals[0]
            if len(normals) == 1
            else MultitaskMultivariateNormal.from_independent_mvns(normals)
        )
        posterior = GPyTorchPosterior(joint)
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def normal(self, i: int, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., b) and covariance (..., b, b) of output i at raw weights X (..., b, m)."""
        mean, covariance = self._parts[i](X)
        level = self._centre[i] + self._scale[i] * mean
        if self._logged[i]:
            level = level.exp()
        slope = self._scale[i] * (level if self._logged[i] else torch.ones_like(level))
        return level, slope.unsqueeze(-1) * covariance * slope.unsqueeze(-2)


class _Part:
    """One metric, standardised, in torch."""

    def __init__(self, posterior: Posterior) -> None:
        def tensor(values: np.ndarray | float) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64)

        self.gamma, self.variance = posterior.gamma, posterior.variance
        self.calibration, self.length = posterior.calibration, tensor(posterior.length)
        self.trials = tensor(posterior.trials / posterior.length)
        self.law, self.away, self.prior = map(
            tensor, (posterior.law, posterior.away, posterior.prior)
        )
        self.slopes, self.cholesky, self.alpha = map(
            tensor, (posterior.slopes, posterior.cholesky, posterior.alpha)
        )

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., b) and covariance (..., b, b) at `weights` (..., b, m)."""
        x = (weights + OFFSET) ** self.gamma
        level, slopes = law(x, self.law, torch)
        mean = level + slopes @ self.away
        scaled = x / self.length
        cross = self.variance * matern_tensor(scaled, self.trials)
        cross = cross + (slopes * self.prior) @ self.slopes.mT
        mean = mean + cross @ self.alpha
        explained = torch.linalg.solve_triangular(self.cholesky, cross.mT, upper=False)
        prior = self.variance * matern_tensor(scaled, scaled)
        prior = prior + (slopes * self.prior) @ slopes.mT
        covariance = prior - explained.mT @ explained
        jitter = 1e-10 * torch.eye(weights.shape[-2], dtype=weights.dtype)
        return mean, self.calibration**2 * (covariance + jitter)


def matern_tensor(a: Tensor, b: Tensor) -> Tensor:
    """Matérn-5/2 (..., n, k) between scaled inputs a (..., n, m) and b (..., k, m)."""
    squared = (a**2).sum(-1, keepdim=True) + (b**2).sum(-1).unsqueeze(-2) - 2 * a @ b.mT
    distance = ROOT5 * squared.clamp_min(1e-18).sqrt()  # a gradient of √0 would be infinite
    kernel: Tensor = (1 + distance + distance**2 / 3) * (-distance).exp()
    return kernel
