"""What a measurement is worth before it is made: knowledge gradient and max-value entropy.

Shapes: a mixtures at the target fidelity, c possible measurements, s sampled minima. Lower is
better throughout.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, logsumexp

from mixopt.search.proposers._improvement import log_excess

SPAN = 8.0  # deviations of the measurement beyond which nothing is integrated: P = 1e-15
NODES = 96  # of the entropy's quadrature
STEEPEST = 0.998  # correlation beyond which the density of y is a cliff that nodes would miss


def log_knowledge_gradient(mean: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """(c,) log of how far each measurement is expected to lower the least posterior mean.

    E[min_a(mean_a)] - E[min_a(mean_a + slope_a Z)], exactly: the minimum of lines in Z is piecewise
    linear, and each kink adds its change of slope times an expected excess (Frazier, Powell and
    Dayanik 2009, algorithm 1). In logarithms, so that small values still rank.

    Args:
        mean: (a,) posterior means.
        slopes: (c, a) change of the means by one deviation of the measurement.
    """
    lead = int(np.argmin(mean))
    found = np.full(len(slopes), -np.inf)
    for row, slope in enumerate(slopes):
        # lines that cannot cross the leading one within the span are never the least
        near = np.flatnonzero(mean - mean[lead] <= SPAN * np.abs(slope - slope[lead]))
        lines = np.union1d(near, [lead])
        kinks, jumps = lower_envelope(mean[lines], slope[lines])
        if len(kinks):
            found[row] = logsumexp(np.log(jumps) + log_excess(-np.abs(kinks)))
    return found


def lower_envelope(levels: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where min over lines levels + slopes x bends: kinks (k,), ascending, and by how much (k,)."""
    order = np.lexsort((levels, -slopes))  # from the steepest, which is least at minus infinity
    hull: list[int] = []
    starts: list[float] = []
    for line in order.tolist():
        if hull and slopes[hull[-1]] == slopes[line]:
            continue  # parallel and not lower
        while hull:
            top = hull[-1]
            cross = (levels[line] - levels[top]) / (slopes[top] - slopes[line])
            if cross > starts[-1]:
                break
            hull.pop()
            starts.pop()
        starts.append(cross if hull else -np.inf)
        hull.append(line)
    kept = slopes[hull]
    return np.array(starts[1:]), kept[:-1] - kept[1:]


def max_value_information(
    mean: np.ndarray, std: np.ndarray, correlation: np.ndarray, minima: np.ndarray
) -> np.ndarray:
    """(c,) nats that each measurement tells about the least value at the target.

    The entropy of the measurement y less its entropy given that the objective f of the same
    mixture at the target is no less than the minimum, averaged over sampled minima
    (Takeno et al. 1901.08275, as in ADMIRE-BayesOpt 2508.11551). y given f >= minimum is extended
    skew normal; its entropy is one integral, done by quadrature. A cheap measurement differs from
    one at the target by its correlation with f alone.

    Args:
        mean: (c,) of f.
        std: (c,) of f.
        correlation: (c,) between y, noise included, and f.
        minima: (s,) samples of the least value at the target.
    """
    gamma = (minima[None] - mean[:, None]) / np.maximum(std, 1e-12)[:, None]  # (c, s)
    rho = np.clip(np.abs(correlation), 1e-6, STEEPEST)[:, None, None]  # the sign mirrors y alone
    edge = np.sqrt(1 - rho**2) / rho  # over which the density of y falls to 0, at y = gamma / rho
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low = np.clip(gamma[..., None] / rho - SPAN * edge, -SPAN, SPAN)
    high = np.maximum(SPAN, low + SPAN)
    half = (high - low) / 2
    y = low + half * (1 + nodes)
    log_normal = -0.5 * y**2 - 0.5 * np.log(2 * np.pi)
    log_mass = log_ndtr(-gamma)[..., None]  # log P(f >= minimum)
    tilt = log_ndtr((y - gamma[..., None] / rho) / edge) - log_mass
    logs = log_normal + tilt
    entropy = -(half[..., 0] * (weights * np.exp(logs) * logs).sum(axis=-1))
    gain = 0.5 * np.log(2 * np.pi * np.e) - entropy
    return np.asarray(np.maximum(gain, 0.0).mean(axis=1))


def sampled_minima(
    mean: np.ndarray, covariance: np.ndarray, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """(samples,) draws of the least of a joint Gaussian with mean (a,) and covariance (a, a)."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray((mean + rng.normal(size=(samples, len(mean))) @ root.T).min(axis=1))
