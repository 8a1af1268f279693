"""Causal self-attention with rotary positions, for a whole cohort.

Shapes: K proxies, B sequences, T positions, N = B·T tokens, D width, H heads, W = D/H head width,
P = 3D queries, keys and values, S = B·H independent attention problems, M = K·B sequences of all
proxies, Q positions of a block.
`document_KBT` numbers the documents of a sequence: tokens attend to those of their own document
alone; None: a sequence is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mixopt.models.config import ModelConfig
from mixopt.models.fusion import fused
from mixopt.models.team import current

# Up to here plain products and a softmax, in blocks, beat the fused kernel on a CPU, whose
# bf16 backward is 7 × slower at T = 128 (21.9 against 3.1 ms for 2,048 tokens of 4 heads).
LONGEST_PLAIN = 512
BLOCK = 128  # queries that share one product; keys after the block's end are never touched


class Attention(nn.Module):
    """Multi-head causal attention; parameters `qkv` (K, D, 3D) and `out` (K, D, D)."""

    def __init__(self, config: ModelConfig, cohort: int) -> None:
        super().__init__()
        self.heads, self.theta = config.heads, config.rope_theta
        self.qkv = nn.Parameter(torch.empty(cohort, config.width, 3 * config.width))
        self.out = nn.Parameter(torch.empty(cohort, config.width, config.width))

    def forward(self, x_KND: Tensor, positions: Positions) -> Tensor:
        """Attention among the T tokens of each sequence, (K, N, D) in x's dtype.

        Args:
            x_KND: normed input; sequences lie one after the other along N.
            positions: of the tokens.
        """
        layer = (x_KND, self.qkv, self.out, *positions.rotary, self.heads)
        if _kernel_serves(x_KND, positions.length):
            return by_kernel(*layer, positions.mask_M1TT)
        y_KND: Tensor = _Plain.apply(*layer, positions.document_KBT)
        return y_KND


def _kernel_serves(x: Tensor, length: int) -> bool:
    return x.is_cuda or length > LONGEST_PLAIN


@fused
def by_kernel(
    x_KND: Tensor,
    qkv_KDP: Tensor,
    out_KDD: Tensor,
    cos_TW: Tensor,
    sin_TW: Tensor,
    heads: int,
    mask_M1TT: Tensor | None = None,
) -> Tensor:
    """The whole layer by torch's attention kernel, (K, N, D); the mask as of `kernel_mask`."""
    qkv_KNP = torch.bmm(x_KND, qkv_KDP.to(x_KND.dtype))
    qkv_3BHTW = _by_head(qkv_KNP.flatten(0, 1), len(cos_TW), heads)
    q_BHTW, k_BHTW = _rotate(qkv_3BHTW[:2], cos_TW, sin_TW)
    y_BHTW = F.scaled_dot_product_attention(
        q_BHTW, k_BHTW, qkv_3BHTW[2], mask_M1TT, is_causal=mask_M1TT is None
    )
    y_KND = y_BHTW.transpose(1, 2).reshape(x_KND.shape)
    return torch.bmm(y_KND, out_KDD.to(x_KND.dtype))


@dataclass(frozen=True)
class Positions:
    """Where the tokens of a sequence are, the same in every layer.

    Attributes:
        rotary: cosines and sines (T, W) as `rotary_tables` gives them.
        document_KBT: the document of each token, or None.
        mask_M1TT: the same for torch's attention kernel, where it serves.
    """

    rotary: tuple[Tensor, Tensor]
    document_KBT: Tensor | None = None
    mask_M1TT: Tensor | None = None

    @classmethod
    def of(cls, rotary: tuple[Tensor, Tensor], document_KBT: Tensor | None) -> Positions:
        """Those of a batch."""
        cos_TW, _ = rotary
        if document_KBT is None or not _kernel_serves(cos_TW, len(cos_TW)):
            return cls(rotary, document_KBT)
        return cls(rotary, document_KBT, kernel_mask(document_KBT, cos_TW.dtype))

    @property
    def length(self) -> int:
        """T."""
        return len(self.rotary[0])


def documents(ids: Tensor, end_of_text: int) -> Tensor:
    """The number of each token's document along the last axis, of the shape of `ids`.

    A document begins with the end-of-text token of the one before it, from which its first token is
    predicted: so does a text when the model is used.

    >>> documents(torch.tensor([5, 6, 0, 7, 0, 8]), end_of_text=0).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    return (ids == end_of_text).cumsum(-1)


def positions_within(ids_BT: Tensor, end_of_text: int) -> Tensor:
    """How far into its document each token is, (B, T): how transformers is told of documents.

    >>> positions_within(torch.tensor([[5, 6, 0, 7, 8]]), end_of_text=0).tolist()
    [[0, 1, 0, 1, 2]]
    """
    place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    begun_BT = torch.where(ids_BT == end_of_text, place_T, 0).cummax(1).values
    return place_T - begun_BT


def seen(document_BT: Tensor) -> Tensor:
    """Which keys a query attends to, (B, T, T) bool: of its document, and not after it."""
    own_BTT = document_BT.unsqueeze(2) == document_BT.unsqueeze(1)
    return own_BTT.tril()


def kernel_mask(document_KBT: Tensor, dtype: torch.dtype) -> Tensor:
    """What torch's kernel adds to the scores, (M, 1, T, T): 0 where a key is seen, else -inf.

    Made once for all layers: of a bool mask the kernel would keep such a one for each of them.
    """
    seen_MTT = seen(document_KBT.flatten(0, 1))
    mask_MTT = torch.zeros(seen_MTT.shape, dtype=dtype, device=seen_MTT.device)
    return mask_MTT.masked_fill_(~seen_MTT, float("-inf")).unsqueeze(1)


def rotary_tables(
    length: int, width: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, W) of rotary positions (2104.09864), half-split layout.

    Channels i and i + W/2 turn together; the sines of the left half are negative.
    """
    powers = torch.arange(0, width, 2, device=device, dtype=torch.float64) / width
    positions = torch.arange(length, device=device, dtype=torch.float64)
    angles_TV = torch.outer(positions, theta**-powers)
    cos_TV, sin_TV = angles_TV.cos().to(dtype), angles_TV.sin().to(dtype)
    return torch.cat([cos_TV, cos_TV], -1), torch.cat([-sin_TV, sin_TV], -1)


class _Plain(torch.autograd.Function):
    """The whole layer, one piece of work per shard of sequences; its gradients by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        x_KND: Tensor,
        qkv_KDP: Tensor,
        out_KDD: Tensor,
        cos_TW: Tensor,
        sin_TW: Tensor,
        heads: int,
        document_KBT: Tensor | None = None,
    ) -> Tensor:
        team = current()
        length = len(cos_TW)
        shards = team.shards(len(x_KND), x_KND.shape[1] // length)
        qkv_KDP, out_KDD = qkv_KDP.to(x_KND.dtype), out_KDD.to(x_KND.dtype)
        y_KND = torch.empty_like(x_KND)
        kept: list[list[Tensor]] = [[] for _ in shards]

        def work(piece: int) -> None:
            k, rows = _rows(shards[piece], length)
            document_BT = None if document_KBT is None else document_KBT[shards[piece]]
            qkv_3BHTW = _by_head(x_KND[k, rows] @ qkv_KDP[k], length, heads)
            q_STW, k_STW = _rotate(qkv_3BHTW[:2], cos_TW, sin_TW).flatten(1, 2)
            v_STW = qkv_3BHTW[2].reshape(q_STW.shape)
            heads_STW, shares = _attend(q_STW, k_STW, v_STW, document_BT)
            heads_ND = heads_STW.view(-1, heads, *heads_STW.shape[1:]).transpose(1, 2)
            heads_ND = heads_ND.reshape(-1, x_KND.shape[2])
            torch.mm(heads_ND, out_KDD[k], out=y_KND[k, rows])
            kept[piece] = [q_STW, k_STW, v_STW, heads_ND, *shares]

        team.run(work, len(shards))
        flat = [tensor for piece in kept for tensor in piece]
        ctx.save_for_backward(x_KND, qkv_KDP, out_KDD, cos_TW, sin_TW, *flat)
        ctx.shards, ctx.heads = shards, heads
        return y_KND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_KND: Tensor) -> tuple[Tensor | None, ...]:
        x_KND, qkv_KDP, out_KDD, cos_TW, sin_TW, *flat = ctx.saved_tensors
        team, length, heads, shards = current(), len(cos_TW), ctx.heads, ctx.shards
        each = len(flat) // len(shards)
        dx_KND = torch.empty_like(x_KND)
        dy_KND = dy_KND.contiguous()
        dqkv: list[Tensor | None] = [None] * len(shards)
        dout: list[Tensor | None] = [None] * len(shards)

        def work(piece: int) -> None:
            k, rows = _rows(shards[piece], length)
            q_STW, k_STW, v_STW, heads_ND, *shares = flat[piece * each : (piece + 1) * each]
            dout[piece] = heads_ND.T @ dy_KND[k, rows]
            dheads_BTHW = (dy_KND[k, rows] @ out_KDD[k].T).view(-1, length, heads, q_STW.shape[2])
            dheads_STW = dheads_BTHW.transpose(1, 2).reshape(q_STW.shape)
            dqkv_3BHTW = q_STW.new_empty(3, len(dheads_BTHW), heads, *q_STW.shape[1:])
            _attend_backward(q_STW, k_STW, v_STW, shares, dheads_STW, dqkv_3BHTW.flatten(1, 2))
            dqkv_3BHTW[:2] = _rotate(dqkv_3BHTW[:2], cos_TW, -sin_TW)
            dqkv_NP = dqkv_3BHTW.permute(1, 3, 0, 2, 4).reshape(len(heads_ND), -1)
            torch.mm(dqkv_NP, qkv_KDP[k].T, out=dx_KND[k, rows])
            dqkv[piece] = x_KND[k, rows].T @ dqkv_NP

        team.run(work, len(shards))
        proxies = [k for k, _ in shards]
        dqkv_KDP, dout_KDD = _gather(dqkv, proxies, qkv_KDP), _gather(dout, proxies, out_KDD)
        return dx_KND, dqkv_KDP, dout_KDD, None, None, None, None


def _attend(
    q_STW: Tensor, k_STW: Tensor, v_STW: Tensor, document_BT: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """softmax(q kᵀ / √W + mask) v, and the softmax of every block of queries."""
    length, width = q_STW.shape[1:]
    y_STW = torch.empty_like(q_STW)
    shares = []
    for start, end in _blocks(length):
        future_QT = q_STW.new_full((end - start, end), float("-inf")).triu(start + 1)
        k_SWT = k_STW[:, :end].transpose(1, 2)
        scores_SQT = torch.baddbmm(future_QT, q_STW[:, start:end], k_SWT, alpha=width**-0.5)
        if document_BT is not None:
            others_BQT = document_BT[:, start:end, None] != document_BT[:, None, :end]
            scores_BHQT = scores_SQT.view(len(document_BT), -1, *scores_SQT.shape[1:])
            scores_BHQT.masked_fill_(others_BQT.unsqueeze(1), float("-inf"))
        shares.append(torch.softmax(scores_SQT, -1))
        y_STW[:, start:end] = torch.bmm(shares[-1], v_STW[:, :end])
    return y_STW, shares


def _attend_backward(
    q_STW: Tensor,
    k_STW: Tensor,
    v_STW: Tensor,
    shares: list[Tensor],
    dy_STW: Tensor,
    dqkv_3STW: Tensor,
) -> None:
    """Write the gradients of `_attend`'s three inputs into `dqkv_3STW`."""
    length, width = q_STW.shape[1:]
    scale = width**-0.5
    dq_STW, dk_STW, dv_STW = dqkv_3STW
    # the last block sees every key: it writes, the ones before it add
    for (start, end), shares_SQT in reversed(list(zip(_blocks(length), shares, strict=True))):
        dy_SQW = dy_STW[:, start:end]
        dshares_SQT = torch.bmm(dy_SQW, v_STW[:, :end].transpose(1, 2))
        dscores_SQT = torch.ops.aten._softmax_backward_data(
            dshares_SQT, shares_SQT, -1, q_STW.dtype
        )
        add = 0.0 if end == length else 1.0
        dv_STW[:, :end].baddbmm_(shares_SQT.transpose(1, 2), dy_SQW, beta=add)
        q_SQW = q_STW[:, start:end]
        dk_STW[:, :end].baddbmm_(dscores_SQT.transpose(1, 2), q_SQW, beta=add, alpha=scale)
        dq_STW[:, start:end].baddbmm_(dscores_SQT, k_STW[:, :end], beta=0.0, alpha=scale)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _rows(shard: tuple[int, slice], length: int) -> tuple[int, slice]:
    """(proxy, rows along N) of a shard's sequences."""
    k, sequences = shard
    return k, slice(sequences.start * length, sequences.stop * length)


def _by_head(qkv_NP: Tensor, length: int, heads: int) -> Tensor:
    """A view (3, B, H, T, W) of queries, keys and values."""
    width = qkv_NP.shape[1] // (3 * heads)
    return qkv_NP.view(-1, length, 3, heads, width).permute(2, 0, 3, 1, 4)


def _gather(parts: list[Tensor | None], proxies: list[int], like_K: Tensor) -> Tensor:
    """Sum the shards' gradients of each proxy's weights in fp32, always in the same order."""
    total_K = torch.zeros(like_K.shape, device=like_K.device)
    for part, k in zip(parts, proxies, strict=True):
        assert part is not None
        total_K[k] += part
    return total_K


def _rotate(x: Tensor, cos_TW: Tensor, sin_TW: Tensor) -> Tensor:
    """Rotates channel pairs (i, i + W/2); the other way with negated sines."""
    # products of whole rows: on halves of 16 channels they take four times as long
    x = x.contiguous()
    left, right = x.chunk(2, -1)
    return (x * cos_TW).addcmul_(torch.cat([right, left], -1), sin_TW)
