"""What Gaussian processes over mixtures and fidelities have in common; a kernel each is their own.

Every fidelity's metrics are standardised by themselves, so that the kernel has only to say how far
fidelities agree on which mixture is better. What the few trials of a fidelity leave open about its
level, a mean per fidelity takes up. It is linear, so that it is integrated out (Rasmussen and
Williams 2006, 2.7): taken as known, 90 % intervals from two runs of 305M held .73 (5Mix).

Shapes: n trials, b mixtures, m domains, f fidelities, q metrics, p metrics of one group.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.models.transforms.outcome import Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import (
    OncePerRun,
    Prediction,
    checked,
    compose_joint,
    error_correlation,
    measured,
)
from mixopt.surrogates.per_metric import correlation_of_few, student_factor
from mixopt.surrogates.winsorize import Winsorizer

# Of L-BFGS, which is to end where the density is flat, or rounding decides where it ends. With 10
# pairs kept for a metric's 15 to 20 parameters, 100 iterations ended short of that: BLAS kernels
# moved means by a third of a run's deviation (two sizes of 12 runs); so 117 to 142 iterations end
# within 5e-5 of each other, in the same time.
ITERATIONS = 400
MEMORY = 40  # pairs of steps and gradients that are kept
FLAT = 1e-12  # relative fall of an iteration at which it ends; or
STEEP = 1e-6  # this largest slope
LEARN_FROM = 256  # trials that hyperparameters are fitted to; the posterior uses all
FEWEST_TO_WINSORIZE = (
    16  # trials of a fidelity whose outliers are winsorized; of fewer none is known
)
WORTH = 2.0  # trials of the target that the other fidelities tell as much of its variance as
# Prior deviation of a level over that of a mean of as many trials: for eight it is .5, in units of
# what mixtures vary by.
LEVEL = np.sqrt(2.0)
SHRINK = 4.0  # trials that the other fidelities' deviation counts as in that of one


@dataclass(frozen=True)
class Group:
    """Metrics measured on the same trials: p Gaussian processes with one batched Cholesky."""

    metrics: tuple[str, ...]
    model: SingleTaskGP
    noise: np.ndarray  # (p,) deviation of a run at the target, in the metric's unit
    errors: np.ndarray  # (n, p) leave-one-out errors, NaN where not measured
    calibration: np.ndarray  # (p,) what deviations are multiplied by
    cholesky: (
        Tensor  # (p, n, n) Cholesky factor of the trials' covariance, noise and levels included
    )
    centre: np.ndarray  # (f, p) mean that winsorized values of a fidelity were standardised by
    scale: np.ndarray  # (f, p) deviation likewise
    winsorizer: tuple[Winsorizer, ...]  # of every fidelity

    def explained(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised means (p, b) at transformed inputs (p, b, d), and half (p, n, b).

        half' · half is the covariance that the trials explain (Rasmussen and Williams 2006, 2.1).
        """
        model, p, b = self.model, len(self.metrics), inputs.shape[-2]
        cross = _covariance(model, model.train_inputs[0], inputs).reshape(p, -1, b)
        values = model.train_targets.reshape(p, -1, 1)
        half = torch.linalg.solve_triangular(self.cholesky, cross, upper=False)
        target = torch.linalg.solve_triangular(self.cholesky, values, upper=False)
        return (half * target).sum(dim=1), half

    def prior(self, inputs: Tensor) -> Tensor:
        """(p, b) variances before any trial at transformed inputs (p, b, d)."""
        kernel = self.model.covar_module(inputs, diag=True)
        mean = self.model.mean_module
        levels = ((mean.hats(inputs) * mean.spread) ** 2).sum(dim=-1)
        whole: Tensor = kernel + levels
        return whole.reshape(len(self.metrics), -1)


class FidelityGaussianProcess(OncePerRun):
    """A Gaussian process per metric over √w and fidelity, fitted to all fidelities together.

    Deviations are scaled up, never down, until nine tenths of the leave-one-out errors at the
    target lie where they should (of all trials, where the target has fewer than eight), and by
    Student's factor of the target's trials. The target's scale is taken as known: from two to four
    trials intervals hold too little (.76 to .91 of losses for 90 %, Data Mixing Laws). Outliers are
    winsorized first, fidelity by fidelity (see `winsorize`).

    Runs count once, as they stood at the target's tokens or at their end: learning curves are for
    `nested-laws`.
    """

    multi_fidelity = True

    def _clear(self) -> None:
        super()._clear()
        self._domains: tuple[str, ...] | None = None
        self._metrics: tuple[str, ...] = ()
        self._groups: list[Group] = []
        self._constant: dict[str, float] = {}
        self._correlation = np.eye(0)
        self._level_spread = torch.zeros(0)  # (f,) prior deviations of the fidelities' levels
        self.fidelities: list[Fidelity] = []
        """Those learned from, cheapest first."""
        self._target = 0

    @abstractmethod
    def encode(self, fidelities: Sequence[Fidelity]) -> np.ndarray:
        """(n, d) columns that tell the kernel the fidelity; the last is a place among knots.

        Raises:
            SurrogateError: it cannot predict one of them.
        """

    @property
    @abstractmethod
    def knots(self) -> np.ndarray:
        """(f,) the last column of `encode(self.fidelities)`, ascending."""

    @abstractmethod
    def build(self, inputs: Tensor, values: Tensor, variance: Tensor | None) -> SingleTaskGP:
        """An unfitted model of standardised `values` (n, p) at weights and code (n, m + d).

        `variance` (n, p) is the noise, where it is known. No outcome transform.
        """

    def _wanted(self, table: TrialTable) -> Fidelity:
        """The most frequent one, if none was asked for."""
        return self.fidelity or _most_frequent(table)

    def _learn(self, trials: TrialTable, target: Fidelity | None) -> None:
        """13 metrics of 64 low-fidelity trials and 8 of the target take seconds.

        Raises:
            SurrogateError: nothing was measured at the target fidelity.
        """
        target = target or _most_frequent(trials)
        self.fidelities = sorted(trials.fidelities, key=lambda f: (f.params * f.tokens, f.params))
        found = [i for i, f in enumerate(self.fidelities) if f == target]
        if not found:
            raise SurrogateError(
                f"no trial was measured at {target.params:g} parameters and {target.tokens:g} "
                f"tokens, and {self.name} does not extrapolate",
                hint="Run a few trials at this fidelity, or choose nested-laws",
            )
        self._target = found[0]
        self._constant = {}
        together: dict[tuple[tuple[int, ...], bool], list[str]] = {}
        for metric in trials.metrics:
            rows, _, values = measured(trials, metric)
            if np.ptp(values) <= 1e-12 * np.abs(values).max():
                self._constant[metric] = float(values[0])
            else:
                key = (tuple(rows.tolist()), metric in self.noise)
                together.setdefault(key, []).append(metric)
        # as in `gp`: a ModelListGP of batched models mixes up their variances
        groups = [
            (np.array(rows), names)
            for (rows, _), metrics in together.items()
            for names in ([tuple(metrics)] if len(together) == 1 else [(k,) for k in metrics])
        ]
        self._domains, self._metrics = trials.domains, trials.metrics
        with reproducible(self.seed):
            self._groups = [self._fit_group(trials, rows, names) for rows, names in groups]
        errors = np.zeros((len(trials), len(self._metrics)))
        for group in self._groups:
            errors[:, [self._metrics.index(k) for k in group.metrics]] = group.errors
        there = trials.at(target)
        self._correlation = correlation_of_few(errors[there], error_correlation(errors))

    def _knows(self, fidelity: Fidelity) -> bool:
        return fidelity in self.fidelities

    def _predict(self, mixtures: np.ndarray, fidelity: Fidelity | None) -> Prediction:
        weights = checked(mixtures, self._domains)
        code = self._code(fidelity)
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
                    block = weights[at : at + 4096]
                    inputs = self._inputs(group, block, np.tile(code, (len(block), 1)))
                    z, half = group.explained(inputs)
                    variance = (group.prior(inputs) - (half**2).sum(dim=1)).clamp_min(1e-12)
                    centre, scale = self._units(group, code[None, -1])
                    m, s = (
                        centre + scale * z.T.numpy(),
                        scale * group.calibration * variance.sqrt().T.numpy(),
                    )
                    near = int(np.argmin(np.abs(self.knots - code[-1])))
                    rows = slice(at, at + len(block))
                    mean[rows, columns], std[rows, columns] = group.winsorizer[near].invert(m, s)
        return Prediction(self._metrics, mean, std, noise, self._correlation)

    def joint(
        self,
        mixtures: np.ndarray,
        objective: Objective,
        fidelities: Sequence[Fidelity] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `JointSurrogate.joint`; outliers stay winsorized."""
        weights = checked(mixtures, self._domains)
        if fidelities is None:
            codes = np.tile(self._code(None), (len(weights), 1))
        else:
            codes = self.encode(fidelities)
        if len(codes) != len(weights):
            raise SurrogateError(f"{len(codes)} fidelities for {len(weights)} mixtures")
        means = np.zeros((len(weights), len(self._metrics)))
        spread: dict[str, np.ndarray] = {}
        for metric, value in self._constant.items():
            means[:, self._metrics.index(metric)] = value
        with reproducible(self.seed), torch.no_grad():
            for group in self._groups:
                columns = [self._metrics.index(metric) for metric in group.metrics]
                inputs = self._inputs(group, weights, codes)
                z, half = group.explained(inputs)
                prior = _covariance(group.model, inputs, inputs)
                cover = (prior.reshape(len(z), len(weights), -1) - half.mT @ half).numpy()
                centre, scale = self._units(group, codes[:, -1])
                means[:, columns] = centre + scale * z.T.numpy()
                unit = (scale * group.calibration).T  # (p, b)
                cover = cover * unit[:, :, None] * unit[:, None, :]
                spread.update(zip(group.metrics, cover, strict=True))
        return compose_joint(objective, self._metrics, means, spread, self._correlation)

    @property
    def modelled(self) -> tuple[str, ...]:
        """See `JointSurrogate.modelled`."""
        return tuple(metric for group in self._groups for metric in group.metrics)

    @property
    def model(self) -> Model:
        """See `JointSurrogate.model`; outputs are at the target fidelity, in winsorized units."""
        if not self._groups:
            raise SurrogateError("no metric varies over the trials, so there is no model")
        models = [group.model for group in self._groups]
        return models[0] if len(models) == 1 else ModelListGP(*models)

    def _code(self, fidelity: Fidelity | None) -> np.ndarray:
        """(d,) code of `fidelity`, the target if None."""
        return np.asarray(self.encode([fidelity or self.fidelities[self._target]])[0])

    def _inputs(self, group: Group, weights: np.ndarray, codes: np.ndarray) -> Tensor:
        """(p, b, m + d) transformed, or (b, m + d) for a single metric."""
        raw = torch.from_numpy(np.concatenate([weights, codes], axis=1))
        inputs = group.model.transform_inputs(raw)
        p = len(group.metrics)
        return inputs.expand(p, *inputs.shape) if p > 1 else inputs

    def _units(self, group: Group, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (b, p) of winsorized values at `places` (b,), linear between knots."""
        p = len(group.metrics)
        return (
            np.stack([np.interp(places, self.knots, group.centre[:, j]) for j in range(p)], axis=1),
            np.stack([np.interp(places, self.knots, group.scale[:, j]) for j in range(p)], axis=1),
        )

    def _fit_group(self, table: TrialTable, rows: np.ndarray, metrics: tuple[str, ...]) -> Group:
        trials = table.select(rows)
        values = trials.values[:, [table.metrics.index(metric) for metric in metrics]]
        level = np.argmax([trials.at(f) for f in self.fidelities], axis=0)  # (n,) index of fidelity
        z, centre, scale, winsorizer = _standardised(values, level, len(self.fidelities))
        counts = np.bincount(level, minlength=len(self.fidelities))
        self._level_spread = torch.from_numpy(LEVEL / np.sqrt(np.maximum(counts, 1)))
        codes = self.encode([self.fidelities[i] for i in level])
        inputs = torch.from_numpy(np.concatenate([trials.weights, codes], axis=1))
        targets = torch.from_numpy(z)
        given = np.array([self.noise.get(metric, np.nan) for metric in metrics])
        variance = None
        if np.isfinite(given).all():
            variance = torch.from_numpy((given / scale[level]) ** 2)
        some = self._learn_from(level)
        model = self._fitted(inputs, targets, variance, some, metrics)
        cholesky, errors, deviations, noise = _leave_one_out(model, targets.shape[1])
        there = level == self._target
        if there.sum() < 8:
            there = np.ones_like(there)
        calibration = np.quantile(np.abs(errors / deviations)[there], 0.9, axis=0) / NORMAL_90
        spread = np.full((len(table), len(metrics)), np.nan)
        spread[rows] = errors * scale[level]
        own = level == self._target
        run = np.sqrt(noise[own].mean(axis=0)) if own.any() else np.sqrt(noise.mean(axis=0))
        # so that `model` predicts the target in the metrics' unit
        units = Standardize(m=len(metrics))
        units.means, units.stdvs = (
            torch.from_numpy(a[self._target][None].copy()) for a in (centre, scale)
        )
        units._stdvs_sq = units.stdvs**2
        units._is_trained = torch.tensor(True)
        model.outcome_transform = units.eval()
        return Group(
            metrics=metrics,
            model=model,
            noise=np.where(np.isfinite(given), given, run * scale[self._target]),
            errors=spread,
            calibration=np.maximum(1.0, calibration)
            * student_factor(max(own.sum() - 1, 0) + WORTH),
            cholesky=cholesky,
            centre=centre,
            scale=scale,
            winsorizer=winsorizer,
        )

    def _learn_from(self, level: np.ndarray) -> np.ndarray:
        """Rows that hyperparameters are fitted to: all, or the target's and some of the others."""
        order = np.random.default_rng(self.seed).permutation(len(level))
        own = order[level[order] == self._target][: LEARN_FROM // 2]
        rest = np.setdiff1d(order, own, assume_unique=True)
        rest = order[np.isin(order, rest)]
        return np.concatenate([own, rest])[:LEARN_FROM]

    def _fitted(
        self,
        inputs: Tensor,
        values: Tensor,
        variance: Tensor | None,
        some: np.ndarray,
        metrics: tuple[str, ...],
    ) -> SingleTaskGP:
        """The model of all rows with the hyperparameters that `some` of them make likeliest."""
        model = self.build(inputs[some], values[some], None if variance is None else variance[some])
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": _options(values.shape[1])},
            )
        except ModelFittingError as error:
            raise SurrogateError(
                f"no Gaussian process could be fitted to {len(inputs)} trials: {error}",
                where=metrics[0],
                hint="Look for broken values in the trials, or choose another surrogate",
            ) from error
        if len(some) < len(inputs):
            whole = self.build(inputs, values, variance)
            own = {
                k: v
                for k, v in whole.state_dict().items()
                if k.startswith("likelihood.noise_covar.noise")
            }
            whole.load_state_dict({**model.state_dict(), **own})
            model = whole
        return model.eval()


def _options(metrics: int) -> dict[str, float]:
    """Of BoTorch's L-BFGS-B: SciPy's names for one metric, those of its batched one for several."""
    shared = {"maxiter": ITERATIONS, "maxcor": MEMORY}
    if metrics == 1:
        return {**shared, "ftol": FLAT, "gtol": STEEP}
    return {**shared, "factr": FLAT / np.finfo(float).eps, "pgtol": STEEP}


def _most_frequent(table: TrialTable) -> Fidelity:
    """Of the final rows; of equally frequent ones the one with most parameters x tokens."""
    last = table.final
    kinds = last.fidelities
    counts = [int(last.at(kind).sum()) for kind in kinds]
    if not counts or max(counts) < 3:
        raise SurrogateError(
            f"at most {max(counts, default=0)} trials of one fidelity, 3 are needed",
            hint="Run more trials",
        )
    return kinds[max(range(len(kinds)), key=lambda i: (counts[i], i))]


def _standardised(
    values: np.ndarray, level: np.ndarray, f: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[Winsorizer, ...]]:
    """(n, p) winsorized values in standard units; centres, scales (f, p); winsorizers."""
    p = values.shape[1]
    drawn, winsorizer = values.copy(), []
    centre, scale = np.zeros((f, p)), np.zeros((f, p))
    counts = np.bincount(level, minlength=f)
    for i in range(f):
        own = level == i
        few = counts[i] < FEWEST_TO_WINSORIZE
        flat = Winsorizer(np.zeros(p), np.full(p, np.finfo(float).max))
        winsorizer.append(flat if few else Winsorizer.of(values[own]))
        drawn[own] = winsorizer[i].apply(values[own])
        if counts[i]:
            centre[i], scale[i] = drawn[own].mean(axis=0), drawn[own].std(axis=0)
    pooled = np.sqrt((counts[:, None] * scale**2).sum(axis=0) / counts.sum())
    scale = np.sqrt((counts[:, None] * scale**2 + SHRINK * pooled**2) / (counts[:, None] + SHRINK))
    scale = np.where(scale > 0, scale, 1.0)
    missing = counts == 0
    centre[missing] = drawn.mean(axis=0)
    return (drawn - centre[level]) / scale[level], centre, scale, tuple(winsorizer)


def _covariance(model: SingleTaskGP, a: Tensor, b: Tensor) -> Tensor:
    """Prior covariance (..., n, b) of transformed inputs (..., n, d) and (..., b, d).

    That of the kernel, and that of the levels.
    """
    mean = model.mean_module
    levels = (mean.hats(a) * mean.spread**2) @ mean.hats(b).mT
    whole: Tensor = levels + model.covar_module(a, b).to_dense()
    return whole


def _leave_one_out(
    model: SingleTaskGP, p: int
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Cholesky factor (p, n, n); errors, deviations and noise variance (n, p), standardised.

    In closed form (Rasmussen and Williams 2006, eq. 5.12), hyperparameters left as they are. Sets
    the model's levels to their posterior means.
    """
    with torch.no_grad():
        inputs = model.train_inputs[0]
        n = inputs.shape[-2]
        latent = model.forward(inputs)
        noisy = model.likelihood(latent, [inputs])
        noise = (noisy.variance - latent.variance).reshape(p, n)
        hats, spread = model.mean_module.hats(inputs), model.mean_module.spread
        levels = (hats * spread**2) @ hats.mT
        cholesky = torch.linalg.cholesky((noisy.covariance_matrix + levels).reshape(p, n, n))
        inverse = torch.cholesky_inverse(cholesky)
        precision = inverse.diagonal(dim1=-2, dim2=-1)
        alpha = inverse @ model.train_targets.reshape(p, n, 1)
        errors = alpha[..., 0] / precision
        # the levels that these covariances and trials make likeliest: the model's mean is then ours
        found = spread**2 * (hats.reshape(-1, n, len(spread)).mT @ alpha)[..., 0]
        model.mean_module.levels.copy_(found.reshape(model.mean_module.levels.shape))
        return (
            cholesky,
            errors.T.numpy().copy(),
            precision.rsqrt().T.numpy().copy(),
            noise.clamp_min(0.0).T.numpy().copy(),
        )
