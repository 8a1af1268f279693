"""Bayesian optimization: Gaussian processes and noisy expected improvement.

Shapes: k known mixtures, n proposals, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.objective import LinearMCObjective
from botorch.sampling.normal import SobolQMCNormalSampler
from scipy.optimize import minimize
from torch import Tensor

from mixopt.designs import STRENGTHS, TEMPERATURE, cut
from mixopt.mixture import Mixture
from mixopt.proposers.base import APART, Proposer, first_apart, hellinger
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.base import at_one_fidelity
from mixopt.surrogates.gp import GaussianProcess
from mixopt.trials import Trial, TrialSpec

SAMPLES = 128  # of the joint posterior (quasi-random)
CANDIDATES = 256  # scored before any is improved
STARTS = 4  # best candidates that are improved by gradients
STEPS = 25  # of SLSQP for each start


class Bayes(Proposer):
    """qLogNEI (2310.20708) over one Gaussian process per metric, a batch chosen greedily.

    The objective is composed of posterior samples of all its metrics, never regressed itself.
    Waiting and running trials are fantasised with what is chosen before them in the batch; failed
    ones likewise, so that the search does not return to them. Models with a Gaussian process also
    where the study's surrogate is another one, which still makes the final recommendation.
    """

    name: ClassVar[str] = "bayes"

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`; q = 4 of 7 domains and 7 metrics take a few seconds."""
        table = self.table(trials)
        surrogate = self.surrogate()
        if not isinstance(surrogate, GaussianProcess):
            surrogate = GaussianProcess(self.seed, surrogate.fidelity, surrogate.noise)
        surrogate.fit(table)
        rng = self.rng(trials)
        taken = self.taken(trials)
        observed = np.unique(at_one_fidelity(table, surrogate.fidelity).weights, axis=0)
        pending = taken[~(taken[:, None] == observed[None]).all(axis=2).any(axis=1)]
        chosen: list[Mixture] = []
        with reproducible(self.seed):
            acquisition = self._acquisition(surrogate, observed) if surrogate.modelled else None
            for _ in range(n):
                known = np.concatenate([taken, *(m.array[None] for m in chosen)])
                starts = self._candidates(rng, observed)
                if acquisition is None:  # nothing varies: every new mixture is as good
                    best = starts[:CANDIDATES]
                else:
                    waiting = np.concatenate([pending, *(m.array[None] for m in chosen)])
                    if len(waiting):
                        acquisition.set_X_pending(torch.from_numpy(waiting))
                    best = self._improve(acquisition, starts)
                chosen.append(cut(self.space, _first_new(best, known)))
        return self.specs(trials, chosen)

    def _acquisition(
        self, surrogate: GaussianProcess, observed: np.ndarray
    ) -> qLogNoisyExpectedImprovement:
        weights = [-self.objective.weights[metric] for metric in surrogate.modelled]
        return qLogNoisyExpectedImprovement(
            surrogate.model,
            torch.from_numpy(observed),
            SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=self.seed),
            LinearMCObjective(torch.tensor(weights, dtype=torch.float64)),
        )

    def _candidates(self, rng: np.random.Generator, observed: np.ndarray) -> np.ndarray:
        """Feasible mixtures (c, m): over the space, around what was observed, and vertices."""
        strengths = np.exp(rng.uniform(np.log(STRENGTHS[0]), np.log(20.0), CANDIDATES))
        wide = self.space.sample_dirichlet(
            CANDIDATES, rng, strength=strengths, temperature=TEMPERATURE
        )
        partners = observed[rng.integers(len(observed), size=CANDIDATES)]
        step = rng.uniform(0.02, 0.5, (CANDIDATES, 1))
        near = self.space.project(partners + step * (wide - partners))
        return np.concatenate([wide, near, self.space.vertices()])

    def _improve(self, acquisition: Any, starts: np.ndarray) -> np.ndarray:
        """`starts` (c, m) with the best improved by gradients, best first."""
        with torch.no_grad():
            values = acquisition(torch.from_numpy(starts)[:, None]).numpy()
        order = np.argsort(-values, kind="stable")
        firsts = first_apart(starts[order], np.empty((0, starts.shape[1])), STARTS, apart=0.1)
        better = self.space.project(self._climb(acquisition, starts[order][firsts]))
        with torch.no_grad():
            climbed = acquisition(torch.from_numpy(better)[:, None]).numpy()
        pool, values = np.concatenate([better, starts]), np.concatenate([climbed, values])
        return np.asarray(pool[np.argsort(-values, kind="stable")])

    def _climb(self, acquisition: Any, starts: np.ndarray) -> np.ndarray:
        """Local maxima (s, m) from `starts` (s, m), by SLSQP on √w: no gradient blows up at 0.

        All starts at once as one problem of s x m variables: a call of the acquisition costs
        about the same for four points as for one.
        """
        box, shape = self.space.polytope, starts.shape

        def loss(roots: np.ndarray) -> tuple[float, np.ndarray]:
            x: Tensor = torch.from_numpy(roots.reshape(shape).copy()).requires_grad_(True)
            value = -acquisition((x**2)[:, None]).sum()
            (slope,) = torch.autograd.grad(value, x)
            return float(value.detach()), slope.numpy().ravel()

        def rows(matrix: np.ndarray, limits: np.ndarray, kind: str) -> dict[str, Any]:
            """Room left, limits - matrix @ w, at every start, as a function of √w."""
            blocks = np.kron(np.eye(shape[0]), matrix)
            ends = np.tile(limits, shape[0])
            return {
                "type": kind,
                "fun": lambda u: ends - blocks @ u**2,
                "jac": lambda u: -2 * blocks * u,
            }

        constraints: list[Any] = [rows(np.ones((1, shape[1])), np.ones(1), "eq")]
        if len(box.matrix):
            constraints.append(rows(box.matrix, box.limits, "ineq"))
        bounds = list(zip(np.sqrt(box.lower).tolist(), np.sqrt(box.upper).tolist(), strict=True))
        found = minimize(
            loss,
            np.sqrt(starts).ravel(),
            jac=True,
            method="SLSQP",
            bounds=bounds * shape[0],
            constraints=constraints,
            options={"maxiter": STEPS, "ftol": 1e-6},
        )
        return np.asarray(found.x.reshape(shape) ** 2) if np.isfinite(found.x).all() else starts


def _first_new(ranked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The first of `ranked` (c, m) that repeats no `known` mixture, else the most distant one."""
    rows = first_apart(ranked, known, 1, APART)
    if len(rows):
        return np.asarray(ranked[rows[0]])
    return np.asarray(ranked[hellinger(ranked, known).min(axis=1).argmax()])
