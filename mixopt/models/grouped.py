"""The experts of a layer by grouped products, for GPUs.

Shapes: M tokens of all K proxies, S slots per token, A = M·S assignments, G = K·E experts of the
cohort, D width, F expert width.

One product serves all experts, whatever their loads, and no size depends on where tokens go: the
CPU never waits to learn one, and a whole step can be captured once and replayed
(`mixopt.proxies.captured`). Rows are the assignments sorted by expert, empty slots last; what
products leave in the rows of empty slots is read by nobody.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixopt.models.fusion import fused

MOST_GROUPS = 1023  # of one product
ALIGNED = 8  # bf16 numbers of 16 bytes, which rows of the products must be a multiple of


@dataclass(frozen=True)
class Order:
    """How assignments are sorted by expert.

    Attributes:
        assignment_A: the assignment of each row.
        row_MS: the row of each assignment.
        used_MS: False where a slot is empty.
        ends_G: rows before ends_G[g], and not before that of g - 1, belong to expert g; int32.
    """

    assignment_A: Tensor
    row_MS: Tensor
    used_MS: Tensor
    ends_G: Tensor


@functools.cache
def available(device: torch.device) -> bool:
    """Whether this device and torch have grouped products of bf16 that need not know the loads."""
    if device.type != "cuda":
        return False
    x_RD = torch.zeros(ALIGNED, ALIGNED, device=device, dtype=torch.bfloat16)
    ends_G = torch.tensor([ALIGNED], device=device, dtype=torch.int32)
    try:
        F.grouped_mm(x_RD, x_RD.unsqueeze(0), offs=ends_G)
        F.grouped_mm(x_RD.mT, x_RD, offs=ends_G)
    except (RuntimeError, AttributeError):  # an older device, or an older torch
        return False
    return True


def serves(x_KND: Tensor, gate_up_KEDF: Tensor, down_KEFD: Tensor) -> bool:
    """Whether grouped products are there for these tensors."""
    aligned = all(n % ALIGNED == 0 for n in (*gate_up_KEDF.shape[2:], *down_KEFD.shape[2:]))
    low = x_KND.dtype == torch.bfloat16
    return low and aligned and down_KEFD.shape[1] <= MOST_GROUPS and available(x_KND.device)


def run_cohort(
    x_KND: Tensor,
    gates_KNS: Tensor,
    indices_KNS: Tensor,
    gate_up_KEDF: Tensor,
    down_KEFD: Tensor,
) -> Tensor:
    """As `mixopt.models.moe.run_cohort`, (K, N, D), by as few products as serve so many groups."""
    cohort, experts = down_KEFD.shape[:2]
    parts = -(-cohort // max(1, MOST_GROUPS // experts))
    outs = []
    for x_XND, gates_XNS, indices_XNS, gate_up_XEDF, down_XEFD in zip(
        *(t.chunk(parts) for t in (x_KND, gates_KNS, indices_KNS, gate_up_KEDF, down_KEFD)),
        strict=True,
    ):
        out_MD = run_experts(
            x_XND.flatten(0, 1),
            gates_XNS.flatten(0, 1),
            gate_up_XEDF.flatten(0, 1).to(x_KND.dtype),
            down_XEFD.flatten(0, 1).to(x_KND.dtype),
            sort(indices_XNS, experts),
        )
        outs.append(out_MD.view(x_XND.shape))
    return outs[0] if parts == 1 else torch.cat(outs)


def sort(indices_KNS: Tensor, experts: int) -> Order:
    """Sort assignments by expert.

    Args:
        indices_KNS: as in `Routing`.
        experts: E.
    """
    group_A, used_MS = _groups(indices_KNS, experts)
    sorted_A, assignment_A = torch.sort(group_A, stable=True)
    groups_G = torch.arange(len(indices_KNS) * experts, device=group_A.device, dtype=torch.int32)
    ends_G = torch.searchsorted(sorted_A, groups_G, right=True, out_int32=True)
    # a second sort: writing to places takes longer where torch must not trust that they differ
    row_A = torch.argsort(assignment_A.int())
    return Order(assignment_A, row_A.view(used_MS.shape), used_MS, ends_G)


def run_experts(
    x_MD: Tensor, gates_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor, order: Order
) -> Tensor:
    """As `mixopt.models.experts.run_experts`, (M, D)."""
    out: Tensor = _Experts.apply(x_MD, gates_MS, gate_up_GDF, down_GFD, order)
    return out


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, gates_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor, o: Order
    ) -> Tensor:
        x_AD = _rows(x_MD, o.assignment_A, gates_MS.shape[1])
        hidden_A2F = F.grouped_mm(x_AD, gate_up_GDF, offs=o.ends_G)
        y_AD = F.grouped_mm(_swiglu(hidden_A2F), down_GFD, offs=o.ends_G)
        ctx.save_for_backward(x_AD, gates_MS, gate_up_GDF, down_GFD, hidden_A2F)
        ctx.order = o
        return _combine(y_AD, o.row_MS, torch.where(o.used_MS, gates_MS, 0.0), o.used_MS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_MD: Tensor) -> tuple[Tensor | None, ...]:
        x_AD, gates_MS, gate_up_GDF, down_GFD, hidden_A2F = ctx.saved_tensors
        o: Order = ctx.order
        dout_AD = _rows(dout_MD.contiguous(), o.assignment_A, gates_MS.shape[1])
        dact_AF = F.grouped_mm(dout_AD, down_GFD.mT, offs=o.ends_G)
        gate_A = gates_MS.flatten().index_select(0, o.assignment_A)
        weighted_AF, dhidden_A2F, dgate_A = _swiglu_backward(dact_AF, hidden_A2F, gate_A)
        idle_G11 = (torch.diff(o.ends_G, prepend=o.ends_G.new_zeros(1)) == 0).view(-1, 1, 1)
        ddown_GFD = F.grouped_mm(weighted_AF.mT, dout_AD, offs=o.ends_G).masked_fill_(idle_G11, 0)
        dgate_up_GDF = F.grouped_mm(x_AD.mT, dhidden_A2F, offs=o.ends_G).masked_fill_(idle_G11, 0)
        dx_AD = F.grouped_mm(dhidden_A2F, gate_up_GDF.mT, offs=o.ends_G)
        dgates_MS = dgate_A.index_select(0, o.row_MS.flatten()).view(gates_MS.shape)
        dgates_MS = torch.where(o.used_MS, dgates_MS, 0.0)
        dx_MD = _combine(dx_AD, o.row_MS, o.used_MS.float(), o.used_MS)
        return dx_MD, dgates_MS, dgate_up_GDF, ddown_GFD, None


@fused
def _groups(indices_KNS: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """The expert of every assignment among all G, G where there is none; whether there is one."""
    cohort, _, slots = indices_KNS.shape
    offset_K11 = torch.arange(cohort, device=indices_KNS.device).view(-1, 1, 1) * experts
    used_KNS = indices_KNS >= 0
    group_KNS = torch.where(used_KNS, indices_KNS + offset_K11, cohort * experts)
    return group_KNS.flatten().int(), used_KNS.reshape(-1, slots)


def _rows(x_MD: Tensor, assignment_A: Tensor, slots: int) -> Tensor:
    """The token of every row, (A, D)."""
    return x_MD.index_select(0, assignment_A // slots)


@fused
def _swiglu(hidden_A2F: Tensor) -> Tensor:
    gate_AF, up_AF = hidden_A2F.chunk(2, -1)
    return F.silu(gate_AF) * up_AF


@fused
def _swiglu_backward(
    dact_AF: Tensor, hidden_A2F: Tensor, gate_A: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The activations times their gates, gradients of the hidden channels and of the gates.

    Args:
        dact_AF: gradient of the output with a gate of 1.
        hidden_A2F: what `_swiglu` got.
        gate_A: fp32 gates.
    """
    gate_AF, up_AF = hidden_A2F.float().chunk(2, -1)
    dact_AF, weight_A1 = dact_AF.float(), gate_A.unsqueeze(1)
    share_AF = torch.sigmoid(gate_AF)
    silu_AF = gate_AF * share_AF
    act_AF = silu_AF * up_AF
    dgate_A = (dact_AF * act_AF).sum(-1)
    dact_AF = dact_AF * weight_A1
    slope_AF = share_AF + silu_AF * (1 - share_AF)
    dhidden_A2F = torch.cat([dact_AF * up_AF * slope_AF, dact_AF * silu_AF], -1)
    dtype = hidden_A2F.dtype
    return (act_AF * weight_A1).to(dtype), dhidden_A2F.to(dtype), dgate_A


@fused
def _combine(y_AD: Tensor, row_MS: Tensor, weights_MS: Tensor, used_MS: Tensor) -> Tensor:
    """The weighted sum of every token's rows, in fp32 and then y's dtype, (M, D)."""
    out_MD = torch.zeros(len(row_MS), y_AD.shape[1], device=y_AD.device)
    for slot in range(row_MS.shape[1]):
        # where, not times: nobody wrote the row of an empty slot
        y_MD = torch.where(used_MS[:, slot, None], y_AD[row_MS[:, slot]].float(), 0.0)
        out_MD = out_MD + weights_MS[:, slot, None] * y_MD
    return out_MD.to(y_AD.dtype)
