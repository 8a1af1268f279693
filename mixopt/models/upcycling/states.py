"""Upcycling of our own models: states in memory, with a receipt measured on samples.

Shapes: states are of one model, without the cohort axis. E experts, n sequences of a sample, T
tokens of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mixopt.core.errors import StudyError, TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.families.mixopt import StateWeights, parts_of, same_names, shape_of, state_of
from mixopt.models.routers.base import gate_entropies
from mixopt.models.transformer import State, Transformer
from mixopt.models.upcycling.base import Upcycler, make_upcycler
from mixopt.models.upcycling.convert import Conversion
from mixopt.models.upcycling.merges import make_merge
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.router_starts import make_router_start

ROUTER = "feed_forward.router."


@dataclass(frozen=True)
class DenseModels:
    """A dense seed model and the dense experts branched from it.

    Attributes:
        seed: its state.
        experts: expert name → state; order is expert order.
        config: shape of all of them.
    """

    seed: State
    experts: Mapping[str, State]
    config: ModelConfig


def upcycle_states(
    method: Method,
    models: DenseModels,
    config: ModelConfig,
    seed: int = 0,
    samples: Mapping[str, np.ndarray] | None = None,
) -> tuple[State, Receipt]:
    """The MoE's state and the receipt of the conversion. Random routers are those of a new model.

    Args:
        method: how.
        models: what is upcycled.
        config: shape of the MoE; same trunk.
        seed: draws what is new.
        samples: domain → token ids (n, T) for the receipt.

    Raises:
        StudyError: the shapes do not go together, or there is no such upcycler.
        TrainingError: a state is not of the shape that its config says.
    """
    check_shapes(models.config, config)
    for name, state in models.experts.items():
        if (wrong := same_names(state, models.seed)) is not None:
            raise TrainingError(f"{wrong} is not as in the seed model", where=name)
    upcycler = make_upcycler(method.upcycler, method.settings)
    fresh = Transformer(config, (seed,)).proxy_state()
    conversion = Conversion(
        method=upcycler,
        seed=StateWeights(models.seed, models.config),
        sources={name: StateWeights(s, models.config) for name, s in models.experts.items()},
        shape=shape_of(config),
        merge=make_merge(method.merge, method.merge_settings),
        router=make_router_start(method.router_start, method.router_start_settings),
        random_seed=seed,
    )
    conversion.check()
    state = state_of(conversion.tensors(parts_of(config, fresh)), config)
    for name, drawn in fresh.items():
        if name.endswith(f"{ROUTER}weight"):
            drawn = upcycler.router(drawn.T).T.contiguous()
        state.setdefault(name, drawn)
    state = {name: state[name] for name in fresh}
    shape = conversion.shape
    receipt = Receipt(
        method=method.upcycler,
        experts=conversion.origins,
        channels_kept=upcycler.channels_kept,
        preserves_function=upcycler.preserves_function(
            shape.renormalize, shape.experts, shape.experts_per_token
        ),
        merge=method.merge if upcycler.merges else "",
        router=method.router_start,
    )
    return state, measured(receipt, state, models, config, samples) if samples else receipt


@torch.no_grad()
def measured(
    receipt: Receipt,
    state: State,
    models: DenseModels,
    config: ModelConfig,
    samples: Mapping[str, np.ndarray],
) -> Receipt:
    """`receipt` with what the two models compute on `samples`."""
    moe, dense = Transformer(config).eval(), Transformer(models.config).eval()
    moe.load_proxy_state(state)
    dense.load_proxy_state(models.seed)
    difference = 0.0
    entropies: dict[str, float] = {}
    loads: dict[str, tuple[float, ...]] = {}
    reached_LE = torch.zeros(config.layers, config.experts)
    for domain, ids in samples.items():
        ids_KBT = torch.from_numpy(np.asarray(ids, dtype=np.int64)).unsqueeze(0)
        _, routings = moe.trunk(ids_KBT)
        counts_LE = torch.stack([routing.counts_KE[0] for routing in routings])
        reached_LE += counts_LE
        counts_E = counts_LE.sum(0)
        loads[domain] = tuple((counts_E / counts_E.sum().clamp_min(1)).tolist())
        layers = [float(gate_entropies(routing).mean()) for routing in routings]
        entropies[domain] = sum(layers) / max(1, len(layers))
        gap = (moe.logits(ids_KBT) - dense.logits(ids_KBT)).abs().max()
        difference = max(difference, float(gap))
    dead = (reached_LE == 0).nonzero().tolist()
    return dataclasses.replace(
        receipt,
        logit_difference=difference,
        router_entropy=entropies,
        loads=loads,
        dead_experts=tuple(f"{layer}.{expert}" for layer, expert in dead),
    )


def dense_config(upcycler: Upcycler, config: ModelConfig) -> ModelConfig:
    """Shape of the dense models that a model of `config` is upcycled from."""
    width = upcycler.dense_width(config.expert_width, config.experts)
    return dataclasses.replace(config.as_dense(), expert_width=width)


def check_shapes(config_dense: ModelConfig, config_moe: ModelConfig) -> None:
    """Refuse a dense and an MoE shape whose trunks differ.

    Raises:
        StudyError: naming the setting that differs.
    """
    if not config_dense.dense:
        raise StudyError(f"the seed has {config_dense.experts} experts, not 1", where="experts")
    if config_moe.dense:
        raise StudyError("a model of one expert has no router to make", where="experts")
    if not config_moe.settings.plain_experts:
        raise StudyError(
            f"experts of {config_moe.router!r} are not of the shape of a dense layer",
            where="router",
            hint="Choose a router over plain experts for a promoted model",
        )
    same = ("width", "layers", "heads", "rope_theta", "tie_embeddings", "vocab_size")
    for name in (*same, "shared_experts"):
        of_dense, of_moe = getattr(config_dense, name), getattr(config_moe, name)
        if of_dense != of_moe:
            raise StudyError(
                f"is {of_dense} in the seed and {of_moe} in the MoE",
                where=name,
                hint="Give both the same trunk",
            )
