"""Many small nonlinear least-squares problems at once: Levenberg–Marquardt with box bounds.

A law is fitted per metric, from several starts, and again for every fold that is held out: hundreds
of problems with few parameters. One after the other they take minutes (37 s a metric for the
mixing law by L-BFGS); as one batch, each iteration is a handful of batched products.

Shapes: b problems, n residuals, p parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Residuals = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From parameters (a, p) and the numbers (a,) of the problems that they belong to, to residuals
(a, n) and their derivatives (a, n, p). Only problems that have not converged are asked for."""


@dataclass(frozen=True)
class LeastSquares:
    """Where each problem came to rest.

    Attributes:
        parameters: (b, p).
        cost: (b,) half the sum of squared residuals (of their Huber losses); inf where not even
            the start had one.
        converged: (b,) whether the last step no longer mattered; else iterations ran out.
    """

    parameters: Tensor
    cost: Tensor
    converged: Tensor


def least_squares(
    residuals: Residuals,
    start: Tensor,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-9,
    huber: float | None = None,
) -> LeastSquares:
    """Minimise ½ Σ residual² of every problem, each with its own damping.

    Damping is scaled by the greatest diagonal of JᵀJ so far (Moré 1978: by the current one, a
    parameter that loses its influence runs away) and steered by how much of the predicted gain a
    step brought (Nielsen 1999). A parameter at a bound that its gradient pushes against is
    left out of the step. Deterministic; run it inside `reproducible` for one thread.

    Args:
        residuals: see `Residuals`. A prior is one more residual. Values that are not finite are
            taken as a step too far.
        start: (b, p), moved into the bounds.
        lower: (p,) or (b, p) least values; unbounded if None.
        upper: (p,) or (b, p) greatest values; unbounded if None.
        iterations: at most, per problem.
        tolerance: a problem rests when a step gains less than this share of its cost, or moves
            its parameters by less than this share of them.
        huber: residuals beyond this count linearly (Huber's loss); all squared if None.
    """
    low = torch.full_like(start, -torch.inf) if lower is None else lower.expand_as(start)
    high = torch.full_like(start, torch.inf) if upper is None else upper.expand_as(start)
    theta = torch.minimum(torch.maximum(start, low), high).clone()
    problems = torch.arange(len(theta))
    r, jacobian = residuals(theta, problems)
    cost = _cost(r, huber)
    converged = torch.zeros(len(theta), dtype=torch.bool)
    most = torch.zeros_like(theta)  # greatest diagonal of JᵀJ so far
    # from 1e-3, one decay in 12 ran off along c = -k, a = 0 in its first steps; from .01 none did
    damping, growth = torch.full_like(cost, 0.1), torch.full_like(cost, 2.0)

    active = problems[torch.isfinite(cost)]
    r, jacobian = r[active], jacobian[active]
    for _ in range(iterations):
        if not len(active):
            break
        gradient, normal = _normal(r, jacobian, huber)
        most[active] = torch.maximum(most[active], normal.diagonal(dim1=-2, dim2=-1))
        step, predicted = _step(
            gradient,
            normal,
            theta[active],
            low[active],
            high[active],
            damping[active],
            most[active],
        )
        there = theta[active] + step
        r_there, jacobian_there = residuals(there, active)
        cost_there = _cost(r_there, huber)
        gain = cost[active] - cost_there
        better = gain > 0  # False where not finite
        small = (gain.abs() <= tolerance * cost[active]) & (predicted <= tolerance * cost[active])
        small |= (step.abs() <= tolerance * (theta[active].abs() + tolerance)).all(dim=1)
        # nothing is left to gain, or no direction was found at any damping
        rests = small | (damping[active] > 1e14)

        ratio = torch.where(predicted > 0, gain / predicted, torch.zeros_like(gain))
        eased = damping[active] * (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 2.0)
        damping[active] = torch.where(
            better, eased.clamp_min(1e-14), damping[active] * growth[active]
        )
        growth[active] = torch.where(better, 2.0, 2 * growth[active])
        theta[active] = torch.where(better[:, None], there, theta[active])
        cost[active] = torch.where(better, cost_there, cost[active])
        converged[active] = rests
        r = torch.where(better[:, None], r_there, r)[~rests]
        jacobian = torch.where(better[:, None, None], jacobian_there, jacobian)[~rests]
        active = active[~rests]
    return LeastSquares(theta, cost, converged)


def _cost(r: Tensor, huber: float | None) -> Tensor:
    if huber is None:
        loss = 0.5 * r**2
    else:
        loss = torch.where(r.abs() <= huber, 0.5 * r**2, huber * (r.abs() - 0.5 * huber))
    return torch.nan_to_num(loss.sum(dim=1), nan=torch.inf, posinf=torch.inf)


def _normal(r: Tensor, jacobian: Tensor, huber: float | None) -> tuple[Tensor, Tensor]:
    """Gradient Jᵀr (a, p) and JᵀJ (a, p, p), residuals beyond `huber` weighed down."""
    weighted = jacobian
    if huber is not None:
        weighted = jacobian * (huber / r.abs().clamp_min(huber))[..., None]
    return (weighted.mT @ r[..., None])[..., 0], weighted.mT @ jacobian


def _step(
    gradient: Tensor,
    normal: Tensor,
    theta: Tensor,
    low: Tensor,
    high: Tensor,
    damping: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor]:
    """The damped Gauss–Newton step (a, p), cut to the bounds, and the gain (a,) it predicts."""
    held = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    gradient = gradient.masked_fill(held, 0.0)
    free = (~held).to(theta.dtype)
    normal = normal * free[:, :, None] * free[:, None, :]
    # a parameter without any influence still needs a pivot
    scale = torch.maximum(most, 1e-12 * most.amax(dim=1, keepdim=True)).clamp_min(1e-300)
    root = scale.rsqrt()  # columns of unit length: conditioning does not depend on units
    damped = normal * root[:, :, None] * root[:, None, :]
    damped.diagonal(dim1=-2, dim2=-1).add_(damping[:, None] + 1e-15)
    factor, failed = torch.linalg.cholesky_ex(damped)
    unit = torch.eye(theta.shape[1], dtype=theta.dtype)
    factor = torch.where((failed == 0)[:, None, None], factor, unit)
    step = -torch.cholesky_solve((gradient * root)[..., None], factor)[..., 0] * root
    step = torch.where((failed == 0)[:, None], step, torch.nan)  # refused like any step too far
    step = torch.minimum(torch.maximum(theta + step, low), high) - theta
    moved = (normal @ step[..., None])[..., 0]
    return step, -(gradient * step).sum(dim=1) - 0.5 * (moved * step).sum(dim=1)
