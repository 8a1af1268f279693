"""Power laws of many curves at once: loss against steps, tokens or size, with a shared exponent.

    y_c(x) = E_c + B_c · x^(-b)        curve c, exponent b shared by all curves

is the step law and the size law of Data Mixing Laws (2403.16952): there E_c and B_c are free in
every curve and residuals are cut by Huber's threshold. Fitted alone, a curve of two points is
extrapolated with twice its own noise; so here curves of one metric are exchangeable draws,

    (level, slope)_c ~ N(μ, Σ),   y = level + slope · φ_b(x) + noise

where φ_b is x^(-b), centred and scaled over the points. Σ and the noise come from the data (EM), μ
is for given Σ and noise the generalised least-squares one (ECME, Liu and Rubin 1994), and its
uncertainty is part of what is predicted (Henderson 1975). For a given b everything else is linear
(variable projection, Golub and Pereyra 1973), so that b is a search over a grid, and its posterior
on the grid gives the standard deviation of the extrapolation. Curves with one point follow the
others' law; curves with many keep their own.

No table follows a power law to the end. At the place that is asked about, all curves of a metric
therefore lie off their laws by one common step d ~ N(0, (drift · fall)²), where fall is that of the
law from the nearest place. Points at that place show d; without any it widens the interval.

Shapes: p points, c curves, q metrics, g exponents on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.core.errors import SurrogateError

EXPONENTS = np.geomspace(0.05, 2.0, 40)  # b; neighbours differ by a tenth
METRICS_APART = 0.2  # standard deviation of log b among the metrics; .4 and .8 were 5 and 8 % worse
ITERATIONS = 80  # of EM; 40 and 160 moved no extrapolation of the published curves by 1e-3


# Deviation of d over the fall: the least with which 90 % intervals at places without a run hold .85
# or more in every split of every published table. Estimated from all tables but 2Mix, 3Mix, 5Mix,
# RedPajama it is .15, .15, .12, .15, and the one left out has 1.00, .97, .96, .98 inside (.72 or
# more in a split). Without d, .20 to 1.00 (`benchmarks/extrapolation.py --calibrate`).
DRIFT = 0.15


@dataclass(frozen=True)
class Kind:
    """What a law is over.

    Attributes:
        huber: residual beyond which a point counts less, in the unit of the values (2403.16952).
        typical: centre of the prior on b.
        spread: deviation of log b around it.
        alike: how many curves' evidence on b counts as that of one, because they err together.
        drift: deviation of the common step d from the law, over the fall from the nearest place.
    """

    huber: float
    typical: float
    spread: float
    alike: float = 1.0
    drift: float = DRIFT


# Learning curves of one study see the same batches and schedule at the same step, so that they
# leave the law together. With 1 / 4 / 10 curves counted as one, the ends of RedPajama's curves from
# half of them: errors .032 / .021 / .018, share inside the 90 % interval .57 / .95 / .96; from half
# of 5Mix's: .023 / .022 / .022 and .84 / .94 / .97. Chinchilla's exponent is .28 (2203.15556); a
# prior of .5 instead of .3 gives .030 and .79 for RedPajama.
STEPS = Kind(0.02, typical=0.3, spread=0.4, alike=4.0)
# Two sizes tell nothing of b, so that the prior does: between Chinchilla's .34 and the .6 of these
# tables with their 305M runs. Without those, .3 / .4 / .5 give errors of .047 / .031 / .018 (5Mix)
# with .30 / .97 / .99 inside the 90 % interval; with two of them all give .0091 to .0092.
SIZES = Kind(0.08, typical=0.4, spread=0.5)


@dataclass(frozen=True)
class LawFit:
    """Power laws fitted to c curves of q metrics.

    Attributes:
        at: the place asked about; None if curves leave the law nowhere.
        reached: whether a point is there.
        reference: x is divided by it.
        middle: (g,) mean of x^(-b) over the points.
        width: (g,) its standard deviation.
        chance: (q, g) posterior probability of each of `EXPONENTS`.
        theta: (q, g, c, 3) expected level, slope and step d at `at`.
        covariance: (q, g, c, 3, 3) their covariance, μ and d being known.
        common: (q, g, c, 3, 3) what is added to it because these are not: curves share it.
        noise: (q,) standard deviation of a point around its law.
        known: (q, c) whether the curve has a point of the metric.
    """

    at: float | None
    reached: bool
    reference: float
    middle: np.ndarray
    width: np.ndarray
    chance: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray
    common: np.ndarray
    noise: np.ndarray
    known: np.ndarray

    def residuals(self, x: np.ndarray, values: np.ndarray, curves: np.ndarray) -> np.ndarray:
        """(p, q) what `values` (p, q) at `x` (p,) of `curves` (p,) lie above their laws."""
        basis = self._basis(x)
        laws = np.einsum("qg,qgpk,gpk->pq", self.chance, self.theta[:, :, curves], basis)
        return np.asarray(values - laws)

    @property
    def exponent(self) -> np.ndarray:
        """(q,) posterior mean of b (geometric)."""
        return np.asarray(np.exp(self.chance @ np.log(EXPONENTS)))

    def predict(self, x: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What every curve comes to at `x`.

        Returns:
            mean: (c, q); NaN where a curve has no point of a metric.
            own: (c, q) standard deviation of a curve's law around it; b, μ and d being known.
            bent: (c, q) standard deviation that comes from not knowing b, nor d where no point
                tells it: all curves of a metric err together by it, and all metrics one way.
            shifted: (c, q) standard deviation that comes from not knowing μ, and d where points
                tell it: all curves of a metric err together by it.
        """
        basis = self._basis(np.array([x]))[:, 0]
        means = np.einsum("qgck,gk->qgc", self.theta, basis)
        shown = basis if self.reached else basis * [1.0, 1.0, 0.0]
        variances, common, untold = (
            np.einsum("qgckl,gk,gl->qgc", cover, at, at)
            for cover, at in (
                (self.covariance, basis),
                (self.common, shown),
                (self.common, basis - shown),
            )
        )
        mean = np.einsum("qg,qgc->qc", self.chance, means)
        own = np.einsum("qg,qgc->qc", self.chance, variances)
        bent = np.einsum("qg,qgc->qc", self.chance, (means - mean[:, None]) ** 2 + untold)
        shifted = np.einsum("qg,qgc->qc", self.chance, common)
        return (
            np.where(self.known, mean, np.nan).T,
            np.sqrt(np.maximum(own, 0.0)).T,
            np.sqrt(np.maximum(bent, 0.0)).T,
            np.sqrt(np.maximum(shifted, 0.0)).T,
        )

    def _basis(self, x: np.ndarray) -> np.ndarray:
        """(g, p, 3) 1, φ_b of `x` (p,), and whether `x` is the place asked about."""
        powers = _power(x / self.reference)
        course = (powers - self.middle[:, None]) / self.width[:, None]
        there = np.zeros(len(x)) if self.at is None else (x == self.at).astype(float)
        return np.stack(
            [np.ones_like(course), course, np.broadcast_to(there, course.shape)], axis=2
        )


def fit_laws(
    x: np.ndarray,
    values: np.ndarray,
    curves: np.ndarray,
    kind: Kind,
    noise: np.ndarray | None = None,
    at: float | None = None,
) -> LawFit:
    """Fit one power law to every curve, all metrics and exponents at once.

    Args:
        x: (p,) steps, tokens or parameters; positive.
        values: (p, q) losses; NaN where not measured.
        curves: (p,) curve of each point, 0 to c - 1.
        kind: `STEPS` or `SIZES`.
        noise: (q,) standard deviation of a point where it was measured, else NaN.
        at: the place that will be asked about, where curves may leave the law together.

    Raises:
        SurrogateError: all points are at one x.
    """
    if len(np.unique(x)) < 2:
        raise SurrogateError("all points of a law are at one place", hint="Measure at two or more")
    order = np.argsort(curves, kind="stable")
    x, values, curves = x[order], values[order], curves[order]
    starts = np.flatnonzero(np.r_[True, curves[1:] != curves[:-1]])
    known_QP = np.isfinite(values).T
    centre = np.array([column[k].mean() if k.any() else 0.0 for column, k in _columns(values)])
    scale = np.array([column[k].std() if k.any() else 1.0 for column, k in _columns(values)])
    scale = np.where(scale > 0, scale, 1.0)
    y_QP = np.where(known_QP, (np.nan_to_num(values).T - centre[:, None]) / scale[:, None], 0.0)

    reference = float(np.exp(np.log(x).mean()))
    powers = _power(x / reference)
    middle, width = powers.mean(axis=1), powers.std(axis=1)
    basis_GP = (powers - middle[:, None]) / width[:, None]
    fixed = np.full(len(scale), np.nan) if noise is None else noise / scale
    there, reach = _place(x, at)
    reach = kind.drift * (reach / reference**-EXPONENTS) / width
    fit = _expect(
        y_QP, known_QP.astype(float), basis_GP, starts, kind.huber / scale, fixed, there, reach
    )
    theta, covariance, common, sigma2, evidence = fit
    chance = _posterior(evidence / kind.alike, kind)
    theta = theta * scale[:, None, None, None]
    theta[..., 0] += centre[:, None, None]
    return LawFit(
        at=at,
        reached=bool(there.any()),
        reference=reference,
        middle=middle,
        width=width,
        chance=chance,
        theta=theta,
        covariance=covariance * (scale**2)[:, None, None, None, None],
        common=common * (scale**2)[:, None, None, None, None],
        noise=scale * np.sqrt((chance * sigma2).sum(axis=1)),
        known=np.add.reduceat(known_QP, starts, axis=1) > 0,
    )


def _columns(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(column, np.isfinite(column)) for column in values.T]


def _place(x: np.ndarray, at: float | None) -> tuple[np.ndarray, np.ndarray]:
    """(p,) which of `x` are `at`, and (g,) x^(-b) there less that at the nearest other place."""
    if at is None:
        return np.zeros(len(x)), np.zeros(len(EXPONENTS))
    others = x[x != at]
    near = others[np.argmin(np.abs(np.log(others / at)))]
    return (x == at).astype(float), at**-EXPONENTS - near**-EXPONENTS


def _power(x: np.ndarray) -> np.ndarray:
    """(g, p) x^(-b) for every exponent of the grid."""
    return np.asarray(x[None] ** -EXPONENTS[:, None])


# What EM starts from and is held to, in standardised values. The prior counts as PRIOR_CURVES more
# curves whose slopes scatter by .02, and as PRIOR_POINTS more points with a noise of .04: curves of
# two points have as many parameters as points, and tell scatter of slopes from noise by nothing
# else. 70M, 160M and two runs of 305M → 305M, error in nats (5Mix / RedPajama): .0092 / .0124;
# slopes of .05 with noise of .02 .0108 / .0153; noise of .06 .0093 / .0126; slopes of .01 .0095.
PRIOR_CURVES = 8.0
PRIOR_LEVEL, PRIOR_SLOPE = 0.3, 0.02
PRIOR_NOISE, PRIOR_POINTS = 0.04, 4.0
PRIOR_CENTRE = 2.0  # deviation of μ around 0: values and places are standardised, so it is about 1


def _expect(
    y_QP: np.ndarray,
    known_QP: np.ndarray,
    basis_GP: np.ndarray,
    starts: np.ndarray,
    huber: np.ndarray,
    noise: np.ndarray,
    there: np.ndarray,
    reach: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """EM over all metrics and exponents.

    Returns theta (q,g,c,3), covariance and common (q,g,c,3,3), variance and evidence (q,g). Points
    are sorted by curve, `starts` (c,) being the first of each; `there` (p,) are those that d
    raises, whose deviation is `reach` (g,) times the slope.
    """
    q, g = len(y_QP), len(basis_GP)
    lengths = np.diff(np.r_[starts, y_QP.shape[1]])

    def per_curve(points: np.ndarray) -> np.ndarray:
        return np.asarray(np.add.reduceat(points, starts, axis=-1))

    def spread(levels: np.ndarray) -> np.ndarray:
        return np.asarray(np.repeat(levels, lengths, axis=-1))

    prior = PRIOR_CURVES * np.diag([PRIOR_LEVEL**2, PRIOR_SLOPE**2])
    cover = np.broadcast_to(prior / PRIOR_CURVES + np.diag([1.0, 0.1]), (q, g, 2, 2)).copy()
    free = ~np.isfinite(noise)
    sigma2 = np.where(free, PRIOR_NOISE**2, np.nan_to_num(noise) ** 2 + 1e-12)[:, None]
    sigma2 = np.broadcast_to(sigma2, (q, g)).copy()
    weight = np.broadcast_to(known_QP[:, None], (q, g, y_QP.shape[1])).copy()
    count = known_QP.sum(axis=1)[:, None]
    seen = (per_curve(known_QP) > 0).astype(float)[:, None]  # (q, 1, c)
    number = seen.sum(axis=-1)
    centre: np.ndarray = np.ones((q, g, 3))  # level and slope of μ, and d
    for _ in range(ITERATIONS):
        drift2 = np.maximum((reach * centre[..., 1]) ** 2, 1e-12)
        # sufficient statistics of every curve
        s0, s1 = per_curve(weight), per_curve(weight * basis_GP)
        s2 = per_curve(weight * basis_GP**2)
        t0 = per_curve(weight * y_QP[:, None])
        t1 = per_curve(weight * y_QP[:, None] * basis_GP)
        d0, d1 = per_curve(weight * there), per_curve(weight * there * basis_GP)
        dy = per_curve(weight * there * y_QP[:, None])
        per = sigma2[..., None]
        inverse = np.linalg.inv(cover)
        a, b, d = (
            s0 / per + inverse[..., 0, 0, None],
            s1 / per + inverse[..., 0, 1, None],
            s2 / per + inverse[..., 1, 1, None],
        )
        det = a * d - b * b
        p00, p01, p11 = d / det, -b / det, a / det
        # The centre and d that are likeliest for them (generalised least squares). The centre drawn
        # to the mean of levels and slopes, as EM has it, takes thousands of steps where no mixture
        # was run at two places: 64 RegMix runs at 1M and 4 others at 60M left .65 nats of error.
        shrunk = np.stack([np.stack([p00, p01], -1), np.stack([p01, p11], -1)], -2)
        normal = (
            np.stack([np.stack([s0, s1], -1), np.stack([s1, s2], -1)], -2) / per[..., None, None]
        )
        right = np.stack([t0, t1], -1) / per[..., None]
        # how far levels and slopes follow d
        raised = np.stack([d0, d1], -1) / per[..., None]
        follow_d = np.einsum("qgckl,qgcl->qgck", shrunk, raised)
        information, pulled = np.empty((q, g, 3, 3)), np.empty((q, g, 3))
        information[..., :2, :2] = inverse @ np.einsum("qgckl,qgclm->qgkm", shrunk, normal)
        information[..., :2, :2] += np.eye(2) / PRIOR_CENTRE**2
        information[..., :2, 2] = np.einsum("qgkl,qgcl->qgk", inverse, follow_d)
        information[..., 2, :2] = information[..., :2, 2]
        information[..., 2, 2] = (d0 / per - (raised * follow_d).sum(-1)).sum(-1) + 1 / drift2
        pulled[..., :2] = np.einsum("qgkl,qgclm,qgcm->qgk", inverse, shrunk, right)
        pulled[..., 2] = (dy / per - (follow_d * right).sum(-1)).sum(-1)
        centre = np.linalg.solve(information, pulled[..., None])[..., 0]
        pull = np.einsum("qgkl,qgl->qgk", inverse, centre[..., :2])
        off = centre[..., 2, None]
        u = (t0 - off * d0) / per + pull[..., 0, None]
        v = (t1 - off * d1) / per + pull[..., 1, None]
        level, slope = (d * u - b * v) / det, (a * v - b * u) / det
        # the cover and the noise that these make likeliest
        e0, e1 = level - centre[..., 0, None], slope - centre[..., 1, None]
        s = [(seen * m).sum(axis=-1) for m in (p00 + e0 * e0, p01 + e0 * e1, p11 + e1 * e1)]
        cover = np.stack([np.stack([s[0], s[1]], -1), np.stack([s[1], s[2]], -1)], -2)
        cover = (cover + prior) / (number + PRIOR_CURVES)[..., None, None]
        residual = y_QP[:, None] - spread(level) - spread(slope) * basis_GP - off * there
        about = spread(p00) + 2 * spread(p01) * basis_GP + spread(p11) * basis_GP**2
        total = (weight * (residual**2 + about)).sum(axis=-1)
        found = (total + PRIOR_POINTS * PRIOR_NOISE**2) / (count + PRIOR_POINTS)
        sigma2 = np.where(free[:, None], found, sigma2)
        weight = known_QP[:, None] * np.minimum(
            1.0, huber[:, None, None] / np.maximum(np.abs(residual), 1e-12)
        )
    theta = np.stack([level, slope, np.broadcast_to(off, level.shape)], axis=-1)
    follow = np.zeros((q, g, len(starts), 3, 3))  # how far a curve's go with centre and d
    follow[..., :2, :2] = shrunk @ inverse[:, :, None]
    follow[..., :2, 2] = -follow_d
    follow[..., 2, 2] = 1.0
    common = follow @ np.linalg.inv(information)[:, :, None] @ follow.swapaxes(-1, -2)
    covariance = np.zeros_like(common)
    covariance[..., :2, :2] = shrunk
    # log density of the points with levels and slopes integrated out (matrix determinant lemma)
    apart = y_QP[:, None] - centre[..., 0, None] - centre[..., 1, None] * basis_GP - off * there
    r0, r1 = per_curve(weight * apart) / per, per_curve(weight * apart * basis_GP) / per
    explained = (p00 * r0**2 + 2 * p01 * r0 * r1 + p11 * r1**2).sum(axis=-1)
    quadratic = (weight * apart**2).sum(axis=-1) / per[..., 0] - explained
    covered = (seen * np.log(det)).sum(axis=-1) + number * np.log(np.linalg.det(cover))
    evidence = -0.5 * (quadratic + covered + count * np.log(per[..., 0]))
    evidence = evidence - 0.5 * PRIOR_POINTS * (np.log(sigma2) + PRIOR_NOISE**2 / sigma2)
    # and with d integrated out
    step = centre[..., 2] ** 2 / drift2 + np.log(drift2 * information[..., 2, 2])
    evidence = evidence - 0.5 * step
    return theta, covariance, common, sigma2, evidence


def _posterior(evidence: np.ndarray, kind: Kind) -> np.ndarray:
    """(q, g) probability of each exponent: metrics have their own, around a common one."""
    grid = np.log(EXPONENTS)
    common = -0.5 * ((grid - np.log(kind.typical)) / kind.spread) ** 2
    near = -0.5 * ((grid[:, None] - grid[None]) / METRICS_APART) ** 2  # own x common
    near = near - _logsumexp(near, axis=0)[None]
    # of every metric given the common exponent, and of the common one given all metrics
    given = evidence[:, :, None] + near[None]  # (q, own, common)
    total = _logsumexp(given, axis=1)  # (q, common)
    # metrics of one run err together: their evidence is not q times one metric's
    shared = common + total.mean(axis=0) * min(len(total), 2)
    shared = shared - _logsumexp(shared, axis=0)
    own = _logsumexp(given - total[:, None] + shared[None, None], axis=2)
    return np.asarray(np.exp(own - _logsumexp(own, axis=1)[:, None]))


def _logsumexp(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis))
