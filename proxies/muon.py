"""Muon: the momentum of a matrix, made orthogonal, is its step.

Shapes: K proxies; a matrix parameter is (K, …, A, B), P matrices lie side by side along B.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOMENTUM = 0.95
UPDATE_RMS = 0.2  # that of AdamW's updates, so that both take the same learning rates
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SIDE_BY_SIDE = {"qkv": 3, "gate_up": 2, "shared_gate_up": 2}  # each is a matrix of its own


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon moves it: attention's and experts' weights, not embeddings, norms, routers."""
    return parameter.dim() > 2 and name.startswith("blocks.") and ".router." not in name


@torch.no_grad()
def move(
    name: str,
    weight_KAB: Tensor,
    gradient_KAB: Tensor,
    momentum_KAB: Tensor,
    rate_K: Tensor,
    decay: float,
    dtype: torch.dtype,
) -> None:
    """One step in place: W ← W − rate · (0.2 √max(A, B) · orthogonal(momentum) + decay · W).

    The scale is that of Moonlight (2502.16982); momentum is Nesterov's, as in the original Muon.

    Args:
        name: the parameter's, which tells the matrices that lie side by side.
        weight_KAB: the weights.
        gradient_KAB: their gradient, clipped.
        momentum_KAB: the running mean of gradients, updated.
        rate_K: learning rate of each proxy.
        decay: weight decay.
        dtype: of the products of the iteration.
    """
    momentum_KAB.lerp_(gradient_KAB, 1 - MOMENTUM)
    ahead_KAB = gradient_KAB.lerp(momentum_KAB, MOMENTUM)
    matrices = SIDE_BY_SIDE.get(name.rpartition(".")[2], 1)
    ahead_KAPB = ahead_KAB.view(*ahead_KAB.shape[:-1], matrices, -1)
    step_KPAB = orthogonal(ahead_KAPB.transpose(-2, -3).to(dtype))
    scale = UPDATE_RMS * max(step_KPAB.shape[-2:]) ** 0.5
    step_KAB = step_KPAB.transpose(-2, -3).flatten(-2).to(weight_KAB.dtype)
    rate_K11 = rate_K.view(-1, *[1] * (weight_KAB.dim() - 1))
    weight_KAB.mul_(1 - rate_K11 * decay).sub_(step_KAB * (rate_K11 * scale))


def orthogonal(x_XAB: Tensor) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ, (…, A, B): Newton–Schulz with Muon's five quintic steps.

    Its singular values end between 0.7 and 1.2, which trains as well as 1 and needs no more steps.
    A matrix of zeros stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = x_XAB.shape[-2] > x_XAB.shape[-1]
    x: Tensor = x_XAB.transpose(-1, -2) if tall else x_XAB
    x = x / x.float().norm(dim=(-2, -1), keepdim=True).clamp_min(1e-20).to(x.dtype)
    for _ in range(ITERATIONS):
        square = x @ x.transpose(-1, -2)
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.transpose(-1, -2) if tall else x
