"""BoTorch's multi-fidelity Gaussian process: the fidelity as a number between 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.gp_regression_fidelity import SingleTaskMultiFidelityGP
from botorch.models.utils.gpytorch_modules import (
    get_covar_module_with_dim_scaled_prior,
    get_gaussian_likelihood_with_lognormal_prior,
)
from gpytorch.constraints import GreaterThan
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from mixopt.core.errors import SurrogateError
from mixopt.core.trials import Fidelity
from mixopt.surrogates.fidelity._fidelity_gp import FidelityGaussianProcess
from mixopt.surrogates.fidelity._fidelity_parts import FidelityMean, RootsAndCode


class MultiFidelityGP(FidelityGaussianProcess):
    """k = k₀(r, r') + (1-s)(1-s')(1+ss')^p k₁(r, r'): low-fidelity runs are the target plus a bias.

    `SingleTaskMultiFidelityGP` with its linear truncated kernel (1903.04703), as ADMIRE uses it
    (2508.11551), on √w. s is log(parameters x tokens), 0 for the lowest and 1 for the highest
    fidelity; the bias k₁ vanishes at the highest. Predicts fidelities between those measured;
    what lies beyond is refused: s ends at 1, so that the kernel would call it the same.

    BoTorch's length-scale priors are for a few inputs; here both kernels and the noise have those
    of 2402.02229, which grow with their number.
    """

    name: ClassVar[str] = "multi-fidelity-gp"

    def encode(self, fidelities: Sequence[Fidelity]) -> np.ndarray:
        """See `FidelityGaussianProcess.encode`: s."""
        ends = _compute(self.fidelities)
        asked = _compute(fidelities)
        if len(np.unique(ends)) < len(ends):
            raise SurrogateError(
                "two fidelities have the same parameters x tokens, and "
                f"{self.name} tells them by that alone",
                hint="Choose multitask-gp",
            )
        low, high = ends[0], ends[-1]
        beyond = (asked < low - 1e-9) | (asked > high + 1e-9)
        if beyond.any():
            worst = fidelities[int(np.flatnonzero(beyond)[0])]
            raise SurrogateError(
                f"{worst.params:g} parameters and {worst.tokens:g} tokens lie outside the "
                f"fidelities that were measured, and {self.name} does not extrapolate",
                hint="Run a few trials at this fidelity, or choose nested-laws",
            )
        span = high - low if high > low else 1.0
        return np.asarray(1.0 - (high - asked) / span)[:, None]

    @property
    def knots(self) -> np.ndarray:
        """See `FidelityGaussianProcess.knots`."""
        return self.encode(self.fidelities)[:, 0]

    def build(self, inputs: Tensor, values: Tensor, variance: Tensor | None) -> SingleTaskGP:
        """See `FidelityGaussianProcess.build`."""
        p, m = values.shape[1], inputs.shape[1] - 1
        batch = torch.Size([p]) if p > 1 else torch.Size()
        target = torch.tensor([self.knots[self._target]], dtype=inputs.dtype)
        transform = RootsAndCode(m, target)
        mean = FidelityMean(torch.from_numpy(self.knots), batch, self._level_spread)
        if len(self.fidelities) == 1:
            kernel = get_covar_module_with_dim_scaled_prior(
                m, batch_shape=batch, use_rbf_kernel=False, active_dims=list(range(m))
            )
            return SingleTaskGP(
                inputs,
                values,
                variance,
                covar_module=kernel,
                mean_module=mean,
                outcome_transform=None,
                input_transform=transform,
            )
        model = SingleTaskMultiFidelityGP(
            inputs,
            values,
            variance,
            data_fidelities=[m],
            likelihood=None
            if variance is not None
            else get_gaussian_likelihood_with_lognormal_prior(batch),
            outcome_transform=None,
            input_transform=transform,
        )
        model.mean_module = mean
        truncated = model.covar_module.base_kernel.kernels[0]
        for part in ("covar_module_unbiased", "covar_module_biased"):
            kernel = get_covar_module_with_dim_scaled_prior(
                m, batch_shape=batch, use_rbf_kernel=False
            )
            setattr(truncated, part, kernel)
        # values are standardised: BoTorch's Gamma(2, .15) expects a variance of 13
        model.covar_module.register_constraint("raw_outputscale", GreaterThan(1e-3))
        model.covar_module.register_prior(
            "outputscale_prior", LogNormalPrior(0.0, 0.5), "outputscale"
        )
        model.covar_module.outputscale = 1.0
        return model.to(inputs)


def _compute(fidelities: Sequence[Fidelity]) -> np.ndarray:
    """(n,) log of parameters x tokens."""
    return np.array([np.log(float(f.params)) + np.log(float(f.tokens)) for f in fidelities])
