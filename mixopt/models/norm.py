"""RMSNorm together with the residual addition before it, its gradient by hand.

Shapes: K proxies, N tokens of one proxy, D width.

The stream is read once forwards and once backwards; by autograd's own rules for the same formula
a norm costs ten passes over it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    stream_KND, normed_KND, low_KND = _AddAndNorm.apply(x_KND, y_KND, weight_KD, dtype)
    return stream_KND, normed_KND, normed_KND if low_KND is None else low_KND


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_KND: Tensor, y_KND: Tensor | None, weight_KD: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        stream_KND, normed_KND = torch.empty_like(x_KND), torch.empty_like(x_KND)
        low_KND = None if dtype == x_KND.dtype else torch.empty_like(x_KND, dtype=dtype)
        scale_KN1 = x_KND.new_empty(*x_KND.shape[:2], 1)
        shards = current().shards(*x_KND.shape[:2])

        def work(piece: int) -> None:
            k, rows = shards[piece]
            y_ND = 0 if y_KND is None else y_KND[k, rows]
            stream_ND = torch.add(x_KND[k, rows], y_ND, out=stream_KND[k, rows])
            mean_N1 = stream_ND.square().mean(-1, keepdim=True)
            torch.rsqrt(mean_N1.add_(NORM_EPSILON), out=scale_KN1[k, rows])
            normed_ND = torch.mul(stream_ND, scale_KN1[k, rows], out=normed_KND[k, rows])
            normed_ND *= weight_KD[k]
            if low_KND is not None:
                low_KND[k, rows] = normed_ND

        current().run(work, len(shards))
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
        shards = current().shards(*stream_KND.shape[:2])
        dweight_PD = torch.empty(len(shards), stream_KND.shape[2], device=stream_KND.device)

        def work(piece: int) -> None:
            k, rows = shards[piece]
            parts = [d[k, rows] for d in (dnormed_KND, dlow_KND) if d is not None]
            ds_ND = ds_KND[k, rows]
            if len(parts) == 2:
                torch.add(*parts, out=ds_ND)
            else:
                ds_ND.copy_(parts[0]) if parts else ds_ND.zero_()
            unit_ND = stream_KND[k, rows] * scale_KN1[k, rows]
            torch.sum(ds_ND * unit_ND, 0, out=dweight_PD[piece])
            ds_ND *= weight_KD[k]
            along_N1 = (ds_ND * unit_ND).mean(-1, keepdim=True)
            ds_ND.addcmul_(unit_ND, along_N1, value=-1).mul_(scale_KN1[k, rows])
            if dstream_KND is not None:
                ds_ND += dstream_KND[k, rows]
            if dy_KND is not None:
                dy_KND[k, rows] = ds_ND

        current().run(work, len(shards))
        dweight_KD = dweight_PD.view(len(weight_KD), -1, stream_KND.shape[2]).sum(1)
        return ds_KND, dy_KND, dweight_KD, None
