"""What more of a domain does to each metric, as a surrogate sees it.

Shapes: m domains, q metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.intervals import NORMAL_90
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.surrogates.base import Surrogate, learn
from mixopt.surrogates.scoring import OBJECTIVE

PARTS = 8  # of the jackknife
POINTS = 0.05  # what a domain's weight is raised by: a step that a person would try


@dataclass(frozen=True)
class Effects:
    """Changes of metrics when one domain gets more at the expense of all others, proportionally.

    Attributes:
        domains: m names, the rows.
        metrics: q names and `objective`, the columns.
        base: (m,) weights that the domains have.
        raised: (m,) weights that they are raised to, one at a time.
        change: (m, q + 1) expected changes, in the metrics' own units.
        std: (m, q + 1) standard deviations of the changes.
    """

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    base: np.ndarray
    raised: np.ndarray
    change: np.ndarray
    std: np.ndarray

    def turned(self, sign: int) -> Effects:
        """The same with `sign` (1 or -1) times the changes of the objective."""
        signs = np.array([*[1] * (len(self.metrics) - 1), sign])
        return dataclasses.replace(self, change=self.change * signs)


def effects(
    surrogate: Surrogate,
    objective: Objective,
    metrics: Sequence[str],
    at: Mixture,
    points: float = POINTS,
) -> Effects:
    """The effects of all domains at the mixture `at`.

    The deviation of a change is that of a difference of two predictions. These err together, which
    a surrogate with a joint posterior knows; for others the two errors are taken as independent,
    which overstates it.

    Args:
        surrogate: fitted; predicts at its own fidelity.
        objective: the last column.
        metrics: q names that the surrogate predicts.
        at: where.
        points: by how much a weight is raised, at most up to 1.
    """
    base = at.array
    m = len(base)
    raised = np.minimum(1.0, base + points)
    rest = np.where(base < 1, (1 - raised) / np.maximum(1 - base, 1e-300), 0.0)
    moved = base * rest[:, None]
    moved[np.arange(m), np.arange(m)] = raised
    weights = np.concatenate([base[None], moved])
    columns = [Objective({metric: 1.0}, prefix="") for metric in metrics] + [objective]
    change, std = np.zeros((m, len(columns))), np.zeros((m, len(columns)))
    prediction, joint = surrogate.predict(weights), surrogate.joint_posterior
    constant = np.ptp(prediction.mean, axis=0) == 0
    for j, column in enumerate(columns):
        if j < len(metrics) and constant[prediction.metrics.index(metrics[j])]:
            continue
        if joint is not None:
            mean, covariance = joint.joint(weights, column)
            variance = np.diag(covariance)[1:] + covariance[0, 0] - 2 * covariance[0, 1:]
        else:
            mean, deviation = prediction.compose(column)
            variance = deviation[1:] ** 2 + deviation[0] ** 2
        change[:, j] = mean[1:] - mean[0]
        std[:, j] = np.sqrt(np.maximum(variance, 0.0))
    return Effects(at.domains, (*metrics, OBJECTIVE), base, raised, change, std)


def jackknifed(
    found: Effects,
    table: TrialTable,
    fresh: Callable[[], Surrogate],
    objective: Objective,
    at: Mixture,
) -> Effects:
    """`found` with deviations by refits that leave out an eighth of the mixtures each.

    For surrogates that know no joint error of near mixtures: taken as independent, the errors
    overstate a difference's up to tenfold. The grouped jackknife; deviations are widened so that
    1.645 of them hold 90 % as Student's t of 7 degrees of freedom does.

    Args:
        found: effects by a surrogate of all rows.
        table: the rows that it was fitted to.
        fresh: makes an unfitted one.
        objective: as `found` has it.
        at: where.

    Raises:
        SurrogateError: what is left is too little to fit.
    """
    from scipy.stats import t

    _, group = np.unique(table.weights, axis=0, return_inverse=True)
    group = group.ravel()
    order = np.random.default_rng(0).permutation(int(group.max()) + 1)
    parts = np.array_split(order, min(PARTS, len(order)))
    changes = []
    for part in parts:
        rest = learn(fresh(), table.select(~np.isin(group, part)))
        changes.append(effects(rest, objective, found.metrics[:-1], at).change)
    each, g = np.stack(changes), len(parts)
    variance = (g - 1) / g * ((each - each.mean(axis=0)) ** 2).sum(axis=0)
    wider = float(t.ppf(0.95, g - 1)) / NORMAL_90
    return dataclasses.replace(found, std=wider * np.sqrt(variance))
