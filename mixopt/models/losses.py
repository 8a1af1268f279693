"""Cross-entropy over a large vocabulary, its gradient computed in the forward pass by row chunks.

Shapes: K proxies, N tokens, D width, V vocabulary, C rows of one chunk.

The logits of a whole batch never exist at once, and the backward pass is one multiplication:
2.5 × the tokens per second of the plain way on a CPU when the rest of the step is tuned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixopt.models.fusion import fused
from mixopt.models.team import current

CHUNK_LOGITS = 1 << 20  # logits of one chunk: small enough for a CPU's last-level cache
# A large vocabulary leaves the cache anyway: adding each chunk's gradient of the head, V · D, then
# costs more, and 256 rows take a quarter less time than 64 (50,304 tokens). This bounds memory.
CHUNK_ROWS, MOST_LOGITS = 256, 1 << 24
GPU_LOGITS = 1 << 27  # of all proxies in one chunk on a GPU: enough to fill it, half a GiB of fp32


def cross_entropy(
    x_KND: Tensor, head_KVD: Tensor, targets_KN: Tensor, mask_KN: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood in nats per real token, (K,) fp32.

    Args:
        x_KND: final hidden states, in the dtype of the products.
        head_KVD: output head, same dtype.
        targets_KN: int64 token ids.
        mask_KN: True where a target counts; None if all do.
    """
    by = _CrossEntropyOfAll if x_KND.is_cuda else _CrossEntropy
    out: Tensor = by.apply(x_KND, head_KVD, targets_KN, mask_KN)
    return out


@torch.no_grad()
def token_nats(x_KND: Tensor, head_KVD: Tensor, targets_KN: Tensor) -> Tensor:
    """Negative log-likelihood of every target in nats, (K, N), softmax in fp32 (for evaluation)."""
    nats_KN = torch.empty(targets_KN.shape, device=x_KND.device)
    if x_KND.is_cuda:
        for rows in _chunks_of_all(head_KVD, targets_KN):
            logits_KCV = torch.bmm(x_KND[:, rows], head_KVD.mT).float()
            targets_KC1 = targets_KN[:, rows, None]
            right_KC = logits_KCV.gather(2, targets_KC1).squeeze(2)
            nats_KN[:, rows] = logits_KCV.logsumexp(-1) - right_KC
        return nats_KN
    shards = current().shards(*targets_KN.shape)

    def work(piece: int) -> None:
        k, tokens = shards[piece]
        for rows in _chunks(tokens, head_KVD.shape[1]):
            logits_CV = (x_KND[k, rows] @ head_KVD[k].T).float()
            targets_C1 = targets_KN[k, rows, None]
            nats_KN[k, rows] = logits_CV.logsumexp(-1) - logits_CV.gather(1, targets_C1).squeeze(1)

    current().run(work, len(shards))
    return nats_KN


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_KND: Tensor, head_KVD: Tensor, targets_KN: Tensor, mask_KN: Tensor | None
    ) -> Tensor:
        share_KN = _shares(targets_KN, mask_KN)
        nats_KN = torch.empty(targets_KN.shape, device=x_KND.device)
        dx_KND = torch.empty_like(x_KND)
        shards = current().shards(*targets_KN.shape)
        dhead = [torch.zeros(head_KVD.shape[1:], device=x_KND.device) for _ in shards]

        def work(piece: int) -> None:
            k, tokens = shards[piece]
            for rows in _chunks(tokens, head_KVD.shape[1]):
                x_CD, share_C1 = x_KND[k, rows], share_KN[k, rows, None].to(x_KND.dtype)
                nats_KN[k, rows], dlogits_CV = _nats(x_CD, head_KVD[k], targets_KN[k, rows])
                # scaling the D-wide sides by the token's share saves a pass over the V-wide one
                torch.mul(dlogits_CV @ head_KVD[k], share_C1, out=dx_KND[k, rows])
                dhead[piece] += dlogits_CV.T @ (x_CD * share_C1)

        current().run(work, len(shards))
        ctx.save_for_backward(dx_KND, _add_up(dhead, [k for k, _ in shards], head_KVD))
        return _mean(nats_KN, share_KN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss_K: Tensor) -> tuple[Tensor | None, ...]:
        dx_KND, dhead_KVD = ctx.saved_tensors
        scale_K11 = dloss_K.to(dx_KND.dtype).view(-1, 1, 1)
        return dx_KND * scale_K11, dhead_KVD * scale_K11, None, None


class _CrossEntropyOfAll(_CrossEntropy):
    """Rows of all proxies at once: a GPU would spend its time on launches otherwise."""

    @staticmethod
    def forward(
        ctx: Any, x_KND: Tensor, head_KVD: Tensor, targets_KN: Tensor, mask_KN: Tensor | None
    ) -> Tensor:
        share_KN = _shares(targets_KN, mask_KN)
        nats_KN = torch.empty(targets_KN.shape, device=x_KND.device)
        dx_KND = torch.empty_like(x_KND)
        dhead_KVD = torch.zeros(head_KVD.shape, device=x_KND.device)
        for rows in _chunks_of_all(head_KVD, targets_KN):
            x_KCD, share_KC1 = x_KND[:, rows], share_KN[:, rows, None].to(x_KND.dtype)
            logits_KCV = torch.bmm(x_KCD, head_KVD.mT)
            nats_KN[:, rows], dlogits_KCV = _nats_of_all(logits_KCV, targets_KN[:, rows])
            torch.mul(torch.bmm(dlogits_KCV, head_KVD), share_KC1, out=dx_KND[:, rows])
            dhead_KVD += torch.bmm(dlogits_KCV.mT, x_KCD * share_KC1)
        ctx.save_for_backward(dx_KND, dhead_KVD.to(head_KVD.dtype))
        return _mean(nats_KN, share_KN)


@fused
def _nats_of_all(logits_KCV: Tensor, targets_KC: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of the targets, (K, C), and the gradient of their sum to the logits, (K, C, V)."""
    log_KCV = torch.log_softmax(logits_KCV.float(), -1)
    nats_KC = -log_KCV.gather(2, targets_KC.unsqueeze(2)).squeeze(2)
    vocabulary_V = torch.arange(log_KCV.shape[2], device=log_KCV.device)
    right_KCV = vocabulary_V == targets_KC.unsqueeze(2)
    return nats_KC, (log_KCV.exp() - right_KCV.float()).to(logits_KCV.dtype)


def _shares(targets_KN: Tensor, mask_KN: Tensor | None) -> Tensor:
    """What a token counts in its proxy's mean, (K, N) fp32."""
    if mask_KN is None:
        return torch.full(targets_KN.shape, 1 / targets_KN.shape[1], device=targets_KN.device)
    return mask_KN / mask_KN.sum(1, keepdim=True).clamp_min(1)


def _mean(nats_KN: Tensor, share_KN: Tensor) -> Tensor:
    # where, not times: a padded target of probability 0 must not make 0 · inf
    return torch.where(share_KN > 0, nats_KN * share_KN, 0.0).sum(1)


def _nats(x_CD: Tensor, head_VD: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of the targets, (C,), and the gradient of their sum to the logits, (C, V)."""
    dlogits_CV = torch.softmax(x_CD @ head_VD.T, -1)
    # flat index_select and index_copy_: scatter_add_ on a CPU takes a third of the step
    flat = dlogits_CV.view(-1)
    places_C = torch.arange(len(targets_C), device=flat.device) * len(head_VD) + targets_C
    p_C = flat.index_select(0, places_C)
    flat.index_copy_(0, places_C, p_C - 1)
    return -p_C.float().log(), dlogits_CV


def _add_up(parts: list[Tensor], proxies: list[int], head_KVD: Tensor) -> Tensor:
    """Each proxy's sum of its fp32 parts, always in the same order, in the head's dtype."""
    total_KVD = torch.empty_like(head_KVD)
    for k in range(len(head_KVD)):
        first, *rest = (part for part, proxy in zip(parts, proxies, strict=True) if proxy == k)
        for part in rest:
            first += part
        total_KVD[k] = first
    return total_KVD


def _chunks(tokens: slice, vocabulary: int) -> list[slice]:
    """The rows of every chunk of these tokens."""
    size = max(64, CHUNK_LOGITS // vocabulary, min(CHUNK_ROWS, MOST_LOGITS // vocabulary))
    return [slice(i, min(i + size, tokens.stop)) for i in range(tokens.start, tokens.stop, size)]


def _chunks_of_all(head_KVD: Tensor, targets_KN: Tensor) -> list[slice]:
    """Rows of every chunk of all proxies."""
    tokens, logits = targets_KN.shape[1], targets_KN.numel() * head_KVD.shape[1]
    chunks = min(tokens, -(-logits // GPU_LOGITS))
    size = -(-tokens // chunks)
    return [slice(i, min(i + size, tokens)) for i in range(0, tokens, size)]
