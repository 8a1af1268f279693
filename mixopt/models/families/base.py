"""What a family of checkpoints is: the names of its tensors, and the keys of its config.

Every tensor has one *part name* that all families share; a family says what it is called on disk.

    embedding, final_norm, head
    layers.3.attention.q|k|v|o            also q_norm, k_norm over all heads together,
                                          q_head_norm, k_head_norm over each
    layers.3.attention_norm               before attention; .feed_forward_norm before the layer
    layers.3.post_attention_norm          after attention; .post_feed_forward_norm after the layer
    layers.3.feed_forward.gate|up|down    of a dense model
    layers.3.experts.5.gate|up|down       of a mixture of experts
    layers.3.router                       (E, D)

Tensors are as `torch.nn.Linear` holds them, (outputs, inputs): gate and up (F, D), down (D, F).

Shapes: E experts, D width, F hidden width of a dense layer or of one expert.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.core.registry import check_name
from mixopt.models.families import FAMILIES

PROJECTIONS = ("gate", "up", "down")  # of a SwiGLU layer
FEED_FORWARD = tuple(f"layers.{{layer}}.feed_forward.{each}" for each in PROJECTIONS)
EXPERT = tuple(f"layers.{{layer}}.experts.{{expert}}.{each}" for each in PROJECTIONS)
ROUTER = "layers.{layer}.router"


@dataclass(frozen=True)
class Shape:
    """What upcycling must know of a model, whatever its family calls it.

    Attributes:
        width: D.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads.
        head_width: of one head; heads x head_width need not be D.
        hidden: F.
        vocab_size: rows of the embedding.
        tie_embeddings: whether the head is the embedding.
        experts: E; 1 is a dense model.
        experts_per_token: k.
        renormalize: whether the k gates are divided by their sum.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocab_size: int
    tie_embeddings: bool
    experts: int = 1
    experts_per_token: int = 1
    renormalize: bool = True

    @property
    def dense(self) -> bool:
        """Whether there are no routers."""
        return self.experts == 1


@dataclass(frozen=True)
class Family:
    """How a family of checkpoints in the Hugging Face layout is written.

    Attributes:
        name: registry name.
        model_type: `model_type` of its config.
        architecture: the class in transformers.
        tensors: part name → name on disk, both with `{layer}` and `{expert}`.
        keys: field of `Shape` → key of the config.
        constants: keys of the config that are always written, with their values.
        defaults: keys that a config may leave out, with what transformers takes then, where the
            families here differ in it.
        requires: keys that must have these values where a config has them: other values change
            what the model computes, and the family has no home for them.
        windows: whether `sliding_window` limits what a token attends to; elsewhere it says nothing.
        target: of a dense family, the family that its checkpoints are upcycled into by default.
        fused: `gate_up` and `down` → name on disk of tensors that some tools stack over experts;
            read, never written.
        spellings: part name → another name on disk; read, never written.
        warning: what a user of this format should know; empty if nothing.
    """

    name: str
    model_type: str
    architecture: str
    tensors: Mapping[str, str]
    keys: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    windows: bool = False
    target: str = ""
    fused: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""

    @property
    def moe(self) -> bool:
        """Whether its models are mixtures of experts."""
        return ROUTER in self.tensors

    @property
    def trunk(self) -> frozenset[str]:
        """Part names of all but feed-forward layers, experts and routers."""
        return frozenset(self.tensors) - {*FEED_FORWARD, *EXPERT, ROUTER}

    def parts(self, shape: Shape) -> Iterator[str]:
        """The part names of a model of `shape`, in the order in which they are written.

        A tied head is written as well: of the readers, SGLang 0.5.23 ties none.
        """
        ends = ("final_norm", "head")
        for part in self.tensors:
            if "{layer}" not in part and part not in ends:
                yield part
        each = [part for part in self.tensors if "{layer}" in part]
        for layer in range(shape.layers):
            yield from (p.format(layer=layer) for p in each if "{expert}" not in p)
            for expert in range(shape.experts if self.moe else 0):
                yield from (p.format(layer=layer, expert=expert) for p in each if "{expert}" in p)
        for part in ends:
            if part in self.tensors:
                yield part

    def disk_name(self, part: str) -> str:
        """What the tensor `part` is called in a checkpoint of this family.

        Raises:
            KeyError: the family has no such part.
        """
        numbers, template = split_part(part)
        return self.tensors[template].format(**numbers)

    def completed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` with the family's defaults, and without the window that it would not heed."""
        window = {} if self.windows else {"sliding_window": None}
        return {**self.defaults, **config, **window}

    def size(self, part: str, shape: Shape) -> tuple[int, ...]:
        """The shape of the tensor `part` in a model of `shape`."""
        last = part.rpartition(".")[2]
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        sizes: dict[str, tuple[int, ...]] = {
            "embedding": (shape.vocab_size, shape.width),
            "head": (shape.vocab_size, shape.width),
            "q": (queries, shape.width),
            "k": (keys, shape.width),
            "v": (keys, shape.width),
            "o": (shape.width, queries),
            "q_norm": (queries,),
            "k_norm": (keys,),
            "q_head_norm": (shape.head_width,),
            "k_head_norm": (shape.head_width,),
            "gate": (shape.hidden, shape.width),
            "up": (shape.hidden, shape.width),
            "down": (shape.width, shape.hidden),
            "router": (shape.experts, shape.width),
        }
        return sizes.get(last, (shape.width,))  # all other parts are norms

    def read_shape(self, config: Mapping[str, Any], where: str = "config.json") -> Shape:
        """The shape that a config, found at `where`, says.

        Raises:
            StudyError: a key is missing, or no whole number.
        """
        values: dict[str, Any] = {}
        for name, key in self.keys.items():
            value = config.get(key, config.get(SPELLINGS.get(key, key)))
            if value is None and name == "kv_heads":
                value = values["heads"]
            if value is None and name == "head_width":
                value = values["width"] // values["heads"]
            if value is None and name in ("tie_embeddings", "renormalize"):
                value = False
            if value is None or (isinstance(value, float) and value != int(value)):
                raise StudyError(
                    f"{key} is {'missing' if value is None else value}",
                    where=where,
                    hint=f"A {self.model_type} checkpoint says it",
                )
            values[name] = type(getattr(_ANY, name))(value)
        return Shape(**values)


# the other name of a key that readers of the same family differ in
SPELLINGS = {"num_experts": "num_local_experts", "num_local_experts": "num_experts"}
_ANY = Shape(1, 1, 1, 1, 1, 1, 1, False)
_NUMBERED = re.compile(r"^layers\.(\d+)\.(?:experts\.(\d+)\.)?")


def split_part(part: str) -> tuple[dict[str, int], str]:
    """The numbers in a part name, and the name with `{layer}` and `{expert}` in their stead.

    >>> split_part("layers.3.experts.5.gate")
    ({'layer': 3, 'expert': 5}, 'layers.{layer}.experts.{expert}.gate')
    """
    found = _NUMBERED.match(part)
    if found is None:
        return {}, part
    layer, expert = found.groups()
    numbers = {"layer": int(layer)}
    head = "layers.{layer}."
    if expert is not None:
        numbers["expert"] = int(expert)
        head += "experts.{expert}."
    return numbers, head + part[found.end() :]


def family(name: str) -> Family:
    """The family of that registry name.

    Raises:
        StudyError: there is none.
    """
    check_name("family", name, FAMILIES, where="family", own=False)
    module, _, constant = FAMILIES[name].partition(":")
    found: Family = getattr(importlib.import_module(module), constant)
    return found


def family_of(config: Mapping[str, Any], where: str = "config.json") -> Family:
    """The family of a checkpoint by the `model_type` of its config, which was found at `where`.

    Raises:
        StudyError: mixopt has no description of it.
    """
    model_type = config.get("model_type")
    for name in FAMILIES:
        if family(name).model_type == model_type:
            return family(name)
    raise StudyError(
        f"model_type is {model_type!r}, which mixopt has no description of",
        where=where,
        hint=f"Give a checkpoint of one of these: {', '.join(sorted(FAMILIES))}",
    )
