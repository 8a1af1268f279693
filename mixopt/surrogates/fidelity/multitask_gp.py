"""Multi-task Gaussian process: every fidelity a task, their agreement learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.kernels.positive_index import PositiveIndexKernel
from botorch.models.utils.gpytorch_modules import (
    MIN_INFERRED_NOISE_LEVEL,
    get_covar_module_with_dim_scaled_prior,
)
from botorch.models.utils.priors import BetaPrior
from gpytorch.constraints import GreaterThan
from gpytorch.likelihoods import HadamardGaussianLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from mixopt.core.errors import SurrogateError
from mixopt.core.trials import Fidelity
from mixopt.surrogates.fidelity._fidelity_gp import FidelityGaussianProcess
from mixopt.surrogates.fidelity._fidelity_parts import FidelityMean, RootsAndCode

START_CORRELATION = 0.8  # between fidelities, before anything is learned


class MultitaskGP(FidelityGaussianProcess):
    """Intrinsic coregionalisation: k((r, f), (r', f')) = Matérn-5/2(√r, √r') · B[f, f'].

    BoTorch's parts of `MultiTaskGP` (Bonilla 2007; Swersky 2013), batched over metrics: positive
    task correlations with a Beta(2.5, 1.5) prior, a mean and a noise of each task. Knows only the
    fidelities that were trained; knows nothing of their order, so that it needs no law of size.
    """

    name: ClassVar[str] = "multitask-gp"

    def encode(self, fidelities: Sequence[Fidelity]) -> np.ndarray:
        """See `FidelityGaussianProcess.encode`: the task's number."""
        known = {f: i for i, f in enumerate(self.fidelities)}
        for f in fidelities:
            if f not in known:
                raise SurrogateError(
                    f"no trial was measured at {f.params:g} parameters and {f.tokens:g} tokens, "
                    f"and {self.name} does not extrapolate",
                    hint="Run a few trials at this fidelity, or choose nested-laws",
                )
        return np.array([[float(known[f])] for f in fidelities])

    @property
    def knots(self) -> np.ndarray:
        """See `FidelityGaussianProcess.knots`."""
        return np.arange(len(self.fidelities), dtype=float)

    def build(self, inputs: Tensor, values: Tensor, variance: Tensor | None) -> SingleTaskGP:
        """See `FidelityGaussianProcess.build`."""
        p, f, m = values.shape[1], len(self.fidelities), inputs.shape[1] - 1
        batch = torch.Size([p]) if p > 1 else torch.Size()
        kernel = get_covar_module_with_dim_scaled_prior(
            m, batch_shape=batch, use_rbf_kernel=False, active_dims=list(range(m))
        )
        likelihood = None
        if f > 1:
            tasks = PositiveIndexKernel(
                num_tasks=f,
                rank=f,
                task_prior=BetaPrior(concentration1=2.5, concentration0=1.5),
                target_task_index=self._target,
                active_dims=[m],
                batch_shape=batch,
            ).to(inputs)
            start = torch.full((f, f), START_CORRELATION).fill_diagonal_(1.0).to(inputs)
            tasks.covar_factor = torch.linalg.cholesky(start).clamp_min(1e-3).expand(*batch, f, f)
            tasks.var = torch.full((*batch, f), 0.01).to(inputs)
            kernel = kernel * tasks
            if variance is None:
                prior = LogNormalPrior(loc=-4.0, scale=1.0)  # 2402.02229, as for one fidelity
                likelihood = HadamardGaussianLikelihood(
                    num_tasks=f,
                    batch_shape=batch,
                    noise_prior=prior,
                    noise_constraint=GreaterThan(
                        MIN_INFERRED_NOISE_LEVEL, transform=None, initial_value=prior.mode
                    ),
                    task_feature_index=m,
                )
        target = torch.tensor([float(self._target)], dtype=inputs.dtype)
        return SingleTaskGP(
            inputs,
            values,
            variance,
            likelihood=likelihood,
            covar_module=kernel,
            mean_module=FidelityMean(torch.from_numpy(self.knots), batch, self._level_spread),
            outcome_transform=None,
            input_transform=RootsAndCode(m, target),
        )
