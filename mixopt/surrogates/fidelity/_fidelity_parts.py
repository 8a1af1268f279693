"""Parts of Gaussian processes over mixtures and fidelities: their inputs, and their mean."""

from __future__ import annotations

import torch
from botorch.models.transforms.input import InputTransform
from gpytorch.means import Mean
from gpytorch.priors import NormalPrior
from torch import Tensor


class RootsAndCode(InputTransform):
    """√w of m weights, followed by the code of the fidelity; the target's where it is not given.

    The offset keeps the gradient finite for a domain with weight 0.
    """

    offset = 1e-7
    _code: Tensor

    def __init__(self, m: int, target: Tensor) -> None:
        super().__init__()
        self.m = m
        self.transform_on_train = True
        self.transform_on_eval = True
        self.transform_on_fantasize = True
        self.register_buffer("_code", target)

    def transform(self, X: Tensor) -> Tensor:
        """(..., m + d) for weights X (..., m) or weights with a code (..., m + d)."""
        code = X[..., self.m :]
        if not code.shape[-1]:
            code = self._code.expand(*X.shape[:-1], -1)
        return torch.cat([(X[..., : self.m] + self.offset).sqrt(), code], dim=-1)


class FidelityMean(Mean):
    """A learned mean of every fidelity, linear between them: `knots` are their places, ascending.

    Around 0 lie the means with the prior deviations `spread`, (f,) like `knots`. The last column of
    the inputs is the place.
    """

    def __init__(self, knots: Tensor, batch_shape: torch.Size, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("knots", knots)
        self.register_buffer("spread", spread)
        self.register_parameter(
            "levels", torch.nn.Parameter(torch.zeros(*batch_shape, len(knots), dtype=knots.dtype))
        )
        self.register_prior("levels_prior", NormalPrior(torch.zeros_like(spread), spread), "levels")

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) for inputs (..., n, d)."""
        mean: Tensor = (self.hats(x) * self.levels[..., None, :]).sum(dim=-1)
        return mean

    def hats(self, x: Tensor) -> Tensor:
        """(..., n, f) what the levels are multiplied by: 1 at their knot, 0 at its neighbours."""
        place = x[..., -1].clamp(self.knots[0], self.knots[-1])
        index = torch.arange(len(self.knots), dtype=x.dtype)
        at = _interpolate(place, self.knots, index)
        return (1 - (at[..., None] - index).abs()).clamp_min(0.0)


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (knots, values), both (f,)."""
    if len(knots) == 1:
        return torch.zeros_like(x) + values[0]
    right = torch.searchsorted(knots, x.detach().contiguous()).clamp(1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    return values[right - 1] + (values[right] - values[right - 1]) * (x - low) / (high - low)
