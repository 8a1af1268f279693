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

from mixopt.models.team import current

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
        slots: S.
    """

    token_R: Tensor
    row_A: Tensor
    bounds: list[int]
    rows: int
    slots: int


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
    return Plan(token_R, row_A, bounds[:-1], bounds[-1], slots)


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
    """One piece of work per expert, its rows passing through all operators while in cache."""

    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, gates_MS: Tensor, gate_up_GDF: Tensor, down_GFD: Tensor, p: Plan
    ) -> Tensor:
        team, groups, width = current(), _groups(p), down_GFD.shape[1]
        x_RD = x_MD.new_empty(p.rows, x_MD.shape[1])
        hidden_R2F = x_MD.new_empty(p.rows, gate_up_GDF.shape[2])
        act_RF, y_RD = x_MD.new_empty(p.rows, width), torch.empty_like(x_RD)
        y_RD[p.bounds[-1] :] = 0

        def work(piece: int) -> None:
            group, rows = groups[piece]
            x_ND = torch.index_select(x_MD, 0, p.token_R[rows], out=x_RD[rows])
            hidden_N2F = torch.mm(x_ND, gate_up_GDF[group], out=hidden_R2F[rows])
            gate_NF, up_NF = hidden_N2F[:, :width], hidden_N2F[:, width:]
            act_NF = torch.mul(F.silu(gate_NF), up_NF, out=act_RF[rows])
            torch.mm(act_NF, down_GFD[group], out=y_RD[rows])

        team.run(work, len(groups))
        ctx.save_for_backward(x_RD, gates_MS, gate_up_GDF, down_GFD, hidden_R2F, act_RF)
        ctx.plan = p
        return _combine(y_RD, p, gates_MS)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_MD: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, gates_MS, gate_up_GDF, down_GFD, hidden_R2F, act_RF = ctx.saved_tensors
        p: Plan = ctx.plan
        team, groups, width = current(), _groups(p), down_GFD.shape[1]
        dout_MD = dout_MD.contiguous()
        gate_R1 = gates_MS.new_zeros(p.rows).index_copy_(0, p.row_A, gates_MS.reshape(-1))
        gate_R1 = gate_R1.to(dout_MD.dtype).unsqueeze(1)
        dgate_R = gates_MS.new_zeros(p.rows)
        dx_RD = torch.empty_like(x_RD)
        dx_RD[p.bounds[-1] :] = 0
        ddown_GFD, dgate_up_GDF = torch.empty_like(down_GFD), torch.empty_like(gate_up_GDF)
        for idle in set(range(len(down_GFD))).difference(group for group, _ in groups):
            ddown_GFD[idle], dgate_up_GDF[idle] = 0, 0

        def work(piece: int) -> None:
            group, rows = groups[piece]
            gate_NF, up_NF = hidden_R2F[rows, :width], hidden_R2F[rows, width:]
            dout_ND = dout_MD.index_select(0, p.token_R[rows])
            # of the expert's output before its gate: the gate's gradient is then a dot product
            # over F, and no output needs to be kept
            dact_NF = dout_ND @ down_GFD[group].T
            torch.sum(dact_NF * act_RF[rows], 1, dtype=torch.float32, out=dgate_R[rows])
            torch.mm((act_RF[rows] * gate_R1[rows]).T, dout_ND, out=ddown_GFD[group])
            dact_NF *= gate_R1[rows]
            dhidden_N2F = torch.empty_like(hidden_R2F[rows])
            torch.mul(dact_NF, F.silu(gate_NF), out=dhidden_N2F[:, width:])
            dgate_NF = dhidden_N2F[:, :width]
            torch.ops.aten.silu_backward(dact_NF.mul_(up_NF), gate_NF, grad_input=dgate_NF)
            torch.mm(dhidden_N2F, gate_up_GDF[group].T, out=dx_RD[rows])
            torch.mm(x_RD[rows].T, dhidden_N2F, out=dgate_up_GDF[group])

        team.run(work, len(groups))
        dgates_MS = dgate_R.index_select(0, p.row_A).view(gates_MS.shape)
        return _combine(dx_RD, p), dgates_MS, dgate_up_GDF, ddown_GFD, None


def _combine(y_RD: Tensor, p: Plan, gates_MS: Tensor | None = None) -> Tensor:
    """The sum of every token's rows, times their gates if there are any, (M, D)."""
    rows_MS = p.row_A.view(-1, p.slots)
    out_MD = y_RD.new_empty(len(rows_MS), y_RD.shape[1])
    shards = current().shards(1, len(rows_MS))

    def work(piece: int) -> None:
        _, tokens = shards[piece]
        # slot by slot: a sum over an axis of two is eight times slower
        for slot in range(p.slots):
            y_ND = y_RD.index_select(0, rows_MS[tokens, slot])
            if gates_MS is not None:
                y_ND *= gates_MS[tokens, slot, None].to(y_ND.dtype)
            if slot:
                out_MD[tokens] += y_ND
            else:
                out_MD[tokens] = y_ND

    current().run(work, len(shards))
    return out_MD


def _groups(p: Plan) -> list[tuple[int, slice]]:
    """The experts that some token chose, with their rows; the largest first."""
    pairs = zip(p.bounds, p.bounds[1:], strict=False)
    groups = [(g, slice(start, end)) for g, (start, end) in enumerate(pairs) if end > start]
    return sorted(groups, key=lambda group: group[1].start - group[1].stop)
