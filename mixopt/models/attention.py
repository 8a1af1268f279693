"""Causal self-attention with rotary positions, for a whole cohort.

Shapes: K proxies, B sequences, T positions, N = B·T tokens, D width, H heads, W = D/H head width,
S = K·B·H independent attention problems.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.models.config import ModelConfig

# Up to here plain products and a softmax over all T keys beat the fused kernel on a CPU, whose
# bf16 backward is 7 × slower at T = 128 (21.9 against 3.1 ms for 2,048 tokens of 4 heads).
LONGEST_PLAIN = 512


class Attention(nn.Module):
    """Multi-head causal attention; parameters `qkv` (K, D, 3D) and `out` (K, D, D)."""

    def __init__(self, config: ModelConfig, cohort: int) -> None:
        super().__init__()
        self.heads, self.theta = config.heads, config.rope_theta
        self.qkv = nn.Parameter(torch.empty(cohort, config.width, 3 * config.width))
        self.out = nn.Parameter(torch.empty(cohort, config.width, config.width))

    def forward(self, x_KND: Tensor, length: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attention among the `length` tokens of each sequence, (K, N, D) in x's dtype.

        Args:
            x_KND: normed input; sequences lie one after the other along N.
            length: T.
            rotary: cosines and sines as `rotary_tables` gives them.
        """
        cohort, tokens, width = x_KND.shape
        qkv_KNP = torch.bmm(x_KND, self.qkv.to(x_KND.dtype))
        qkv_3BHTW = qkv_KNP.view(-1, length, 3, self.heads, width // self.heads)
        qkv_3BHTW = qkv_3BHTW.permute(2, 0, 3, 1, 4)
        qk_2BHTW: Tensor = _Rotate.apply(qkv_3BHTW[:2], *rotary)
        y_BHTW = _causal(qk_2BHTW[0], qk_2BHTW[1], qkv_3BHTW[2])
        y_KND = y_BHTW.transpose(1, 2).reshape(cohort, tokens, width)
        return torch.bmm(y_KND, self.out.to(x_KND.dtype))


def _causal(q_BHTW: Tensor, k_BHTW: Tensor, v_BHTW: Tensor) -> Tensor:
    """softmax(q kᵀ / √W + causal mask) v."""
    length, width = q_BHTW.shape[-2:]
    if q_BHTW.is_cuda or length > LONGEST_PLAIN:
        return F.scaled_dot_product_attention(q_BHTW, k_BHTW, v_BHTW, is_causal=True)
    q_STW, k_STW = q_BHTW.flatten(0, 1), k_BHTW.flatten(0, 1)
    future_TT = q_STW.new_full((length, length), float("-inf")).triu(1)
    scores_STT = torch.baddbmm(future_TT, q_STW, k_STW.transpose(1, 2), alpha=width**-0.5)
    y_STW = torch.bmm(torch.softmax(scores_STT, -1), v_BHTW.reshape(k_STW.shape))
    return y_STW.view(q_BHTW.shape)


def rotary_tables(
    length: int, width: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, W/2) of rotary positions (2104.09864), half-split layout."""
    powers = torch.arange(0, width, 2, device=device, dtype=torch.float64) / width
    positions = torch.arange(length, device=device, dtype=torch.float64)
    angles_TV = torch.outer(positions, theta**-powers)
    return angles_TV.cos().to(dtype), angles_TV.sin().to(dtype)


class _Rotate(torch.autograd.Function):
    """Rotates channel pairs (i, i + W/2); the backward pass rotates the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos_TV: Tensor, sin_TV: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TV, sin_TV)
        return _rotate(x, cos_TV, sin_TV)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos_TV, sin_TV = ctx.saved_tensors
        return _rotate(dy, cos_TV, -sin_TV), None, None


def _rotate(x: Tensor, cos_TV: Tensor, sin_TV: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    y_left, y_right = y.chunk(2, -1)
    torch.mul(left, cos_TV, out=y_left).addcmul_(right, sin_TV, value=-1)
    torch.mul(left, sin_TV, out=y_right).addcmul_(right, cos_TV)
    return y
