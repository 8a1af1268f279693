"""BiMix (2405.14908): a power law in a domain's own weight times one in tokens.

Shapes: n trials or mixtures, m domains, q metrics; a metric has k rows; b problems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import SurrogateError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.base import FEWEST_TRIALS
from mixopt.surrogates.per_metric import PerMetric, calibration_factor, folds_of, usual_fidelity
from mixopt.surrogates.regression._least_squares import least_squares

NOTHING = 1e-3  # added to every weight: a domain that is left out is learned a little from others
FOLDS = 10
# starts of α, β and log(falling part / lasting part); the level follows
STARTS = ((0.05, 0.3, -1.0), (0.3, 0.3, -1.0), (0.1, 1.0, -3.0), (0.1, 0.1, 1.0))
LOWER, UPPER = (-50.0, -2.0, 0.0, -12.0), (50.0, 5.0, 4.0, 12.0)


def own_domain(metric: str, domains: tuple[str, ...]) -> int | None:
    """Which of `domains` a metric is the validation loss of; None if none of them.

    Equal names match first; then names of which only letters and digits count, without what sets
    of data and metrics are called (`train_the_pile_arxiv`, `bpb/arxiv`, `valid_arxiv_val_loss`).
    """
    plain = metric.rsplit("/", 1)[-1]
    if plain in domains:
        return domains.index(plain)
    bare = [_bare(domain) for domain in domains]
    name = _bare(plain)
    # two domains of the same bare name: neither is known to be the metric's
    return bare.index(name) if name and bare.count(name) == 1 else None


def _bare(name: str) -> str:
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    first = re.compile(r"train|valid|validation|val|test|eval|the|pile|metric|bpb|loss|domain")
    last = re.compile(r"loss|val|valid|validation|test|eval|bpb|ppl|metric|train")
    while len(words) > 1 and last.fullmatch(words[-1]):
        words = words[:-1]
    # Pile-CC is a domain, `pile` before any other a set of them
    while len(words) > 1 and first.fullmatch(words[0]) and words != ["pile", "cc"]:
        words = words[1:]
    return "".join(words)


@dataclass(frozen=True)
class _Points:
    """k rows of p metrics: what a metric's own domain weighed, and how long was trained."""

    weight: Tensor  # (p, k) log(r + NOTHING) of the metric's own domain
    tokens: Tensor  # (k,) log(tokens / their geometric mean over the trials)
    several: bool  # whether tokens differ, without which nothing falls with them

    def law(self, theta: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """Values (b, k) and derivatives (b, k, 4) of e^a (r + ε)^-α (1 + e^g s^-β).

        Args:
            theta: (b, 4) a, α, β, g; β and g mean nothing where tokens do not differ.
            metric: (b,) which metric each is a law of.
        """
        level, alpha, beta, size = theta.split(1, dim=1)
        falling = torch.exp(size - beta * self.tokens)
        if not self.several:
            falling = torch.zeros_like(falling)
        shape = torch.exp(level - alpha * self.weight[metric])
        predicted, part = shape * (1 + falling), shape * falling
        slopes = [predicted, -predicted * self.weight[metric], -part * self.tokens, part]
        return predicted, torch.stack(slopes, dim=2)


@dataclass(frozen=True)
class _Size:
    """The laws of one model size, of metrics divided by their mean."""

    own: tuple[int, ...]  # (p,) each metric's domain
    centre: float  # geometric mean of the trials' tokens
    tokens: np.ndarray  # the different token counts of the trials
    theta: Tensor  # (p, 4)
    cholesky: Tensor  # (p, 4, 4) Cholesky factor of JᵀJ
    scale: np.ndarray  # (p,) deviation of a run predicted from endless data
    unit: np.ndarray  # (p,)
    errors: np.ndarray  # (k, p)

    def law(self, weights: np.ndarray, tokens: float) -> tuple[Tensor, Tensor]:
        points = _points(weights, np.full(len(weights), tokens), self.own, self.centre)
        points = replace(points, several=len(self.tokens) > 1)
        return points.law(self.theta, torch.arange(len(self.own)))


@dataclass(frozen=True)
class _Sizes:
    """One group of metrics: laws by parameters of the model."""

    laws: dict[int, _Size]
    usual: Fidelity
    errors: np.ndarray

    def mean(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        size, tokens = self._at(fidelity)
        return np.asarray(size.law(weights, tokens)[0].T.numpy() * size.unit)

    def std(self, weights: np.ndarray, fidelity: Fidelity | None) -> np.ndarray:
        size, tokens = self._at(fidelity)
        slope = size.law(weights, tokens)[1]
        return np.asarray(size.scale * np.sqrt(1 + _leverage(size.cholesky, slope).T.numpy()))

    def _at(self, fidelity: Fidelity | None) -> tuple[_Size, float]:
        wanted = fidelity or self.usual
        if wanted.params not in self.laws:
            raise SurrogateError(
                f"no law of {wanted.params:,} parameters, only of "
                + ", ".join(f"{params:,}" for params in sorted(self.laws)),
                hint="Ask for one of those, or fit a surrogate that carries over sizes",
            )
        size = self.laws[wanted.params]
        if len(size.tokens) == 1 and wanted.tokens != size.tokens[0]:
            raise SurrogateError(
                f"all trials had {size.tokens[0]:,.0f} tokens: nothing is known of "
                f"{wanted.tokens:,}",
                hint="Give trials of different lengths, or their curves",
            )
        return size, float(wanted.tokens)


class BiMix(PerMetric):
    """L_i(r, s) = A_i / (r_i + ε)^α_i x (B_i / s^β_i + C_i) per metric (2405.14908).

    r_i is the weight of the domain that metric i is the validation loss of, found by name; s is
    tokens; ε = .001, so that a domain without weight has a loss. One law per model size, from all
    its token counts, curves too. Where all trials have the same tokens, it is a power law of the
    weight. What other domains do for a metric the law does not know: that is in the deviation,
    scaled so that nine tenths of the errors on folds lie where they should.

    Raises, besides what `Surrogate.fit` does, a SurrogateError that names the metric if it has no
    domain among the trained ones, or a value that is not above 0.
    """

    name: ClassVar[str] = "bimix"
    multi_fidelity: ClassVar[bool] = True

    def _trials(self, table: TrialTable) -> TrialTable:
        self._usual = self.fidelity or usual_fidelity(table)
        return table

    def _learn(self, trials: TrialTable) -> _Sizes:
        own = tuple(_needed(metric, trials, j) for j, metric in enumerate(trials.metrics))
        errors = np.full_like(trials.values, np.nan)
        laws = {}
        for params in np.unique(trials.params):
            rows = np.flatnonzero(trials.params == params)
            if len(rows) >= FEWEST_TRIALS:
                laws[round(params)] = _fit(trials.select(rows), own, self.seed)
                errors[rows] = laws[round(params)].errors
        if self._usual.params not in laws:
            raise SurrogateError(
                f"fewer than {FEWEST_TRIALS} trials have {self._usual.params:,} parameters",
                where=trials.metrics[0],
                hint="Run more trials at this size",
            )
        return _Sizes(laws, self._usual, errors)


def _needed(metric: str, trials: TrialTable, column: int) -> int:
    own = own_domain(metric, trials.domains)
    if own is None:
        raise SurrogateError(
            f"BiMix needs the domain that a metric is the loss of, among "
            f"{', '.join(trials.domains)}",
            where=metric,
            hint="Name it like its domain, leave it out, or choose mixing-law",
        )
    if not (trials.values[:, column] > 0).all():
        raise SurrogateError(
            f"{trials.values[:, column].min():g} is no loss: BiMix is a law of values above 0",
            where=metric,
            hint="Leave it out, or choose mixing-law",
        )
    return own


def _points(
    weights: np.ndarray, tokens: np.ndarray, own: tuple[int, ...], centre: float
) -> _Points:
    return _Points(
        torch.from_numpy(np.log(weights[:, list(own)] + NOTHING)).T.contiguous(),
        torch.from_numpy(np.log(tokens / centre)),
        bool(np.ptp(tokens) > 0),
    )


def _fit(trials: TrialTable, own: tuple[int, ...], seed: int) -> _Size:
    """Laws of trials of one size: from all starts, then without each fold from what was found."""
    unit, centre = trials.values.mean(axis=0), float(np.exp(np.log(trials.tokens).mean()))
    points = _points(trials.weights, trials.tokens, own, centre)
    values = torch.from_numpy(trials.values / unit).T.contiguous()
    p, k = values.shape
    low, high = (torch.tensor(ends, dtype=values.dtype) for ends in (LOWER, UPPER))
    every = torch.arange(p)

    def solve(start: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        def residuals(theta: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
            metric = some % p
            predicted, slope = points.law(theta, metric)
            return (predicted - values[metric]) * known[some], slope * known[some][..., None]

        found = least_squares(residuals, start, low, high, iterations=200)
        return found.parameters, found.cost

    starts = []
    for alpha, beta, size in STARTS:
        start = torch.tensor([0.0, alpha, beta, size], dtype=values.dtype).repeat(p, 1)
        start[:, 0] = (values / points.law(start, every)[0]).mean(dim=1).log()
        starts.append(start)
    many = len(starts)
    theta, cost = solve(torch.cat(starts), torch.ones(many * p, k, dtype=values.dtype))
    theta = theta[cost.view(many, p).argmin(dim=0) * p + every]

    fold = torch.from_numpy(folds_of(trials.weights, FOLDS, seed))
    folds = int(fold.max()) + 1
    known = torch.stack([(fold != number).to(values.dtype) for number in range(folds)])
    apart, _ = solve(theta.repeat(folds, 1), known.repeat_interleave(p, dim=0))
    errors, leverage = torch.empty_like(values), torch.empty_like(values)
    for number in range(folds):
        out = fold == number
        predicted, slope = points.law(apart[number * p : (number + 1) * p], every)
        errors[:, out] = (values - predicted)[:, out]
        leverage[:, out] = _leverage(_root(slope[:, ~out]), slope[:, out])
    missed = errors.T.numpy() * unit
    scale = calibration_factor(missed, np.sqrt(1 + leverage.T.numpy()))
    return _Size(
        own=own,
        centre=centre,
        tokens=np.unique(trials.tokens),
        theta=theta,
        cholesky=_root(points.law(theta, every)[1]),
        scale=np.maximum(scale, 1e-12 * unit),
        unit=unit,
        errors=missed,
    )


def _root(slope: Tensor) -> Tensor:
    """Cholesky factor (b, 4, 4) of JᵀJ, bounded away from 0 for what the trials do not settle."""
    normal = slope.mT @ slope
    cholesky: Tensor = torch.linalg.cholesky(normal + 1e-6 * torch.eye(4, dtype=slope.dtype))
    return cholesky


def _leverage(cholesky: Tensor, slope: Tensor) -> Tensor:
    half: Tensor = torch.linalg.solve_triangular(cholesky, slope.mT, upper=False)
    return (half**2).sum(dim=1)
