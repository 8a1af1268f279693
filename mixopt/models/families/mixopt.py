"""Our own models: Llama's trunk in one matrix for queries, keys and values; experts stacked.

A state has a factor on its embedding that other formats lack (`transformer.EMBEDDING_SCALE`), and
may tie its head. Both stay as they are here; `export` is for models that leave.

Shapes: E experts, D width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.families import _names
from mixopt.models.families.base import Family, Shape, split_part
from mixopt.models.transformer import State

# For messages and the registry of names; a model of ours leaves in another family (`export`).
MIXOPT = Family(
    name="mixopt",
    model_type="mixopt",
    architecture="",
    tensors={
        **_names.START,
        **_names.ATTENTION,
        **_names.NORMS_BEFORE,
        **_names.DENSE,
        **_names.END,
    },
    keys=_names.KEYS,
    target="mixtral",
)
FEED_FORWARD = "feed_forward."
OURS = {"gate", "up", "down", "router"}


def shape_of(config: ModelConfig) -> Shape:
    """What upcycling must know of a model of ours."""
    return Shape(
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.heads,
        head_width=config.width // config.heads,
        hidden=config.expert_width,
        vocab_size=config.vocab_size,
        tie_embeddings=config.tie_embeddings,
        experts=config.experts,
        experts_per_token=config.experts_per_token,
        renormalize=not config.dense and config.settings.unit_gates(config),
    )


@dataclass(frozen=True)
class StateWeights:
    """The tensors of a state by part name. All but experts and routers keep their form.

    Attributes:
        state: of one model.
        config: its shape.
    """

    state: State
    config: ModelConfig

    @property
    def shape(self) -> Shape:
        """Of the model."""
        return shape_of(self.config)

    @property
    def parts(self) -> tuple[str, ...]:
        """Part names of its tensors."""
        return tuple(parts_of(self.config, self.state))

    def __getitem__(self, part: str) -> Tensor:
        """The tensor of that part."""
        numbers, template = split_part(part)
        last = template.rpartition(".")[2]
        if "layer" not in numbers or last not in OURS:
            return self.state[_own_name(part)]
        block = f"blocks.{numbers['layer']}.feed_forward"
        if last == "router":
            return self.state[f"{block}.router.weight"].T
        expert = numbers.get("expert", 0)
        if last == "down":
            return self.state[f"{block}.down"][expert].T
        half = self.state[f"{block}.gate_up"][expert].chunk(2, dim=1)
        return half[0 if last == "gate" else 1].T


def parts_of(config: ModelConfig, names: Iterable[str]) -> Iterator[str]:
    """The part names of a state with these `names`; a router's own parameters are left out."""
    for name in names:
        if f"{FEED_FORWARD}router." in name:
            continue
        part = name.replace("blocks.", "layers.", 1)
        if not part.endswith((".feed_forward.gate_up", ".feed_forward.down")):
            yield part
        elif part.endswith(".gate_up"):  # `down` follows from it
            head = part.removesuffix(".feed_forward.gate_up")
            for expert in range(config.experts):
                middle = "feed_forward" if config.dense else f"experts.{expert}"
                yield from (f"{head}.{middle}.{each}" for each in ("gate", "up", "down"))


def state_of(tensors: Iterable[tuple[str, Tensor]], config: ModelConfig) -> State:
    """The state of a model of `config` from its `tensors` by part name; routers are left out."""
    state: State = {}
    gates: dict[str, list[Tensor]] = {}
    downs: dict[str, list[Tensor]] = {}
    gate: Tensor | None = None
    for part, tensor in tensors:
        numbers, template = split_part(part)
        last = template.rpartition(".")[2]
        if "expert" not in numbers:
            state[_own_name(part)] = tensor.float().clone()
            continue
        block = f"blocks.{numbers['layer']}.feed_forward"
        if last == "gate":
            gate = tensor.float().T
        elif last == "up":
            assert gate is not None  # the parts of an expert come in this order
            gates.setdefault(block, []).append(torch.cat([gate, tensor.float().T], dim=1))
        else:
            downs.setdefault(block, []).append(tensor.float().T)
    for block in gates:
        state[f"{block}.gate_up"] = torch.stack(gates[block])
        state[f"{block}.down"] = torch.stack(downs[block])
    return state


def _own_name(part: str) -> str:
    return part.replace("layers.", "blocks.", 1)


def same_names(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The first name that one of two states lacks or has in another shape; None if all agree."""
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other or one[name].shape != other[name].shape:
            return name
    return None
