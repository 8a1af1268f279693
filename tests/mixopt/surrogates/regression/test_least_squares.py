"""Many small least-squares problems at once end where SciPy ends one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from mixopt.surrogates.regression._least_squares import least_squares

TIMES = torch.linspace(0.1, 4.0, 30, dtype=torch.float64)


def decays(values: Tensor):
    """Residuals of values (b, n) against c + k exp(-a t), parameters (c, k, a)."""

    def residuals(theta: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        c, k, a = theta[:, 0:1], theta[:, 1:2], theta[:, 2:3]
        shrunk = torch.exp(-a * TIMES)
        r = c + k * shrunk - values[problems]
        return r, torch.stack([torch.ones_like(r), shrunk, -k * TIMES * shrunk], dim=2)

    return residuals


def examples(b: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.uniform([1, 0.5, 0.3], [3, 2.0, 2.0], (b, 3)))
    clean = truth[:, 0:1] + truth[:, 1:2] * torch.exp(-truth[:, 2:3] * TIMES)
    return truth, clean + noise * torch.from_numpy(rng.normal(size=(b, 30)))


def test_noise_free_curves_give_back_their_parameters() -> None:
    truth, values = examples(20, noise=0.0)
    found = least_squares(decays(values), torch.ones(20, 3, dtype=torch.float64))
    assert found.converged.all()
    torch.testing.assert_close(found.parameters, truth, rtol=1e-6, atol=1e-6)


def test_each_problem_ends_where_scipy_ends() -> None:
    _, values = examples(12, noise=0.05)
    start = 0.8 * torch.ones(12, 3, dtype=torch.float64)
    found = least_squares(decays(values), start)
    for b in range(12):
        alone = optimize.least_squares(
            lambda x, b=b: x[0] + x[1] * np.exp(-x[2] * TIMES.numpy()) - values[b].numpy(),
            start[b].numpy(),
            method="lm",
        )
        assert float(found.cost[b]) == pytest.approx(alone.cost, rel=1e-6)
        np.testing.assert_allclose(found.parameters[b].numpy(), alone.x, rtol=1e-3)


def test_a_problem_does_not_depend_on_its_neighbours() -> None:
    _, values = examples(6, noise=0.05)
    start = torch.ones(6, 3, dtype=torch.float64)
    together = least_squares(decays(values), start).parameters
    for b in range(6):
        alone = least_squares(decays(values[b : b + 1]), start[:1]).parameters[0]
        torch.testing.assert_close(together[b], alone, rtol=1e-6, atol=1e-8)


def test_bounds_hold_and_the_rest_is_still_at_its_best() -> None:
    _, values = examples(8, noise=0.05)
    low = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64)
    high = torch.tensor([10.0, 0.8, 1.0], dtype=torch.float64)
    found = least_squares(decays(values), torch.full((8, 3), 0.5, dtype=torch.float64), low, high)
    assert (found.parameters >= low).all()
    assert (found.parameters <= high).all()
    assert (found.parameters[:, 1] == 0.8).any()  # some of them would go further
    for b in range(8):
        alone = optimize.least_squares(
            lambda x, b=b: x[0] + x[1] * np.exp(-x[2] * TIMES.numpy()) - values[b].numpy(),
            [0.5, 0.5, 0.5],
            bounds=(low.numpy(), high.numpy()),
        )
        assert float(found.cost[b]) <= alone.cost * (1 + 1e-5)


def test_hubers_loss_shrugs_off_outliers_as_scipys_does() -> None:
    truth, values = examples(5, noise=0.01)
    values[:, 3] += 4.0
    start = torch.ones(5, 3, dtype=torch.float64)
    squared = least_squares(decays(values), start).parameters
    found = least_squares(decays(values), start, huber=0.02, iterations=300)
    assert (found.parameters - truth).abs().max() < (squared - truth).abs().max() / 5
    for b in range(5):
        alone = optimize.least_squares(
            lambda x, b=b: x[0] + x[1] * np.exp(-x[2] * TIMES.numpy()) - values[b].numpy(),
            [1.0, 1.0, 1.0],
            loss="huber",
            f_scale=0.02,
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
        assert float(found.cost[b]) <= alone.cost * (1 + 1e-4)


def test_a_start_without_a_value_is_given_back_as_hopeless() -> None:
    _, values = examples(2, noise=0.01)
    start = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1e6]], dtype=torch.float64)
    found = least_squares(decays(values), start)
    assert bool(found.converged[0])
    assert not bool(found.converged[1])
    assert float(found.cost[1]) == float("inf")


def test_a_parameter_without_influence_stays_where_it_began() -> None:
    def residuals(theta: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        r = theta[:, :1] - torch.arange(4.0, dtype=torch.float64)
        return r, torch.stack([torch.ones_like(r), torch.zeros_like(r)], dim=2)

    found = least_squares(residuals, torch.full((1, 2), 7.0, dtype=torch.float64))
    torch.testing.assert_close(
        found.parameters, torch.tensor([[1.5, 7.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )
