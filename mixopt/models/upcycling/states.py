"""Upcycling of our own models: states in memory, with a receipt measured on samples.

Shapes: states are of one model, without the cohort axis. E experts, n sequences of a sample, T
tokens of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixopt.core.errors import StudyError, TrainingError
from mixopt.models.config import ModelConfig
from mixopt.models.families.mixopt import StateWeights, parts_of, same_names, shape_of, state_of
from mixopt.models.routers.base import gate_entropies, router_class
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.transformer import Block, State, Transformer
from mixopt.models.upcycling.base import Upcycler, make_upcycler
from mixopt.models.upcycling.convert import Conversion
from mixopt.models.upcycling.hidden_states import HiddenStates, gather
from mixopt.models.upcycling.merges import make_merge
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.receipt import Receipt, Seen
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
    start_samples: Mapping[str, np.ndarray] | None = None,
) -> tuple[State, Receipt]:
    """The MoE's state and the receipt of the conversion. Random routers are those of a new model.

    Args:
        method: how.
        models: what is upcycled.
        config: shape of the MoE; same trunk.
        seed: draws what is new.
        samples: domain → token ids (n, T) for the receipt.
        start_samples: the same, for methods and router starts that look at text; of training text
            where the receipt's is held out. `samples` if None.

    Raises:
        StudyError: the shapes do not go together, or there is no such upcycler.
        TrainingError: a state is not of the shape that its config says.
    """
    check_shapes(models.config, config)
    check_router_start(method, config)
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
    if conversion.needs_samples:
        text = start_samples or samples
        if not text:
            raise StudyError(
                "the method or the router start looks at samples, and there are none",
                where="samples",
                hint="Give a sample of every domain",
            )
        conversion = dataclasses.replace(conversion, states=hidden_states(models, text))
    state = state_of(conversion.tensors(parts_of(config, fresh)), config)
    for name, parameter in fresh.items():
        state.setdefault(name, parameter)
    state = {name: state[name] for name in fresh}
    start_routers(state, conversion, starts_as_new(method))
    receipt = conversion.receipt(method.upcycler, method.merge, method.router_start)
    return state, measured(receipt, state, models, config, samples) if samples else receipt


def start_routers(state: State, conversion: Conversion, as_new: bool) -> None:
    """Put the routers' first weights into `state`, which holds those of a new model.

    Args:
        state: of the mixture; changed.
        conversion: whose routers they are.
        as_new: leave them as they are, with the method's repeats.
    """
    shape = conversion.shape
    for layer in range(shape.layers):
        name = f"blocks.{layer}.{ROUTER}weight"
        if not as_new:
            state[name] = conversion.first_router(layer).T.contiguous()
        elif name in state:  # null experts and the like come after the E
            first, rest = state[name].T.tensor_split([shape.experts])
            state[name] = torch.cat([conversion.method.router(first), rest]).T.contiguous()


def starts_as_new(method: Method) -> bool:
    """Whether routers start as those of a new model, whatever their kind."""
    return method.router_start == "random" and not method.router_start_settings


def check_router_start(method: Method, config: ModelConfig) -> None:
    """Refuse a router start for routers that have no row per expert.

    Raises:
        StudyError: naming the router.
    """
    if starts_as_new(method):
        return
    kind = router_class(config.router)
    rows = kind(config, 1, 0).weight.shape[1:] if issubclass(kind, SoftmaxRouter) else ()
    if rows != (config.width, config.experts):
        raise StudyError(
            f"the router {config.router!r} has no row for each expert to start from",
            where="router",
            hint="Leave the router start out, or choose the router softmax",
        )


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
    seen: dict[str, Seen] = {}
    for domain, ids in samples.items():
        ids_KBT = torch.from_numpy(np.asarray(ids, dtype=np.int64)).unsqueeze(0)
        _, routings = moe.trunk(ids_KBT)
        layers = [float(gate_entropies(routing).mean()) for routing in routings]
        seen[domain] = Seen(
            counts=[routing.counts_KE[0].tolist() for routing in routings],
            entropy=sum(layers) / max(1, len(layers)),
            difference=float((moe.logits(ids_KBT) - dense.logits(ids_KBT)).abs().max()),
        )
    return receipt.with_measures(seen)


def hidden_states(models: DenseModels, samples: Mapping[str, np.ndarray]) -> HiddenStates:
    """What the seed's feed-forward layers read on `samples`, domain → token ids (n, T)."""
    dense = Transformer(models.config).eval()
    dense.load_proxy_state(models.seed)
    inputs: list[Tensor] = []

    def keep(layer: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[1][0])  # the router's input, of the only proxy

    for block in dense.blocks:
        assert isinstance(block, Block)
        block.feed_forward.register_forward_pre_hook(keep)

    def inputs_of(ids_nT: Tensor) -> list[Tensor]:
        inputs.clear()
        dense.trunk(ids_nT.unsqueeze(0))
        return list(inputs)

    return gather(inputs_of, samples)


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
            where="model.router",
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
