"""MixMin: one proxy per domain, and the mixture whose ensemble predicts best. A convex problem.

Six proxies of 50k tokens, one per domain of the demo's text, predict 16 trained on mixtures of
them (`benchmarks/domain_models.py`, one seed): Spearman .95 of a domain's loss, .79 of the mean of
all. Averages of their parameters (merging, 2410.15661) are .68 bits per byte worse than what was
trained, as models from random weights cannot be averaged, and predict .81 and .15. Branched from a
trained seed model they can be: .002 worse, .91 and .39, where ensembles have .95 and .59.

Shapes: k corners (one proxy each), t evaluated tokens, m domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Trial, TrialSpec
from mixopt.search.designs import cut, extend
from mixopt.search.proposers._observed import best_observed
from mixopt.search.proposers.base import APART, Proposer, first_apart, hellinger

STEPS = 100  # of exponentiated gradient at most, and the first rate, as published
RATE = 1.0
GAP = 1e-6  # nats per token above the optimum at which it stops
NEAR = 512  # candidates around the optimum, for batches of more than one

# Of one complete trial: metric -> (t,) natural-log probabilities of its tokens, the same tokens in
# the same order for every trial; None where they were not kept.
Predictions = Callable[[Trial], Mapping[str, np.ndarray] | None]


def mixmin_weights(
    log_probs: np.ndarray,
    weights: np.ndarray | None = None,
    steps: int = STEPS,
    rate: float = RATE,
) -> tuple[np.ndarray, float]:
    """Weights (k,) under which the mean of k models predicts tokens best, and how nearly.

    Minimises -sum_t weights_t log sum_j r_j p_j(t) over the simplex by exponentiated gradient from
    the uniform point (MixMin, 2502.10510), halving the rate where a step would make it worse.

    Args:
        log_probs: (k, t) natural-log probability that each model gives each token.
        weights: (t,) how much each token counts, summing to 1; all the same if None.
        steps: at most.
        rate: the first.

    Returns:
        The weights, and a bound on how far they are above the optimum, in nats per token: by
        convexity the largest mean of p_j / sum_i r_i p_i, less 1.

    Raises:
        StudyError: a log-probability is above 0 or not finite, or shapes do not agree.
    """
    k, t = np.shape(log_probs)
    if not np.isfinite(log_probs).all() or np.max(log_probs, initial=0.0) > 1e-6:
        raise StudyError("log-probabilities must be finite and at most 0", where="mixmin")
    share = np.full(t, 1 / t) if weights is None else np.asarray(weights, dtype=float)
    if share.shape != (t,):
        raise StudyError(f"{share.shape} weights for {t} tokens", where="mixmin")
    probs = np.exp(log_probs - np.max(log_probs, axis=0))  # a factor per token changes no ratio

    def loss(r: np.ndarray) -> float:
        return float(-share @ np.log(r @ probs))

    r = np.full(k, 1 / k)
    value, gap = loss(r), np.inf
    for _ in range(steps):
        gain = probs @ (share / (r @ probs))  # minus the gradient; r @ gain is 1
        gap = float(gain.max() - 1)
        if gap <= GAP:
            break
        while rate > 1e-9:
            step = rate * (gain - gain.max())
            new = r * np.exp(step)
            new /= new.sum()
            if (ahead := loss(new)) <= value:
                r, value = new, ahead
                rate *= 1.5  # halved once, it would stay too small for the flat end
                break
            rate /= 2
    return r, max(0.0, gap)


class MixMin(Proposer):
    """First the space's vertices, one proxy each; then the mixture that their ensemble likes best.

    Where domains are bounded, the vertex with the most of a domain stands for it, so that every
    convex combination of them lies in the space. What is asked for beside the optimum (a batch,
    or once it was run) lies around it, best first.

    It needs what no other proposer does: the probability that each vertex's proxy gave to every
    evaluated token. A study's trials keep it where the study file names this proposer; tables of
    finished runs do not have it, so that on these it gets no further than the vertices.

    Args:
        *settings: those of `Proposer`.
        predictions: from a complete trial to the log-probabilities of its tokens.
        **named: those of `Proposer`.
    """

    name: ClassVar[str] = "mixmin"
    needs_token_losses: ClassVar[bool] = True
    survives_pruning: ClassVar[bool] = False  # the worst vertex is as much part of the ensemble

    def __init__(
        self, *settings: Any, predictions: Predictions | None = None, **named: Any
    ) -> None:
        super().__init__(*settings, **named)
        self.predictions = predictions

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        """See `Proposer.propose`; needs no complete trial before the vertices are.

        First the vertices that no trial is of, in the order of the domains, then, until all are
        complete, what a `vertices` design goes on with.

        Raises:
            StudyError: the vertices are trained and their predictions were not kept, or a metric
                of the objective is to be large.
            MixtureError: the space holds no further mixtures that are apart from the trials.
        """
        taken = self.mixtures_of(trials)
        solved = self._solved(trials)
        if solved is None:
            missing = [c for c in self._corners() if not self._standing_for(c, trials)][:n]
            if len(missing) < n:
                known = np.concatenate([taken, *(m.array[None] for m in missing)])
                missing += extend(self.space, known, n - len(missing), self.seed, "vertices")
            return self.specs(trials, missing)
        corners, log_probs, share, best = solved
        rng = self.rng(trials)
        strengths = rng.permutation(np.geomspace(10.0, 300.0, NEAR))
        alpha = np.maximum(strengths[:, None] * best, 0.02)
        near = rng.gamma(alpha)
        near /= near.sum(axis=1, keepdims=True)
        probs = np.exp(log_probs - log_probs.max(axis=0))
        loss = np.array([-share @ np.log(r @ probs) for r in near])  # in turn: t may be large
        ranked = np.concatenate([best[None], near[np.argsort(loss, kind="stable")]]) @ corners
        rows = first_apart(ranked, taken, n, APART)
        chosen = [self._feasible(ranked[i]) for i in rows]
        if len(chosen) < n:
            known = np.concatenate([taken, *(m.array[None] for m in chosen)])
            chosen += extend(self.space, known, n - len(chosen), self.seed, "dirichlet")
        return self.specs(trials, chosen)

    def select(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        """Until the vertices are complete, what is nearest to each of them; see `Proposer.select`.

        A pool seldom holds the vertices themselves. Each is asked for once: what was run may be
        nearer to it than all that is left.

        Raises:
            StudyError: see `propose`.
        """
        if self._solved(trials) is not None:
            return super().select(trials, pool, n)
        untried = self.untried(trials, pool)
        left = [spec for spec in untried if spec.fidelity == self.fidelity] or untried
        chosen: list[TrialSpec] = []
        taken = self.mixtures_of(trials)
        for corner in self._corners():
            if not left or len(chosen) == n:
                break
            weights = np.array([spec.mixture.weights for spec in left])
            away = hellinger(weights, corner.array[None])[:, 0]
            if away.min() < hellinger(taken, corner.array[None]).min(initial=1.0):
                chosen.append(left.pop(int(away.argmin())))
                taken = np.concatenate([taken, chosen[-1].mixture.array[None]])
        return chosen + super().select(trials, left, n - len(chosen))

    def recommend(self, trials: Sequence[Trial], pool: Sequence[TrialSpec]) -> TrialSpec:
        """The one of the pool nearest to the optimum; before there is one, the best that was run.

        Raises:
            StudyError: see `propose`.
            SurrogateError: no trial is complete.
        """
        solved = self._solved(trials)
        if solved is None:
            return best_observed(trials, pool, self.objective, self.fidelity)
        corners, _, _, best = solved
        weights = np.array([spec.mixture.weights for spec in pool])
        return pool[int(hellinger(weights, best[None] @ corners).argmin())]

    def _feasible(self, weights: np.ndarray) -> Mixture:
        return cut(self.space, self.space.project(weights))

    def _solved(
        self, trials: Sequence[Trial]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Corners (k, m), log-probabilities (k, t), token weights (t,) and the optimum (k,).

        None while a corner is not complete; one whose training failed is done without.
        """
        complete: list[Trial] = []
        for corner in self._corners():
            own = self._standing_for(corner, trials)
            done = [t for t in own if t.complete]
            if not done and not (own and all(t.ended for t in own)):
                return None
            complete += [t for t in done[:1] if t not in complete]
        if not complete:
            return None
        tokens, share = self._tokens(complete)
        best, _ = mixmin_weights(tokens, share)
        weights = np.array([trial.spec.mixture.weights for trial in complete])
        return weights, tokens, share, best

    def _corners(self) -> list[Mixture]:
        return [cut(self.space, weights) for weights in self.space.vertices()]

    def _standing_for(self, corner: Mixture, trials: Sequence[Trial]) -> list[Trial]:
        """The trials of `corner`, or of mixtures nearer to it than proposals are to each other."""
        here = [t for t in trials if t.spec.fidelity == self.fidelity]
        here = [t for t in here if t.spec.mixture.distance(corner) < APART]
        return sorted(here, key=lambda t: (t.spec.mixture != corner, t.number))

    def _tokens(self, complete: Sequence[Trial]) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities (k, t) over all metrics' tokens, and how much each token counts (t,).

        A token counts so that a trial's weighted sum is its objective: nats per token become the
        metric's unit by the ratio of the two, which is the same for every trial.
        """
        negative = [name for name, weight in self.objective.weights.items() if weight < 0]
        if negative:
            raise StudyError(
                "MixMin minimises losses, and this is to be large",
                where=f"objective: {negative[0]}",
                hint="Choose another proposer, or give losses alone",
            )
        kept = [None if self.predictions is None else self.predictions(t) for t in complete]
        for trial, own in zip(complete, kept, strict=True):
            missing = [k for k in self.objective.metrics if own is None or k not in own]
            if missing:
                raise StudyError(
                    f"trial {trial.number} kept no log-probabilities of the tokens of {missing[0]}",
                    where="search.proposer: mixmin",
                    hint="Choose another proposer for finished runs, or give "
                    "MixMin(predictions=...), from a trial to its tokens' log-probabilities",
                )
        found = [losses for losses in kept if losses is not None]
        pieces, share = [], []
        for metric, weight in self.objective.weights.items():
            rows = [np.asarray(losses[metric], dtype=float) for losses in found]
            if len({row.shape for row in rows}) != 1:
                raise StudyError(
                    "trials were not evaluated on the same tokens", where=f"mixmin: {metric}"
                )
            unit = complete[0].metrics[metric] / -float(rows[0].mean())
            pieces.append(np.stack(rows))
            share.append(np.full(len(rows[0]), weight * unit / len(rows[0])))
        total = np.concatenate(share)
        return np.concatenate(pieces, axis=1), total / total.sum()
