"""How soon other ways to search would have found what a study found, among its own mixtures.

Random order and RegMix (2407.01492) are replayed on the mixtures that a study has trained: each may
take only these. The study's own search found some of them, so both look better here than they would
over the whole space.

Shapes: n mixtures, c costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import gammaln

from mixopt import surrogates
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Role, Trial
from mixopt.offline.pool import Pool
from mixopt.offline.replay import FEWEST_START, Plan, replay
from mixopt.search import proposers
from mixopt.study.queries import search_trials, usual_fidelity

FEWEST = 8  # mixtures under which nothing is replayed: the start alone takes half of them
SEEDS = 3  # of RegMix: its start is random
FITS = 4  # of its regression per seed after the start; each takes .1 s, at 500 trials .4
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Reference:
    """The best so far of another way to search, by what it cost.

    Attributes:
        cost: (c,) training tokens spent.
        low: (c,) first quartile of the best objective so far.
        median: (c,) over seeds or orders.
        high: (c,) third quartile.
    """

    cost: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def references(trials: Sequence[Trial], objective: Objective) -> dict[str, Reference]:
    """`random` and `RegMix` on the mixtures that the search trained; empty where these are few.

    Empty too where trials were pruned, for what they would have measured is not known, and where
    the search has trained mixtures at several fidelities.

    Args:
        trials: of a study.
        objective: lower is better.
    """
    fidelity = usual_fidelity(trials)
    searched = [t for t in search_trials(trials) if t.result is not None]
    done = [t for t in searched if objective.of_trial(t) is not None]
    if fidelity is None or any(t.spec.fidelity != fidelity for t in searched):
        return {}
    mixtures = {t.spec.mixture.key for t in done}
    if len(mixtures) < FEWEST or len(done) < len(searched):
        return {}
    table = TrialTable.of(done, objective.metrics)
    pool = Pool.of(table, objective, costs=np.ones(len(table)))
    # once each: what repeats of a mixture cost is no matter of how it was found
    pool = _once(pool)
    design = {t.spec.mixture.key for t in done if t.spec.role is Role.DESIGN}
    start = max(FEWEST_START, min(len(design), len(pool.specs) // 2))
    found = {"random": random_order(pool.values), "RegMix": _regmix(pool, start)}
    return {
        name: Reference(it.cost * fidelity.tokens, it.low, it.median, it.high)
        for name, it in found.items()
    }


def random_order(values: np.ndarray) -> Reference:
    """Quartiles of the least of the first k of `values` (n,) in random order, for k = 1 … n.

    Exact: the least of k is above the i-th smallest in C(n - i, k) of C(n, k) draws.

    >>> random_order(np.array([3.0, 1.0, 2.0])).median.tolist()
    [2.0, 1.0, 1.0]
    """
    ordered = np.sort(values)
    n = len(ordered)
    k, i = np.arange(1, n + 1)[:, None], np.arange(1, n + 1)[None, :]
    left = np.maximum(n - i, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = _log_choose(left, k) - _log_choose(np.full_like(left, n), k)
    reached = 1 - np.where(left >= k, np.exp(logs), 0.0)  # (n, n) P(least of k <= i-th smallest)
    rows = [ordered[(reached >= share - 1e-12).argmax(axis=1)] for share in QUARTILES]
    return Reference(np.arange(1.0, n + 1), *rows)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    room = np.maximum(n - k, 0)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(room + 1))


def _once(pool: Pool) -> Pool:
    """The pool with the same cost for every mixture."""
    return Pool(
        pool.domains,
        pool.specs,
        pool.metrics,
        pool.values,
        np.ones(len(pool.specs)),
        pool.names,
        pool.objective,
        pool.target,
        priced=True,
    )


def _regmix(pool: Pool, start: int) -> Reference:
    """RegMix with its regression, LightGBM, after a start of `start` random mixtures."""
    n = len(pool.specs)
    batch = max(1, -(-(n - start) // FITS))
    plan = Plan(budget=n, initial=start, batch=batch, every=n)
    kind = proposers.find("regmix")
    best = pool.values[pool.best]
    lines = []
    for seed in range(SEEDS):
        fresh = partial(surrogates.make, "lightgbm", seed=seed)
        points = replay(pool, kind, fresh, plan, seed).points
        lines.append([best + point.trained for point in points[-n:]])
    low, median, high = np.quantile(np.array(lines), QUARTILES, axis=0)
    return Reference(np.arange(1.0, n + 1), low, median, high)
