"""The experts of a layer, run over exactly the tokens that chose them; no token is dropped.

Shapes: M tokens of all K proxies, S slots per token, G = K·E experts of the cohort, R rows after
sorting by expert and padding, D width, F expert width.

The rows of each expert are padded to a multiple of `ROW_MULTIPLE` so that matrix shapes repeat:
bf16 products of a shape not seen before cost 1.5-2.6 ms each on a CPU against 0.1 ms for a seen
one. Every gather has its inverse at hand, so the backward pass is gathers too, which are several
times faster than `index_add`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROW_MULTIPLE = 64


@dataclass(frozen=True)
class Plan:
    """How tokens are sorted to their experts.

    Attributes:
        token_R: the token each row reads; padding rows read token 0 and are read by nobody.
        row_A: the row of each assignment, A = M·S, token-major.
        bounds: rows [bounds[g], bounds[g + 1]) belong to expert g; what is after the last bound
            belongs to empty slots and stays 0.
        rows: R.
    """

    token_R: Tensor
    row_A: Tensor
    bounds: list[int]
    rows: int


def plan(indices_KNS: Tensor, experts: int) -> Plan:
    """Sort assignments by expert; `indices_KNS` as in `Routing`."""
    cohort, _, slots = indices_KNS.shape
    device, groups = indices_KNS.device, cohort * experts
    offset_K = torch.arange(cohort, device=device).view(-1, 1, 1) * experts
    group_A = torch.where(indices_KNS < 0, groups, indices_KNS + offset_K).reshape(-1)
    counts_G = torch.bincount(group_A, minlength=groups + 1)
    padded_G = (counts_G + ROW_MULTIPLE - 1) // ROW_MULTIPLE * ROW_MULTIPLE
    ends_G = padded_G.cumsum(0)
    order_A = torch.argsort(group_A, stable=True)
    # how far padding has pushed each group beyond its place in the sorted order
    shift_G = (ends_G - padded_G) - (counts_G.cumsum(0) - counts_G)
    places_A = torch.arange(len(order_A), device=device)
    sorted_row_A = places_A + shift_G.index_select(0, group_A.index_select(0, order_A))
    bounds = [0, *ends_G.tolist()]
    row_A = torch.empty_like(order_A).index_copy_(0, order_A, sorted_row_A)
    token_R = torch.zeros(bounds[-1], dtype=torch.long, device=device)
    token_R.index_copy_(0, row_A, places_A // slots)
    return Plan(token_R, row_A, bounds[:-1], bounds[-1])


def run_experts(
    x_MD: Tensor, gates_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor, routes: Plan
) -> Tensor:
    """Σ_s gate · W_down(silu(W_gate x) ⊙ W_up x) over each token's experts, (M, D).

    Args:
        x_MD: tokens, in the dtype of the products (fp32 or bf16).
        gates_MS: fp32 gates.
        gate_up_GDF: (G, D, 2F), gate and up side by side.
        down_GFD: (G, F, D).
        routes: the plan of these tokens.
    """
    out: Tensor = _Experts.apply(x_MD, gates_MS, gate_up_GDF, down_GFD, routes)
    return out


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, gates_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor, p: Plan
    ) -> Tensor:
        x_RD = x_MD.index_select(0, p.token_R)
        hidden_R2F = x_MD.new_empty(p.rows, gate_up_GDF.shape[2])
        y_RD = torch.empty_like(x_RD)
        y_RD[p.bounds[-1] :] = 0
        width = down_GFD.shape[1]
        for group, rows in _groups(p):
            torch.mm(x_RD[rows], gate_up_GDF[group], out=hidden_R2F[rows])
        act_RF = F.silu(hidden_R2F[:, :width]) * hidden_R2F[:, width:]
        for group, rows in _groups(p):
            torch.mm(act_RF[rows], down_GFD[group], out=y_RD[rows])
        y_MSD = y_RD.index_select(0, p.row_A).view(*gates_MS.shape, -1)
        ctx.save_for_backward(x_RD, gates_MS, gate_up_GDF, down_GFD, hidden_R2F, act_RF, y_MSD)
        ctx.plan = p
        return (y_MSD * gates_MS.to(y_MSD.dtype).unsqueeze(-1)).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_MD: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, gates_MS, gate_up_GDF, down_GFD, hidden_R2F, act_RF, y_MSD = ctx.saved_tensors
        p: Plan = ctx.plan
        width = down_GFD.shape[1]
        dgates_MS = (dout_MD.unsqueeze(1) * y_MSD).sum(-1, dtype=torch.float32)
        gate_R = gates_MS.new_zeros(p.rows).index_copy_(0, p.row_A, gates_MS.reshape(-1))
        dy_RD = dout_MD.index_select(0, p.token_R) * gate_R.to(dout_MD.dtype).unsqueeze(-1)
        dact_RF, dhidden_R2F = torch.empty_like(act_RF), torch.empty_like(hidden_R2F)
        ddown_GFD, dgate_up_GDF = torch.zeros_like(down_GFD), torch.zeros_like(gate_up_GDF)
        for group, rows in _groups(p):
            torch.mm(dy_RD[rows], down_GFD[group].T, out=dact_RF[rows])
            torch.mm(act_RF[rows].T, dy_RD[rows], out=ddown_GFD[group])
        gate_RF, up_RF = hidden_R2F[:, :width], hidden_R2F[:, width:]
        torch.mul(dact_RF, F.silu(gate_RF), out=dhidden_R2F[:, width:])
        dhidden_R2F[:, :width] = torch.ops.aten.silu_backward(dact_RF.mul_(up_RF), gate_RF)
        dx_RD = torch.empty_like(x_RD)
        dx_RD[p.bounds[-1] :] = 0
        for group, rows in _groups(p):
            torch.mm(dhidden_R2F[rows], gate_up_GDF[group].T, out=dx_RD[rows])
            torch.mm(x_RD[rows].T, dhidden_R2F[rows], out=dgate_up_GDF[group])
        dx_MD = dx_RD.index_select(0, p.row_A).view(y_MSD.shape).sum(1)
        return dx_MD, dgates_MS, dgate_up_GDF, ddown_GFD, None


def _groups(p: Plan) -> list[tuple[int, slice]]:
    """The experts that some token chose, with their rows."""
    pairs = zip(p.bounds, p.bounds[1:], strict=False)
    return [(g, slice(start, end)) for g, (start, end) in enumerate(pairs) if end > start]
