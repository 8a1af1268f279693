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
MOST_PADDING = 4  # times the rows that equal groups may take; beyond it, groups run one by one


@dataclass(frozen=True)
class Plan:
    """How tokens are sorted to their experts.

    Attributes:
        token_R: the token each row reads; padding rows read one of their own proxy and are read by
            nobody: another's may have diverged, and no gate of 0 makes 0 of what is not finite.
        row_A: the row of each assignment, A = M·S, token-major.
        bounds: rows [bounds[g], bounds[g + 1]) belong to expert g; what is after the last bound
            belongs to empty slots and stays 0.
        rows: R.
        slots: S.
        equal: whether all groups have as many rows, so that one batched product serves them.
    """

    token_R: Tensor
    row_A: Tensor
    bounds: list[int]
    rows: int
    slots: int
    equal: bool = False


def plan(indices_KNS: Tensor, experts: int, equal: bool | None = None) -> Plan:
    """Sort assignments by expert.

    Args:
        indices_KNS: as in `Routing`.
        experts: E.
        equal: whether to pad all experts to as many rows, where their loads allow it; None does
            so on a GPU, which would spend its time on launches otherwise.
    """
    cohort, tokens, slots = indices_KNS.shape
    device, groups = indices_KNS.device, cohort * experts
    offset_K = torch.arange(cohort, device=device).view(-1, 1, 1) * experts
    group_A = torch.where(indices_KNS < 0, groups, indices_KNS + offset_K).reshape(-1)
    counts_G = torch.bincount(group_A, minlength=groups + 1)
    padded_G = (counts_G + ROW_MULTIPLE - 1) // ROW_MULTIPLE * ROW_MULTIPLE
    if indices_KNS.is_cuda if equal is None else equal:
        most = padded_G[:-1].max()
        equal = bool(most * groups <= MOST_PADDING * padded_G[:-1].sum())
        padded_G[:-1] = torch.where(torch.tensor(equal, device=device), most, padded_G[:-1])
    ends_G = padded_G.cumsum(0)
    order_A = torch.argsort(group_A, stable=True)
    # how far padding has pushed each group beyond its place in the sorted order
    shift_G = (ends_G - padded_G) - (counts_G.cumsum(0) - counts_G)
    places_A = torch.arange(len(order_A), device=device)
    sorted_row_A = places_A + shift_G.index_select(0, group_A.index_select(0, order_A))
    bounds = [0, *ends_G.tolist()]
    row_A = torch.empty_like(order_A).index_copy_(0, order_A, sorted_row_A)
    proxy_G = torch.arange(groups + 1, device=device).div(experts, rounding_mode="floor")
    first_G = proxy_G.clamp_max(cohort - 1) * tokens
    token_R = first_G.repeat_interleave(padded_G, output_size=bounds[-1])
    token_R.index_copy_(0, row_A, places_A // slots)
    return Plan(token_R, row_A, bounds[:-1], bounds[-1], slots, bool(equal))


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
    """One piece of work per expert, its rows passing through all operators while in cache.

    Equal groups are a single piece, (G, C, D) of C rows each; shapes with N stand for both.
    """

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
            group, rows, shape = groups[piece]
            torch.index_select(x_MD, 0, p.token_R[rows], out=x_RD[rows])
            hidden_N2F = hidden_R2F[rows].view(*shape, -1)
            torch.matmul(x_RD[rows].view(*shape, -1), gate_up_GDF[group], out=hidden_N2F)
            gate_NF, up_NF = hidden_N2F[..., :width], hidden_N2F[..., width:]
            act_NF = torch.mul(F.silu(gate_NF), up_NF, out=act_RF[rows].view(*shape, -1))
            torch.matmul(act_NF, down_GFD[group], out=y_RD[rows].view(*shape, -1))

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
        for idle in [] if p.equal else set(range(len(down_GFD))).difference(g[0] for g in groups):
            ddown_GFD[idle], dgate_up_GDF[idle] = 0, 0

        def work(piece: int) -> None:
            group, rows, shape = groups[piece]
            hidden_N2F, act_NF = hidden_R2F[rows].view(*shape, -1), act_RF[rows].view(*shape, -1)
            gate_NF, up_NF = hidden_N2F[..., :width], hidden_N2F[..., width:]
            weight_N1 = gate_R1[rows].view(*shape, 1)
            dout_ND = dout_MD.index_select(0, p.token_R[rows]).view(*shape, -1)
            # of the expert's output before its gate: the gate's gradient is then a dot product
            # over F, and no output needs to be kept
            dact_NF = dout_ND @ down_GFD[group].mT
            dgate_R[rows] = (dact_NF * act_NF).sum(-1, dtype=torch.float32).view(-1)
            torch.matmul((act_NF * weight_N1).mT, dout_ND, out=ddown_GFD[group])
            dact_NF *= weight_N1
            dhidden_N2F = torch.empty_like(hidden_N2F)
            torch.mul(dact_NF, F.silu(gate_NF), out=dhidden_N2F[..., width:])
            dgate_NF = dhidden_N2F[..., :width]
            torch.ops.aten.silu_backward(dact_NF.mul_(up_NF), gate_NF, grad_input=dgate_NF)
            dx_ND, x_ND = dx_RD[rows].view(*shape, -1), x_RD[rows].view(*shape, -1)
            torch.matmul(dhidden_N2F, gate_up_GDF[group].mT, out=dx_ND)
            torch.matmul(x_ND.mT, dhidden_N2F, out=dgate_up_GDF[group])

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


def _groups(p: Plan) -> list[tuple[int | slice, slice, tuple[int, ...]]]:
    """(experts, rows, their shape) of every piece: an expert that some token chose, largest first.

    Equal groups are one piece of shape (G, C).
    """
    if p.equal:
        groups = len(p.bounds) - 1
        return [(slice(None), slice(0, p.bounds[-1]), (groups, p.bounds[-1] // groups))]
    sizes = [end - start for start, end in zip(p.bounds, p.bounds[1:], strict=False)]
    chosen = [g for g in sorted(range(len(sizes)), key=lambda g: -sizes[g]) if sizes[g]]
    return [(g, slice(p.bounds[g], p.bounds[g + 1]), (sizes[g],)) for g in chosen]
