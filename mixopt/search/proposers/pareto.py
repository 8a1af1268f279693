"""Bayesian optimization of several objectives at once: what can be had, not one weighing of it.

Shapes: k objectives, c candidates, n proposals, m domains, q metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from scipy.cluster.hierarchy import fcluster, linkage

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Trial
from mixopt.search.proposers._candidates import candidates
from mixopt.search.proposers._hypervolume import contenders, greedy_hypervolume
from mixopt.search.proposers._improvement import DOUBT, marginal_log_improvement
from mixopt.search.proposers.bayes import Bayes
from mixopt.surrogates.base import JointSurrogate, Surrogate

GROUPS = 3  # objectives that metrics are joined to where the study names none
MOST_GROUPS = 5  # the cells of a front of 48 points grow past a million with six objectives
LEAN = 0.8  # weight of the objective that a set of candidates leans to


class Pareto(Bayes):
    """Noisy expected hypervolume improvement (qLogNEHVI, 2105.08195, 2310.20708).

    Every metric with a weight in the study's objective is an objective of its own, up to three.
    Of more metrics, those that move together over the trials are joined, by average linkage on
    their correlation, to three weighted means: hypervolumes of many objectives cannot be computed,
    and metrics that move together need no trading off. What is recommended is the best by the
    study's objective all the same.

    Args:
        space: where mixtures may lie.
        objective: whose metrics and signs count.
        fidelity: at which the trials are to run.
        surrogate: makes a fresh, unfitted surrogate.
        seed: of the search itself.
        trial_seed: of every proposed training.
        groups: metric names of each objective, two to five of them, instead of the above.

    Raises:
        StudyError: `groups` are too few or too many, or do not part the objective's metrics.
    """

    name: ClassVar[str] = "pareto"

    survives_pruning: ClassVar[bool] = False  # a trial may be the best at one objective alone

    def __init__(
        self,
        space: MixtureSpace,
        objective: Objective,
        fidelity: Fidelity,
        surrogate: Callable[[], Surrogate],
        seed: int = 0,
        trial_seed: int = 0,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__(space, objective, fidelity, surrogate, seed, trial_seed)
        self.groups = None if groups is None else _parted(groups, objective)

    def objectives(self, trials: Sequence[Trial]) -> list[Objective]:
        """The k objectives that are traded off, given the complete ones of `trials`."""
        names, weights = self.objective.metrics, self.objective.weights
        groups = self.groups
        if groups is None and len(names) > GROUPS:
            values = self.table(trials).measured.values * self.objective.coefficients
            groups = [[names[j] for j in group] for group in _moving_together(values)]
        elif groups is None:
            groups = [[name] for name in names]
        return [Objective({name: weights[name] for name in group}, prefix="") for group in groups]

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """The complete trials with all metrics that no other one beats in every objective."""
        done = [t for t in sorted(trials, key=lambda t: t.number) if t.complete]
        whole = [t for t in done if all(name in t.metrics for name in self.objective.metrics)]
        if not whole:
            return []
        values = [[o.value(t.metrics) for o in self.objectives(trials)] for t in whole]
        kept = is_non_dominated(-torch.tensor(values, dtype=torch.float64)).tolist()
        return [trial for trial, keep in zip(whole, kept, strict=True) if keep]

    def _candidates(
        self,
        surrogate: JointSurrogate,
        trials: Sequence[Trial],
        observed: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Candidates for the whole, and for leaning to each objective."""
        target = self.target(surrogate)
        parts = self.objectives(trials)
        spreads = [surrogate.predict(observed, target).compose(each)[0].std() for each in parts]
        found = [super()._candidates(surrogate, trials, observed, rng)]
        for lead in range(len(parts)):
            weights: dict[str, float] = {}
            for i, (part, spread) in enumerate(zip(parts, spreads, strict=True)):
                lean = LEAN if i == lead else (1 - LEAN) / max(1, len(parts) - 1)
                scale = lean / max(float(spread), 1e-12)
                weights |= {name: scale * weight for name, weight in part.weights.items()}
            found.append(
                candidates(
                    surrogate,
                    Objective(weights, prefix=""),
                    self.space,
                    observed,
                    len(trials),
                    rng,
                    target,
                )
            )
        return np.unique(np.concatenate(found), axis=0)

    def _screened(
        self, surrogate: JointSurrogate, trials: Sequence[Trial], weights: np.ndarray, most: int
    ) -> np.ndarray:
        if len(weights) <= most:
            return np.arange(len(weights))
        observed, _ = self.observed_and_pending(trials)
        target, parts = self.target(surrogate), [self.objective, *self.objectives(trials)]
        kept, chance = set[int](), self.space.log_feasible(weights)
        for part in parts:
            best = float(surrogate.predict(observed, target).compose(part)[0].min())
            gain = marginal_log_improvement(*surrogate.predict(weights, target).compose(part), best)
            gain = gain + chance
            kept |= {*np.argsort(-gain, kind="stable")[: most // len(parts)].tolist()}
        return np.array(sorted(kept))

    def _best(
        self,
        surrogate: JointSurrogate,
        trials: Sequence[Trial],
        weights: np.ndarray,
        n: int,
        free: np.ndarray,
        blocked: np.ndarray | None,
    ) -> list[int]:
        """The `n` of `free` rows of `weights` (c, m) that add most volume together."""
        parts = self.objectives(trials)
        if len(parts) < 2:  # nothing to trade off
            return super()._best(surrogate, trials, weights, n, free, blocked)
        observed, pending = self.feasible_and_pending(trials)
        if not len(observed):  # none is likely to keep to guardrails: volume from what there is
            observed, pending = self.observed_and_pending(trials)
        prediction = surrogate.predict(observed, self.target(surrogate))
        means, stds = (
            np.array(a) for a in zip(*(prediction.compose(o) for o in parts), strict=True)
        )
        front = torch.from_numpy(-means.T.copy())
        worst = -infer_reference_point(front[is_non_dominated(front)]).numpy()
        known = observed[contenders(means, stds, DOUBT)]
        base, c = np.concatenate([known, pending]), len(weights)
        both = np.concatenate([weights, base])
        moments = [self.moments(surrogate, both, part) for part in parts]
        if blocked is not None:
            blocked = np.pad(blocked, (0, len(base)))
        return greedy_hypervolume(
            np.array([mean for mean, _ in moments]),
            np.array([covariance for _, covariance in moments]),
            range(c, c + len(base)),
            free.tolist(),
            n,
            worst,
            self.seed,
            blocked,
            self.space.log_feasible(both),
        )


def _parted(groups: Sequence[Sequence[str]], objective: Objective) -> list[list[str]]:
    full = [[n if "/" in n else f"bpb/{n}" for n in group] for group in groups]
    named = [name for group in full for name in group]
    if not 2 <= len(full) <= MOST_GROUPS:
        raise StudyError(
            f"{len(full)} groups of metrics, 2 to {MOST_GROUPS} can be traded off", where="groups"
        )
    if sorted(named) != sorted(objective.metrics) or not all(full):
        raise StudyError(
            f"the groups name {', '.join(sorted(named))}, "
            f"the objective {', '.join(sorted(objective.metrics))}",
            where="groups",
            hint="Name every metric of the objective in exactly one group",
        )
    return full


def _moving_together(values: np.ndarray) -> list[list[int]]:
    """Columns of `values` (n, q) in GROUPS groups, by average linkage on their correlation."""
    whole = values[np.isfinite(values).all(axis=1)]
    centred = whole - whole.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    tied = (centred / np.where(scale > 0, scale, 1.0)).T @ (centred / np.where(scale > 0, scale, 1))
    apart = 1 - tied[np.triu_indices(values.shape[1], 1)]
    labels = fcluster(linkage(np.maximum(apart, 0.0), "average"), GROUPS, "maxclust")
    groups: dict[int, list[int]] = {}
    for column, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(column)
    return list(groups.values())
