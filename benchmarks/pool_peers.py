"""Searches of a pool as others do them: what `pool_search` compares with.

All model the objective itself, weighed before it is regressed, on raw weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.acquisition.cost_aware import InverseCostWeightedUtility
from botorch.acquisition.max_value_entropy_search import qMultiFidelityMaxValueEntropy
from botorch.acquisition.utils import project_to_target_fidelity
from botorch.fit import fit_gpytorch_mll
from botorch.models import AffineFidelityCostModel, SingleTaskGP, SingleTaskMultiFidelityGP
from botorch.models.transforms.outcome import Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood

from mixopt.core.errors import StudyError, SurrogateError
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.search.proposers.base import Proposer
from mixopt.surrogates._torch import reproducible
from mixopt.surrogates.regression.lightgbm import LightGBM

FEWEST = 4  # runs at the target before a Gaussian process is fitted to them


class Peer(Proposer):
    """A proposer for pools alone; recommends the best that it trained at the target."""

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """Not what it is for."""
        raise StudyError(f"{self.name} only picks from a pool", hint="Use it in a replay")

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """The `n` of `pool` with the greatest score; see `Proposer.select`."""
        left = self.offered(self.untried(trials, pool))
        with reproducible(self.seed):
            score = self.score(trials, left)
        return [left[i] for i in np.argsort(-score, kind="stable")[:n]]

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """See `Proposer.recommend`."""
        weights, values = self.known(trials, self.fidelity)
        if not len(values):
            raise SurrogateError("nothing was trained at the target")
        best = tuple(weights[int(np.argmax(values))])
        return next(spec for spec in pool if spec.mixture.weights == best)

    def offered(self, left: list[TrialSpec]) -> list[TrialSpec]:
        """The specs that it chooses among: those at the target."""
        return [spec for spec in left if spec.fidelity == self.fidelity]

    @abstractmethod
    def score(self, trials: Sequence[Trial], left: Sequence[TrialSpec]) -> np.ndarray:
        """(c,) what each of `left` is worth."""

    def known(
        self, trials: Sequence[Trial], fidelity: Fidelity | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights (n, m) and values (n,), larger is better, at `fidelity` (at any if None)."""
        done = [t for t in trials if fidelity is None or t.spec.fidelity == fidelity]
        weights = np.array([t.spec.mixture.weights for t in done])
        return weights, np.array([-self.objective.value(t.metrics) for t in done])


class RegMixTop(Peer):
    """RegMix (2407.01492) for a pool: LightGBM on the cheapest runs, the best predicted ones."""

    name: ClassVar[str] = "RegMix top-k"

    def score(self, trials: Sequence[Trial], left: Sequence[TrialSpec]) -> np.ndarray:
        """See `Peer.score`."""
        cheapest = min((t.spec.fidelity for t in trials), key=lambda f: f.params * f.tokens)
        trees = LightGBM(self.seed, cheapest, {}).fit(self.table(trials))
        predicted = trees.predict(np.array([spec.mixture.weights for spec in left]))
        return -predicted.compose(self.objective)[0]


class PlainEI(Peer):
    """BoTorch's SingleTaskGP of the objective on raw weights at the target, LogEI."""

    name: ClassVar[str] = "GP-EI"

    def score(self, trials: Sequence[Trial], left: Sequence[TrialSpec]) -> np.ndarray:
        """See `Peer.score`."""
        weights, values = self.known(trials, self.fidelity)
        if len(values) < FEWEST:
            return np.random.default_rng([self.seed, len(trials)]).random(len(left))
        x, y = torch.from_numpy(weights), torch.from_numpy(values)[:, None]
        model = SingleTaskGP(x, y, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        gain = LogExpectedImprovement(model, best_f=y.max())
        candidates = torch.tensor([spec.mixture.weights for spec in left], dtype=torch.float64)
        with torch.no_grad():
            return np.asarray(gain(candidates[:, None]).numpy())


class AdmireMES(Peer):
    """ADMIRE-BayesOpt (2508.11551): SingleTaskMultiFidelityGP and max-value entropy per cost.

    The fidelity is the mean cost of a run at it, relative to the target's.
    """

    name: ClassVar[str] = "ADMIRE MF-MES"

    def offered(self, left: list[TrialSpec]) -> list[TrialSpec]:
        """All fidelities."""
        return left

    def score(self, trials: Sequence[Trial], left: Sequence[TrialSpec]) -> np.ndarray:
        """See `Peer.score`."""
        weights, values = self.known(trials, None)
        place = self._places(trials)
        x = np.column_stack([weights, [place(t.spec.fidelity) for t in trials]])
        m = weights.shape[1]
        model = SingleTaskMultiFidelityGP(
            torch.from_numpy(x),
            torch.from_numpy(values)[:, None],
            data_fidelities=[m],
            outcome_transform=Standardize(m=1),
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        specs = [(*spec.mixture.weights, place(spec.fidelity)) for spec in left]
        candidates = torch.tensor(specs, dtype=torch.float64)

        def project(points: Any) -> Any:
            return project_to_target_fidelity(points, {m: 1.0}, m + 1)

        cost = AffineFidelityCostModel(fidelity_weights={m: 1.0}, fixed_cost=0.0)
        gain = qMultiFidelityMaxValueEntropy(
            model,
            candidate_set=project(candidates),
            cost_aware_utility=InverseCostWeightedUtility(cost_model=cost),
            project=project,
        )
        with torch.no_grad():
            return np.asarray(gain(candidates[:, None]).numpy())

    def _places(self, trials: Sequence[Trial]) -> Any:
        """Fidelity → mean cost there over that at the target, by parameters x tokens if not run."""
        took: dict[Fidelity, list[float]] = {}
        for trial in trials:
            seconds = trial.result.cost.device_seconds if trial.result else 0.0
            took.setdefault(trial.spec.fidelity, []).append(seconds)
        size = float(self.fidelity.params) * self.fidelity.tokens
        timed = self.fidelity in took and all(min(t) > 0 for t in took.values())

        def place(fidelity: Fidelity) -> float:
            if timed and fidelity in took:
                return float(np.mean(took[fidelity]) / np.mean(took[self.fidelity]))
            return float(fidelity.params) * fidelity.tokens / size

        return place
