"""Ridge regressions as BoTorch models: Gaussian processes with linear kernels on √w.

Shapes: n trials, m domains; a group of p metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from gpytorch.kernels import Kernel
from torch import Tensor

from mixopt.core.trial_table import TrialTable
from mixopt.surrogates.gp._inputs import SquareRoot
from mixopt.surrogates.regression._ridge import Ridge

FLAT = 1e6  # prior variance of the intercept over that of a run: flat, and still well conditioned


class LineKernel(Kernel):
    """slope² x·y + intercept², with a prior variance of each per metric."""

    def __init__(self, slope: Tensor, intercept: Tensor, batch_shape: torch.Size) -> None:
        super().__init__(batch_shape=batch_shape)
        self.register_buffer("slope", slope.reshape(*batch_shape, 1, 1))
        self.register_buffer("intercept", intercept.reshape(*batch_shape, 1, 1))

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """Covariances (..., n, k) of x1 (..., n, m) and x2 (..., k, m), or (..., n) of pairs."""
        if diag:
            pairs: Tensor = self.slope * (x1 * x2).sum(dim=-1, keepdim=True) + self.intercept
            return pairs[..., 0]
        every: Tensor = self.slope * (x1 @ x2.mT) + self.intercept
        return every


def line_model(groups: Sequence[tuple[Ridge, TrialTable]]) -> Model:
    """One model of all metrics of `groups`, each a regression of p metrics and its trials."""
    if len(groups) == 1:
        ridge, trials = groups[0]
        return _process(ridge, trials, np.arange(len(ridge.level)))
    # one by one: BoTorch 0.18 lists shuffle the variances of members with several outputs
    return ModelListGP(
        *(
            _process(ridge, trials, np.array([j]))
            for ridge, trials in groups
            for j in range(len(ridge.level))
        )
    )


def _process(whole: Ridge, trials: TrialTable, columns: np.ndarray) -> SingleTaskGP:
    ridge, p = whole.only(columns), len(columns)
    inputs = torch.from_numpy(trials.weights)
    values = torch.from_numpy(trials.values[:, columns])
    shape = torch.Size([p]) if p > 1 else torch.Size()
    run = torch.from_numpy(ridge.scale**2)
    model = SingleTaskGP(
        inputs,
        values,
        run.expand_as(values).clone(),
        covar_module=LineKernel(run / torch.from_numpy(ridge.penalty), FLAT * run, shape),
        outcome_transform=None,
        input_transform=SquareRoot(),
    )
    model.mean_module.constant.data.copy_(torch.from_numpy(ridge.level).view(shape))
    model.requires_grad_(False)
    return model.eval()
