"""What each router computes, one token and one expert at a time, for the fast ones to agree with.

A reference gets a router, the number k of a proxy, and its tokens, and says for every token which
experts it reaches with what gate, and what cheap experts add. Autograd does the rest.

Shapes: N tokens, D width, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Choice:
    """Where one token goes.

    Attributes:
        gates: expert → gate, a scalar.
        extra: what is added to the output besides, (D,); None for nothing.
        state: what its router tells the layer above, if anything.
    """

    gates: dict[int, Tensor]
    extra: Tensor | None = None
    state: Tensor | None = None


# router, k, states (N, D), ids, choices of the layer below (empty at the first)
Reference = Callable[[Any, int, Tensor, list[int], Sequence[Choice]], list[Choice]]


def softmax(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the softmax of x W, divided by the sum if the settings say so."""
    return [_top_k(router, x_D @ router.weight[k]) for x_D in x_ND]


def loss_free(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of sigmoid + bias, gates from the sigmoid."""
    choices = []
    for x_D in x_ND:
        logits_E = x_D @ router.weight[k]
        softmaxed = router.settings.score == "softmax"
        scores_E = logits_E.softmax(0) if softmaxed else logits_E.sigmoid()
        ranks = (scores_E.detach() + router.bias_KE[k]).tolist()
        gates = {e: scores_E[e] for e in _largest(ranks, router.config.experts_per_token)}
        choices.append(Choice(_divided(gates) if _divides(router) else gates))
    return choices


def top_p(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Expert after expert, the most probable first, until their mass exceeds p."""
    choices = []
    for x_D in x_ND:
        p_E = (x_D @ router.weight[k]).softmax(0)
        gates: dict[int, Tensor] = {}
        mass = 0.0
        for e in _largest(p_E.tolist(), len(p_E)):
            if gates and mass > router.settings.mass:
                break
            gates[e] = p_E[e]
            mass += p_E[e].item()
        choices.append(Choice(gates))
    return choices


def adamoe(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k over real and null experts; the real ones' gates divided by their sum."""
    choices = []
    for x_D in x_ND:
        p_C = (x_D @ router.weight[k]).softmax(0)
        chosen = _largest(p_C.tolist(), router.config.experts_per_token)
        gates = {e: p_C[e] for e in chosen if e < router.config.experts}
        divide = gates and router.config.renormalize and router.config.experts_per_token > 1
        choices.append(Choice(_divided(gates) if divide else gates))
    return choices


def moe_plus_plus(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k over experts, zero, copy and constant ones, each run on its own.

    The gates of those that are not zero are divided by their sum.
    """
    settings, experts = router.settings, router.config.experts
    first_copy = experts + settings.zero
    first_constant = first_copy + settings.copy
    choices = []
    for n, x_D in enumerate(x_ND):
        logits_C = x_D @ router.weight[k]
        if below:
            logits_C = logits_C + below[n].state @ router.residual[k]
        p_C = logits_C.softmax(0)
        chosen = _largest(p_C.tolist(), router.config.experts_per_token)
        gates = {c: p_C[c] for c in chosen if not experts <= c < first_copy}
        if gates and router.config.renormalize and router.config.experts_per_token > 1:
            gates = _divided(gates)
        extra_D = torch.zeros_like(x_D)
        for c, gate in gates.items():
            if first_copy <= c < first_constant:
                extra_D = extra_D + gate * x_D
            elif c >= first_constant:
                j = c - first_constant
                alpha = (x_D @ router.mix[k][:, 2 * j : 2 * j + 2]).softmax(0)
                extra_D = extra_D + gate * (alpha[0] * x_D + alpha[1] * router.vectors[k, j])
        real = {e: gate for e, gate in gates.items() if e < experts}
        choices.append(Choice(real, extra_D, logits_C))
    return choices


def remoe(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Every expert whose score is above 0."""
    choices = []
    for x_D in x_ND:
        scores_E = x_D @ router.weight[k]
        choices.append(Choice({e: s for e, s in enumerate(scores_E) if s.item() > 0}))
    return choices


def dselect_k(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Selector by selector, number by number, bit by bit."""
    experts, selectors = router.config.experts, router.config.experts_per_token
    bits = (experts - 1).bit_length()
    choices = []
    for x_D in x_ND:
        shares = (x_D @ router.weight[k]).softmax(0)
        gates = {e: torch.zeros(()) for e in range(experts)}
        for i in range(selectors):
            steps = []
            for m in range(bits):
                t = x_D @ router.bits[k, :, i * bits + m] / router.settings.smooth_width
                sure = abs(t.item()) >= 0.5
                steps.append(torch.tensor(float(t > 0)) if sure else 0.5 + 1.5 * t - 2 * t**3)
            for number in range(2**bits):
                weight = shares[i]
                for m, step in enumerate(steps):
                    weight = weight * (step if number >> m & 1 else 1 - step)
                gates[number % experts] = gates[number % experts] + weight
        choices.append(Choice({e: gate for e, gate in gates.items() if gate.item() > 0}))
    return choices


def x_moe(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the softmax of cosines over the temperature."""
    choices = []
    for x_D in x_ND:
        narrow_P = x_D @ router.projection[k]
        cosines = [F.cosine_similarity(narrow_P, v_P, dim=0) for v_P in router.vectors[k]]
        temperature = router.temperature[k, 0].clamp_min(0.01)
        choices.append(_top_k(router, torch.stack(cosines) / temperature))
    return choices


def hash_layer(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """The experts with the smallest keys, SplitMix64 of id, expert, seed and layer."""
    experts, chosen = router.config.experts, router.config.experts_per_token
    choices = []
    for token in ids:
        keys = []
        for e in range(experts):
            z = token * experts + e
            for salt in (router.settings.seed, router.layer):
                z = (z + (salt + 1) * 0x9E3779B97F4A7C15) % 2**64
                z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
                z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
                z ^= z >> 31
            keys.append(z)
        best = sorted(range(experts), key=keys.__getitem__)[:chosen]
        choices.append(Choice({e: torch.tensor(1 / chosen) for e in best}))
    return choices


def stable(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the scores, or of the frozen router's once it is frozen; gates are sigmoids."""
    choices = []
    for token, x_D in zip(ids, x_ND, strict=True):
        scores_E = x_D @ router.weight[k]
        deciding_E = scores_E
        if bool(router.frozen_K[k]):
            deciding_E = router.frozen_embedding[k, token] @ router.frozen_vectors[k]
        chosen = _largest(deciding_E.tolist(), router.config.experts_per_token)
        choices.append(Choice({e: scores_E[e].sigmoid() for e in chosen}))
    return choices


def hyper(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the softmax of x W, W made by the frozen network."""
    made = torch.relu(router.embedding[k] @ router.frozen_in[k]) @ router.frozen_out[k]
    weight_DE = made.view(x_ND.shape[1], router.config.experts)
    return [_top_k(router, x_D @ weight_DE) for x_D in x_ND]


def rmoe(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the softmax of what `torch.nn.GRUCell` makes of the state below."""
    (first,) = router._first
    width = router.settings.state_width
    weights = {
        "weight_ih": first.input_weight[k].T,
        "weight_hh": first.hidden_weight[k].T,
        "bias_ih": first.input_bias[k],
        "bias_hh": first.hidden_bias[k],
    }
    cell = torch.nn.GRUCell(width, width)
    choices = []
    for n, x_D in enumerate(x_ND):
        state_P = below[n].state if below else x_D.new_zeros(width)
        assert state_P is not None
        inputs = ((x_D @ router.projection[k])[None], state_P[None])
        (state_P,) = torch.func.functional_call(cell, weights, inputs)
        choice = _top_k(router, state_P @ router.weight[k])
        choices.append(Choice(choice.gates, None, state_P))
    return choices


def expert_choice(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Every expert takes the tokens with its highest probabilities."""
    p_NE = (x_ND @ router.weight[k]).softmax(-1)
    experts = router.config.experts
    capacity = -(-router.config.experts_per_token * len(x_ND) // experts)
    choices = [Choice({}) for _ in x_ND]
    for e in range(experts):
        for n in _largest(p_NE[:, e].tolist(), capacity):
            choices[n].gates[e] = p_NE[n, e]
    return choices


def autonomy(
    router: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice]
) -> list[Choice]:
    """Top-k of the softmax of the norms of the experts' first activations."""
    return [
        _top_k(router, torch.stack([(x_D @ a_DL).norm() for a_DL in router.weight[k]]))
        for x_D in x_ND
    ]


REFERENCES: Mapping[str, Reference] = {
    "adamoe": adamoe,
    "autonomy": autonomy,
    "deepseek": softmax,
    "dselect-k": dselect_k,
    "expert-choice": expert_choice,
    "hash": hash_layer,
    "hmoe": softmax,
    "hyper": hyper,
    "loss-free": loss_free,
    "mh-moe": softmax,
    "moe++": moe_plus_plus,
    "remoe": remoe,
    "rmoe": rmoe,
    "softmax": softmax,
    "stable": stable,
    "switch": softmax,
    "top-p": top_p,
    "x-moe": x_moe,
}


def swiglu(x_D: Tensor, gate_up_DF: Tensor, down_FD: Tensor) -> Tensor:
    """One expert of one token, gate and up side by side."""
    gate_F, up_F = (x_D @ gate_up_DF).chunk(2)
    y_D: Tensor = (F.silu(gate_F) * up_F) @ down_FD
    return y_D


def run_expert(layer: Any, k: int, e: int, x_D: Tensor) -> Tensor:
    """Expert e of the layer of proxy k, whatever kind of layer it is."""
    kind = type(layer).__name__
    if kind == "AutonomyMoE":
        gate_F = (x_D @ layer.router.weight[k, e]) @ layer.gate[k, e]
        y_D: Tensor = (F.silu(gate_F) * (x_D @ layer.up[k, e])) @ layer.down[k, e]
        return y_D
    if kind == "HeterogeneousMoE":
        first = sum(layer.units[:e])
        places = range(first, first + layer.units[e])
        gates = [layer.gate_up[k, u].chunk(2, -1)[0] for u in places]
        ups = [layer.gate_up[k, u].chunk(2, -1)[1] for u in places]
        wide = torch.cat([*gates, *ups], -1)
        return swiglu(x_D, wide, torch.cat([layer.down[k, u] for u in places]))
    return swiglu(x_D, layer.gate_up[k, e], layer.down[k, e])


def run_layer(
    layer: Any, k: int, x_ND: Tensor, ids: list[int], below: Sequence[Choice], reference: Reference
) -> tuple[Tensor, list[Choice]]:
    """The output of the layer of proxy k, (N, D), and the choices of its tokens (or sub-tokens)."""
    tokens, width = x_ND.shape
    if type(layer).__name__ == "MultiHeadMoE":
        x_ND = (x_ND @ layer.head[k]).reshape(tokens * layer.heads, width // layer.heads)
    choices = reference(layer.router, k, x_ND, ids, below)
    rows = []
    for x_D, choice in zip(x_ND, choices, strict=True):
        y_D = torch.zeros_like(x_D) if choice.extra is None else choice.extra
        for e, gate in choice.gates.items():
            y_D = y_D + gate * run_expert(layer, k, e, x_D)
        rows.append(y_D)
    y_ND = torch.stack(rows)
    if type(layer).__name__ == "MultiHeadMoE":
        y_ND = y_ND.reshape(tokens, width) @ layer.merge[k]
    return y_ND, choices


def _top_k(router: Any, logits_E: Tensor) -> Choice:
    p_E = logits_E.softmax(0)
    gates = {e: p_E[e] for e in _largest(p_E.tolist(), router.config.experts_per_token)}
    return Choice(_divided(gates) if _divides(router) else gates)


def _divides(router: Any) -> bool:
    return bool(router.settings.unit_gates(router.config))


def _divided(gates: dict[int, Tensor]) -> dict[int, Tensor]:
    total = torch.stack(list(gates.values())).sum()
    return {e: gate / total for e, gate in gates.items()}


def _largest(values: Sequence[float], number: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])[:number]
