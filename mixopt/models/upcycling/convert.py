"""An upcycling as a stream of tensors: dense weights in, the mixture's tensors out, in order.

No more is held than one block's layers and what is being made of them.

Shapes: E experts, D width, F hidden width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import StudyError
from mixopt.models.families.base import PROJECTIONS, Shape, split_part
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.base import Block, FeedForward, Upcycler
from mixopt.models.upcycling.hidden_states import HiddenStates
from mixopt.models.upcycling.merges import VALUES_AT_ONCE, Merge
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.router_starts import RouterStart


class Weights(Protocol):
    """A dense model's tensors by part name: a checkpoint on disk, or a state in memory."""

    @property
    def shape(self) -> Shape:
        """Of the model."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Part names of its tensors."""

    def __getitem__(self, part: str) -> Tensor:
        """The tensor of that part."""


@dataclass(frozen=True)
class Conversion:
    """An upcycling that is decided; `tensors` carries it out.

    Attributes:
        method: the upcycler.
        seed: the dense seed model.
        sources: expert name → dense model branched from it, in expert order.
        shape: of the mixture.
        merge: of what is no expert, where the method merges.
        router: what every router starts from.
        random_seed: draws what is new.
        dtype: that merged tensors are wanted in.
        states: of the seed on samples, where `needs_samples`.
    """

    method: Upcycler
    seed: Weights
    sources: Mapping[str, Weights]
    shape: Shape
    merge: Merge
    router: RouterStart
    random_seed: int = 0
    dtype: torch.dtype = torch.float32
    states: HiddenStates | None = None

    @property
    def needs_samples(self) -> bool:
        """Whether the method or the routers ask for the seed's states on samples."""
        return self.method.needs_samples or self.router.needs_samples

    @property
    def origins(self) -> tuple[str, ...]:
        """Where each expert comes from.

        Raises:
            StudyError: so many experts cannot be made of these models.
        """
        return self.method.sources(tuple(self.sources), self.shape.experts)

    def check(self) -> None:
        """Refuse models that do not go together.

        Raises:
            StudyError: naming the model and what differs.
        """
        self.router.check(self.origins)
        hidden = self.method.expert_width(self.seed.shape.hidden, self.shape.experts)
        if hidden != self.shape.hidden:
            raise StudyError(
                f"is {self.shape.hidden}; of dense layers of {self.seed.shape.hidden} the method "
                f"makes {hidden}",
                where="expert_width",
                hint="Give the dense models and the experts widths that go together",
            )
        for name, weights in self.sources.items():
            if differs := _first_difference(weights.shape, self.seed.shape):
                raise StudyError(
                    differs,
                    where=name,
                    hint="Give experts that were branched from this seed",
                )
            if missing := set(self.seed.parts) ^ set(weights.parts):
                raise StudyError(
                    f"{min(missing)} is in one of the two, seed and expert, alone",
                    where=name,
                    hint="Give experts that were branched from this seed",
                )

    def receipt(self, method: str, merge: str, router: str, notes: Iterable[str] = ()) -> Receipt:
        """What is known of the conversion before anything is measured.

        Args:
            method: registry name of the upcycler.
            merge: registry name of the merge.
            router: registry name of the router start.
            notes: what a reader should know, a line each.
        """
        shape = self.shape
        return Receipt(
            method=method,
            experts=self.origins,
            channels_kept=self.method.channels_kept,
            preserves_function=self.method.preserves_function(
                shape.renormalize, shape.experts, shape.experts_per_token
            ),
            merge=merge if self.method.merges else "",
            router=router,
            notes=tuple(notes),
        )

    def tensors(self, parts: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The mixture's tensors in the order of `parts`; what is computed, is computed in fp32.

        The parts of an expert follow one another, and the experts of a block too.
        """
        experts: Iterator[FeedForward] = iter(())
        expert: FeedForward | None = None
        for part in parts:
            numbers, template = split_part(part)
            last = template.rpartition(".")[2]
            if "expert" in numbers:
                if numbers["expert"] == 0 and last == PROJECTIONS[0]:
                    experts = self.method.experts(self._block(numbers["layer"]))
                if last == PROJECTIONS[0]:
                    expert = next(experts)
                yield part, getattr(expert, last)
            elif last == "router":
                yield part, self.first_router(numbers["layer"])
            else:
                tied = part == "head" and self.shape.tie_embeddings
                yield part, self._trunk("embedding" if tied else part)

    def first_router(self, layer: int) -> Tensor:
        """The first weights (E, D) of the router of block `layer`."""
        random = generator(self.random_seed, "router", layer)
        states = None if self.states is None else self.states[layer]
        rows = self.router.start(self.origins, self.shape.width, random, states)
        return self.method.router(rows)

    def _block(self, layer: int) -> Block:
        return Block(
            number=layer,
            seed=feed_forward(self.seed, layer),
            sources={name: feed_forward(each, layer) for name, each in self.sources.items()},
            experts=self.shape.experts,
            experts_per_token=self.shape.experts_per_token,
            unit_gates=self.shape.renormalize,
            random=generator(self.random_seed, "experts", layer),
            inputs=None if self.states is None else self.states[layer].kept,
        )

    def _trunk(self, part: str) -> Tensor:
        if not self.method.merges:
            return self.seed[part]
        models = [weights[part] for weights in self.sources.values()]
        if SEED in self.origins:
            models.append(self.seed[part])
        seed, random = self.seed[part], generator(self.random_seed, part, 0)
        merge = self.merge.for_tensor(seed, models)
        if not merge.by_rows:
            return merge.merge(seed, models, random)
        return merge_by_rows(merge, seed, models, random, self.dtype)


def _first_difference(shape: Shape, seed: Shape) -> str:
    for field in dataclasses.fields(Shape):
        mine, seeds = getattr(shape, field.name), getattr(seed, field.name)
        if mine != seeds:
            return f"its {field.name} is {mine}, and the seed's {seeds}"
    return ""


def merge_by_rows(
    merge: Merge,
    seed: Tensor,
    models: Sequence[Tensor],
    random: torch.Generator,
    dtype: torch.dtype,
) -> Tensor:
    """What `merge` gives, in `dtype`; fp32 copies are of `VALUES_AT_ONCE` values, not of all."""
    merged = torch.empty(seed.shape, dtype=dtype)
    rows = max(1, VALUES_AT_ONCE * len(seed) // seed.numel())
    for at in range(0, len(seed), rows):
        some = slice(at, at + rows)
        merged[some] = merge.merge(seed[some], [model[some] for model in models], random)
    return merged


def feed_forward(weights: Weights, layer: int) -> FeedForward:
    """The feed-forward layer of a block of a dense model."""
    return FeedForward(*(weights[f"layers.{layer}.feed_forward.{each}"] for each in PROJECTIONS))


def generator(seed: int, what: str, layer: int) -> torch.Generator:
    """Draws of their own for every purpose and block: none hangs on what was drawn before."""
    words = [seed, layer, *what.encode()]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
