"""Gaussian processes on the square roots of the weights, one per metric.

Shapes: n trials or mixtures, m domains, q metrics; a group of p metrics is one batched model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    JointSurrogate,
    Prediction,
    at_one_fidelity,
    checked,
    compose_joint,
    error_correlation,
    measured,
)
from mixopt.surrogates.squash import Squash
from mixopt.trials import Fidelity, TrialTable

ITERATIONS = (
    150  # of L-BFGS; 400 moved Spearman by at most .003 (RegMix, n = 32 and 64, 3 subsets each)
)
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
    root: Tensor  # (p, n, n) Cholesky factor of the trials' covariance, noise included
    centre: np.ndarray  # (p,) mean that drawn-in values were standardised by
    scale: np.ndarray  # (p,) deviation that drawn-in values were standardised by
    squash: Squash

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (b, p) at `weights` (b, m).

        The textbook formulas (Rasmussen and Williams 2006, algorithm 2.1) on the fitted kernel:
        `model.posterior` builds covariances among all b: twice the time in blocks of 256 (n = 64).
        """
        _, mean, half = self._explained(weights)
        variance = (1 - (half**2).sum(dim=1)).clamp_min(1e-12)  # the kernel is 1 at no distance
        return self.squash.let_out(
            self.centre + self.scale * mean.T.numpy(),
            self.scale * self.widen * variance.sqrt().T.numpy(),
        )

    def joint(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (b, p) and covariance (p, b, b) of the drawn-in metrics at `weights` (b, m)."""
        inputs, mean, half = self._explained(weights)
        prior = self.model.covar_module(inputs).to_dense().reshape(-1, len(weights), len(weights))
        covariance = (prior - half.mT @ half).numpy()
        scale = self.scale * self.widen
        return self.centre + self.scale * mean.T.numpy(), covariance * scale[:, None, None] ** 2

    def _explained(self, weights: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Model inputs, means (p, b) and what the trials explain, (p, n, b), standardised."""
        model, p = self.model, len(self.metrics)
        inputs = model.transform_inputs(torch.from_numpy(weights))
        known = model.train_inputs[0]
        if p > 1:
            inputs = inputs.expand(p, *inputs.shape)
        cross = model.covar_module(known, inputs).to_dense().reshape(p, -1, len(weights))
        residual = model.train_targets.reshape(p, -1, 1) - model.mean_module.constant.view(p, 1, 1)
        half = torch.linalg.solve_triangular(self.root, cross, upper=False)
        target = torch.linalg.solve_triangular(self.root, residual, upper=False)
        mean = model.mean_module.constant.view(p, 1) + (half * target).sum(dim=1)
        return inputs, mean, half


class GaussianProcess(JointSurrogate):
    """Matérn-5/2 with a length scale per domain, on √w, outcomes standardised (BoTorch).

    On the RegMix table √w ranks far better than raw weights (METHODS A). Priors on length scales
    and noise are those of 2402.02229, tried here from 8 to 300 trials. Deviations are widened,
    never narrowed, until nine tenths of the leave-one-out errors lie where they should. Outliers
    are drawn in first (see `squash`); `model` is of drawn-in values, `predict` lets them out.

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
        self._constant = {}
        together: dict[tuple[tuple[int, ...], bool], list[str]] = {}
        for metric in trials.metrics:
            rows, _, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
            else:
                key = (tuple(rows.tolist()), metric in self.noise)
                together.setdefault(key, []).append(metric)
        # A ModelListGP of batched models mixes up their variances (BoTorch 0.18 joins block-wise
        # and interleaved covariances), so several groups become one model per metric.
        groups = [
            (np.array(rows), names)
            for (rows, _), metrics in together.items()
            for names in ([tuple(metrics)] if len(together) == 1 else [(k,) for k in metrics])
        ]
        with reproducible(self.seed):
            self._groups = [self._fit_group(trials, rows, names) for rows, names in groups]
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
                # in blocks, so that p x n covariances with 100k candidates fit in memory
                for at in range(0, len(weights), 4096):
                    block = slice(at, at + 4096)
                    mean[block, columns], std[block, columns] = group.predict(weights[block])
        return Prediction(self._metrics, mean, std, noise, self._correlation)

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`; outliers stay drawn in."""
        weights = checked(mixtures, self._domains)
        means = np.zeros((len(weights), len(self._metrics)))
        spread: dict[str, np.ndarray] = {}
        for metric, value in self._constant.items():
            means[:, self._metrics.index(metric)] = value
        with reproducible(self.seed), torch.no_grad():
            for group in self._groups:
                columns = [self._metrics.index(metric) for metric in group.metrics]
                means[:, columns], covariances = group.joint(weights)
                spread.update(zip(group.metrics, covariances, strict=True))
        return compose_joint(objective, self._metrics, means, spread, self._correlation)

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
        squash = Squash.of(table.values[rows][:, columns])
        values = torch.from_numpy(squash.draw_in(table.values[rows][:, columns]))
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
        scale = values.std(dim=0).numpy()  # what the model standardises by
        root, errors, deviations = _leave_one_out(model)
        spread = np.full((len(table), len(metrics)), np.nan)
        spread[rows] = errors * scale
        if known is None:
            known = np.sqrt(model.likelihood.noise.detach().numpy().reshape(len(metrics))) * scale
        return _Group(
            metrics=metrics,
            model=model,
            noise=known,
            errors=spread,
            widen=np.maximum(
                1.0, np.quantile(np.abs(errors / deviations), 0.9, axis=0) / NORMAL_90
            ),
            root=root,
            centre=values.mean(dim=0).numpy(),
            scale=scale,
            squash=squash,
        )


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


def _leave_one_out(model: SingleTaskGP) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Cholesky factor (p, n, n); errors and deviations (n, p) of each trial from the others.

    In closed form from the inverse covariance of all (Rasmussen and Williams 2006, eq. 5.12),
    in standardised units, with the hyperparameters left as they are.
    """
    with torch.no_grad():
        # in evaluation mode `train_inputs` are already square roots
        prior = model.likelihood(model.forward(model.train_inputs[0]))
        n = model.train_targets.shape[-1]
        root = torch.linalg.cholesky(prior.covariance_matrix.reshape(-1, n, n))
        inverse = torch.cholesky_inverse(root)
        precision = inverse.diagonal(dim1=-2, dim2=-1)
        residual = (model.train_targets - prior.mean).reshape(-1, n, 1)
        errors = (inverse @ residual)[..., 0] / precision
        return root, errors.T.numpy().copy(), precision.rsqrt().T.numpy().copy()
