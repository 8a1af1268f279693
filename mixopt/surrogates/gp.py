"""Gaussian processes on the square roots of the weights, one per metric.

Shapes: n trials or mixtures, m domains, q metrics; a group of p metrics is one batched model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.models.transforms.input import InputTransform
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from mixopt.errors import SurrogateError
from mixopt.objective import Objective
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import (
    Prediction,
    Surrogate,
    at_one_fidelity,
    checked,
    error_correlation,
    measured,
)
from mixopt.trials import Fidelity, TrialTable

ITERATIONS = 150  # of L-BFGS; 20 to 128 RegMix runs rank no better after more
LEARN_FROM = 256  # trials that hyperparameters are fitted to; the posterior uses all
NORMAL_90 = 1.6449  # |z| that 90 % of a standard normal stay below


class SquareRoot(InputTransform):
    """√w, under which Euclidean distance is the Hellinger distance of mixtures.

    The offset keeps the gradient finite for a domain with weight 0.
    """

    offset = 1e-7

    def __init__(self) -> None:
        super().__init__()
        self.transform_on_train = True
        self.transform_on_eval = True
        self.transform_on_fantasize = True

    def transform(self, X: Tensor) -> Tensor:
        """√(X + 1e-7) for raw weights X (..., m)."""
        return (X + self.offset).sqrt()


@dataclass(frozen=True)
class _Group:
    """Metrics measured on the same trials: p Gaussian processes with one batched Cholesky."""

    metrics: tuple[str, ...]
    model: SingleTaskGP
    noise: np.ndarray  # (p,) standard deviation of a run, in the metric's unit
    errors: np.ndarray  # (n, p) leave-one-out errors, NaN where not measured
    widen: np.ndarray  # (p,) what deviations are multiplied by


class GaussianProcess(Surrogate):
    """Matérn-5/2 with a length scale per domain, on √w, outcomes standardised (BoTorch).

    On the RegMix table √w ranks far better than raw weights (METHODS A). Priors on length scales
    and noise are those of 2402.02229, which hold from 8 to 512 trials. Deviations are widened,
    never narrowed, until nine tenths of the leave-one-out errors lie where they should.

    Fits the trials of one fidelity only: the one asked for, or the table's most frequent.
    """

    name: ClassVar[str] = "gp"

    def __init__(
        self,
        seed: int = 0,
        fidelity: Fidelity | None = None,
        noise: Mapping[str, float] | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(seed, fidelity, noise, objective)
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._groups: list[_Group] = []
        self._constant: dict[str, float] = {}
        self._correlation = np.eye(0)

    def fit(self, table: TrialTable) -> Self:
        """See `Surrogate.fit`; 13 metrics of 64 trials take a second or two on one core."""
        trials = at_one_fidelity(table, self.fidelity)
        rows_of: dict[tuple[tuple[int, ...], bool], list[str]] = {}
        self._constant = {}
        for metric in trials.metrics:
            rows, _, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
            else:
                rows_of.setdefault((tuple(rows.tolist()), metric in self.noise), []).append(metric)
        with reproducible(self.seed):
            self._groups = [
                self._fit_group(trials, np.array(rows), tuple(metrics))
                for (rows, _), metrics in rows_of.items()
            ]
        self._domains, self._metrics = trials.domains, trials.metrics
        errors = np.zeros((len(trials), len(self._metrics)))
        for group in self._groups:
            errors[:, [self._metrics.index(k) for k in group.metrics]] = group.errors
        self._correlation = error_correlation(errors)
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        """See `Surrogate.predict`."""
        weights = checked(mixtures, self._domains)
        mean = np.empty((len(weights), len(self._metrics)))
        std, noise = np.zeros_like(mean), np.zeros(len(self._metrics))
        for metric, value in self._constant.items():
            mean[:, self._metrics.index(metric)] = value
        with reproducible(self.seed), torch.no_grad():
            for group in self._groups:
                columns = [self._metrics.index(metric) for metric in group.metrics]
                noise[columns] = group.noise
                # in blocks: a posterior is n x n per metric where all rows come at once
                for at in range(0, len(weights), 512):
                    block = slice(at, at + 512)
                    # rows as a batch of single points: variances without their covariances
                    posterior = group.model.posterior(torch.from_numpy(weights[block, None]))
                    mean[block, columns] = posterior.mean[:, 0].numpy()
                    std[block, columns] = posterior.variance[:, 0].sqrt().numpy() * group.widen
        return Prediction(self._metrics, mean, std, noise, self._correlation)

    @property
    def modelled(self) -> tuple[str, ...]:
        """The metrics that `model` has outputs for, in its order: those that are not constant."""
        return tuple(metric for group in self._groups for metric in group.metrics)

    @property
    def model(self) -> Model:
        """The fitted BoTorch model from raw weights (..., n, m) to `modelled` metrics.

        Raises:
            SurrogateError: not fitted, or all metrics are constant.
        """
        if not self._groups:
            raise SurrogateError("no metric varies over the trials, so there is no model")
        models = [group.model for group in self._groups]
        return models[0] if len(models) == 1 else ModelListGP(*models)

    def _fit_group(self, table: TrialTable, rows: np.ndarray, metrics: tuple[str, ...]) -> _Group:
        columns = [table.metrics.index(metric) for metric in metrics]
        known = None
        if metrics[0] in self.noise:
            known = np.array([self.noise[metric] for metric in metrics])
        weights = torch.from_numpy(table.weights[rows])
        values = torch.from_numpy(table.values[rows][:, columns])
        some = np.random.default_rng(self.seed).permutation(len(rows))[:LEARN_FROM]
        model = _build(weights[some], values[some], known)
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": {"maxiter": ITERATIONS}},
            )
        except ModelFittingError as error:
            raise SurrogateError(
                f"no Gaussian process could be fitted to {len(rows)} trials: {error}",
                where=metrics[0],
                mend="Look for broken values in the trials, or choose another surrogate",
            ) from error
        if len(rows) > LEARN_FROM:
            learned = {k: v for k, v in model.state_dict().items() if "outcome_transform" not in k}
            model = _build(weights, values, known)
            own = {k: v for k, v in model.state_dict().items() if k not in learned}
            model.load_state_dict({**learned, **own})
        model.eval()
        errors, deviations = _leave_one_out(model)
        scale = values.std(dim=0).numpy()  # what the model standardises by
        spread = np.full((len(table), len(metrics)), np.nan)
        spread[rows] = errors * scale
        if known is None:
            known = np.sqrt(model.likelihood.noise.detach().numpy().reshape(len(metrics))) * scale
        misfit = np.quantile(np.abs(errors / deviations), 0.9, axis=0) / NORMAL_90
        return _Group(metrics, model, known, spread, np.maximum(1.0, misfit))


def _build(weights: Tensor, values: Tensor, noise: np.ndarray | None) -> SingleTaskGP:
    """An unfitted model of `values` (n, p) at `weights` (n, m); `noise` (p,) fixes its noise."""
    p = values.shape[1]
    variance = None if noise is None else torch.from_numpy(noise**2).expand_as(values).clone()
    kernel = get_covar_module_with_dim_scaled_prior(
        weights.shape[1],
        batch_shape=torch.Size([p]) if p > 1 else torch.Size(),
        use_rbf_kernel=False,
    )
    return SingleTaskGP(
        weights, values, variance, covar_module=kernel, input_transform=SquareRoot()
    )


def _leave_one_out(model: SingleTaskGP) -> tuple[np.ndarray, np.ndarray]:
    """Errors and deviations (n, p) of predicting each trial from the others, standardised.

    In closed form from the inverse covariance of all (Rasmussen and Williams 2006, eq. 5.12),
    with the hyperparameters left as they are.
    """
    with torch.no_grad():
        # in evaluation mode `train_inputs` are already square roots
        prior = model.likelihood(model.forward(model.train_inputs[0]))
        inverse = torch.linalg.inv(prior.covariance_matrix)
        precision = inverse.diagonal(dim1=-2, dim2=-1)
        residual = (inverse @ (model.train_targets - prior.mean)[..., None])[..., 0] / precision
        n = residual.shape[-1]
        return (
            residual.reshape(-1, n).T.numpy().copy(),
            precision.rsqrt().reshape(-1, n).T.numpy().copy(),
        )
