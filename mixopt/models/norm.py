"""RMSNorm together with the residual addition before it, its gradient by hand.

Shapes: K proxies, X of them in one piece of work, N tokens of one proxy, D width.

The stream is read once forwards and once backwards; by autograd's own rules for the same formula
a norm costs ten passes over it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixopt.models.fusion import fused
from mixopt.models.team import current

NORM_EPSILON = 1e-5


def add_and_norm(
    x_KND: Tensor, y_KND: Tensor | None, weight_KD: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum s = x + y and its RMSNorm n = s / √(mean s² + ε) · weight, in fp32.

    Args:
        x_KND: the stream, fp32.
        y_KND: what is added to it, in any dtype; None is 0.
        weight_KD: scales.
        dtype: of the products that read n.

    Returns:
        s, n, and n in `dtype`, each (K, N, D).
    """
    if x_KND.is_cuda:
        return by_autograd(x_KND, y_KND, weight_KD, dtype)
    stream_KND, normed_KND, low_KND = _AddAndNorm.apply(x_KND, y_KND, weight_KD, dtype)
    return stream_KND, normed_KND, normed_KND if low_KND is None else low_KND


@fused
def by_autograd(
    x_KND: Tensor, y_KND: Tensor | None, weight_KD: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """As `add_and_norm`, operator by operator: a compiler makes one kernel each way of it."""
    stream_KND = x_KND if y_KND is None else x_KND + y_KND
    scale_KN1 = torch.rsqrt(stream_KND.square().mean(-1, keepdim=True) + NORM_EPSILON)
    normed_KND = stream_KND * scale_KN1 * weight_KD.unsqueeze(1)
    return stream_KND, normed_KND, normed_KND.to(dtype)


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_KND: Tensor, y_KND: Tensor | None, weight_KD: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        stream_KND, normed_KND = torch.empty_like(x_KND), torch.empty_like(x_KND)
        low_KND = None if dtype == x_KND.dtype else torch.empty_like(x_KND, dtype=dtype)
        scale_KN1 = x_KND.new_empty(*x_KND.shape[:2], 1)
        blocks = current().blocks(*x_KND.shape[:2])

        def work(piece: int) -> None:
            block = blocks[piece]
            y_XND = 0 if y_KND is None else y_KND[block]
            stream_XND = torch.add(x_KND[block], y_XND, out=stream_KND[block])
            mean_XN1 = stream_XND.square().mean(-1, keepdim=True)
            torch.rsqrt(mean_XN1.add_(NORM_EPSILON), out=scale_KN1[block])
            normed_XND = torch.mul(stream_XND, scale_KN1[block], out=normed_KND[block])
            normed_XND *= weight_KD[block[0], None]
            if low_KND is not None:
                low_KND[block] = normed_XND

        current().run(work, len(blocks))
        ctx.save_for_backward(stream_KND, scale_KN1, weight_KD)
        ctx.y_dtype = None if y_KND is None else y_KND.dtype
        ctx.set_materialize_grads(False)
        return stream_KND, normed_KND, low_KND

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dstream_KND: Tensor | None, dnormed_KND: Tensor | None, dlow_KND: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        stream_KND, scale_KN1, weight_KD = ctx.saved_tensors
        ds_KND = torch.empty_like(stream_KND)
        dy_KND = None
        if ctx.y_dtype is not None:
            dy_KND = torch.empty_like(stream_KND, dtype=ctx.y_dtype)
        blocks = current().blocks(*stream_KND.shape[:2])
        dweight: list[Tensor | None] = [None] * len(blocks)

        def work(piece: int) -> None:
            block = blocks[piece]
            parts = [d[block] for d in (dnormed_KND, dlow_KND) if d is not None]
            ds_XND = ds_KND[block]
            if len(parts) == 2:
                torch.add(*parts, out=ds_XND)
            else:
                ds_XND.copy_(parts[0]) if parts else ds_XND.zero_()
            unit_XND = stream_KND[block] * scale_KN1[block]
            dweight[piece] = (ds_XND * unit_XND).sum(1)
            ds_XND *= weight_KD[block[0], None]
            along_XN1 = (ds_XND * unit_XND).mean(-1, keepdim=True)
            ds_XND.addcmul_(unit_XND, along_XN1, value=-1).mul_(scale_KN1[block])
            if dstream_KND is not None:
                ds_XND += dstream_KND[block]
            if dy_KND is not None:
                dy_KND[block] = ds_XND

        current().run(work, len(blocks))
        dweight_KD = torch.zeros_like(weight_KD)
        for (proxies, _), part_XD in zip(blocks, dweight, strict=True):
            assert part_XD is not None
            dweight_KD[proxies] += part_XD
        return ds_KND, dy_KND, dweight_KD, None
