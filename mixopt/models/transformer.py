"""A decoder-only mixture-of-experts transformer that is always a cohort of K proxies.

Every parameter carries the leading axis K: K small models train as one by batched products, and
row k is what a model of its own would be, within rounding. K = 1 is a single model.

Shapes: K proxies, B sequences, T positions, N = B·T tokens, D width, V vocabulary, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixopt.core.errors import TrainingError
from mixopt.models.attention import Attention, Positions, documents, rotary_tables
from mixopt.models.config import ModelConfig
from mixopt.models.losses import cross_entropy, token_nats
from mixopt.models.moe import moe_layer
from mixopt.models.norm import add_and_norm
from mixopt.models.routers.base import Router, Routing, RoutingContext, draw_normal

EMBEDDING_STD = 0.02  # small, because the tied head wants small logits at the start
# The stream starts at unit variance all the same: without this the first layers' outputs drown
# the tokens, and a proxy of width 64 is at 3.23 bits per byte after 200k tokens instead of 2.84.
# A format without such a factor takes an untied head and an embedding that is this much larger.
EMBEDDING_SCALE = 1 / EMBEDDING_STD

State = dict[str, Tensor]  # one proxy's parameters and buffers, without the axis K
Hold = Callable[[str, nn.Parameter], nn.Parameter]  # what is held of a parameter, by its name


@dataclass(frozen=True)
class Losses:
    """What a step minimises, each per proxy.

    Attributes:
        nats_K: cross-entropy, nats per token.
        auxiliary_K: routers' losses, summed over layers, coefficients included.
    """

    nats_K: Tensor
    auxiliary_K: Tensor


def check_state(shapes: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> None:
    """Refuse the state of another model.

    Raises:
        TrainingError: names or shapes differ from `shapes`.
    """
    wrong = sorted(
        name
        for name in shapes.keys() | state.keys()
        if name not in shapes or name not in state or shapes[name] != state[name].shape
    )
    if wrong:
        raise TrainingError(
            f"the state does not fit this model: {', '.join(wrong[:5])}",
            hint="Start from a model of the same shape",
        )


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x); the residual stream stays fp32."""

    def __init__(self, config: ModelConfig, cohort: int, layer: int) -> None:
        super().__init__()
        self._onto_std = config.width**-0.5 * (2 * config.layers) ** -0.5
        self.attention_norm = nn.Parameter(torch.ones(cohort, config.width))
        self.attention = Attention(config, cohort)
        self.feed_forward_norm = nn.Parameter(torch.ones(cohort, config.width))
        self.feed_forward = moe_layer(config, cohort, layer)

    def forward(
        self,
        x_KND: Tensor,
        y_KND: Tensor | None,
        positions: Positions,
        context: RoutingContext,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Routing | None]:
        """The block over the stream x + y; the new x, the new y, and where its tokens went.

        What a layer adds is handed on (None is 0) because the next norm reads it anyway.
        """
        x_KND, _, low_KND = add_and_norm(x_KND, y_KND, self.attention_norm, dtype)
        y_KND = self.attention(low_KND, positions)
        x_KND, normed_KND, low_KND = add_and_norm(x_KND, y_KND, self.feed_forward_norm, dtype)
        y_KND, routing = self.feed_forward(low_KND, normed_KND, context)
        return x_KND, y_KND, routing

    @torch.no_grad()
    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the parameters of proxy k from `generators[k]` (on the CPU).

        Outputs added to the stream shrink with depth so that its variance does not grow.
        """
        draw_normal(self.attention.qkv, generators, self.attention.qkv.shape[1] ** -0.5)
        draw_normal(self.attention.out, generators, self._onto_std)
        self.feed_forward.initialize(generators)


class Transformer(nn.Module):
    """The model.

    Args:
        config: its shape; `vocab_size` must be set.
        seeds: one per proxy; equal seeds give equal initial weights, whatever K is.
        compute_dtype: dtype of the matrix products; weights, norms, routers and the residual
            stream stay fp32.
        hold: what is held of each parameter once it is drawn; None: itself. One block, or one table
            of the vocabulary, is whole at a time.
        draw: False leaves what would be drawn as memory was.

    Raises:
        TrainingError: the vocabulary size is not set, or there is no seed.
    """

    head: nn.Parameter | None

    def __init__(
        self,
        config: ModelConfig,
        seeds: Sequence[int] = (0,),
        compute_dtype: torch.dtype = torch.float32,
        *,
        hold: Hold | None = None,
        draw: bool = True,
    ) -> None:
        super().__init__()
        if config.vocab_size < 1 or not seeds:
            raise TrainingError(
                f"a model needs a vocabulary and a seed, has {config.vocab_size} and {len(seeds)}",
                hint="Set vocab_size from the corpus",
            )
        cohort = len(seeds)
        self.config, self.cohort, self.compute_dtype = config, cohort, compute_dtype
        held = hold or (lambda name, parameter: parameter)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds] if draw else []
        self.embedding = held("embedding", self._table(generators))
        head = None if config.tie_embeddings else held("head", self._table(generators))
        self.blocks = nn.ModuleList()
        for layer in range(config.layers):
            block = Block(config, cohort, layer)
            if draw:
                block.initialize(generators)
            _hold_all(block, f"blocks.{layer}.", held)
            self.blocks.append(block)
        self.final_norm = held("final_norm", nn.Parameter(torch.ones(cohort, config.width)))
        self.head = head
        routers = self.routers()
        for router in routers:
            router.join(routers)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.embedding.device

    def loss(self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None) -> Losses:
        """Next-token losses; `mask_KBT` is True where a position is real (padding on the right)."""
        return self.routed_loss(ids_KBT, targets_KBT, mask_KBT)[0]

    def routed_loss(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Losses, list[Routing]]:
        """As `loss`, and the MoE layers' routings."""
        x_KND, routings = self.trunk(ids_KBT, mask_KBT)
        mask_KN = None if mask_KBT is None else mask_KBT.flatten(1)
        nats_K = cross_entropy(x_KND, self._head(), targets_KBT.flatten(1), mask_KN)
        auxiliary_K = torch.zeros_like(nats_K)
        for routing in routings:
            for loss_K in routing.losses.values():
                auxiliary_K = auxiliary_K + loss_K
        return Losses(nats_K, auxiliary_K), routings

    @torch.no_grad()
    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Nats of every target, (K, N), and the routing of every MoE layer, for evaluation.

        `mask_KBT` is True where a position is real; nats of padding mean nothing.
        """
        x_KND, routings = self.trunk(ids_KBT, mask_KBT)
        return token_nats(x_KND, self._head(), targets_KBT.flatten(1)), routings

    def logits(self, ids_KBT: Tensor) -> Tensor:
        """Logits of the next token, (K, B, T, V) fp32."""
        x_KND, _ = self.trunk(ids_KBT)
        logits_KNV = torch.bmm(x_KND, self._head().transpose(1, 2)).float()
        return logits_KNV.view(*ids_KBT.shape, -1)

    def trunk(
        self, ids_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Final normed hidden states (K, N, D) in `compute_dtype`, and the MoE layers' routings."""
        cohort, _, length = ids_KBT.shape
        ids_KN = ids_KBT.flatten(1)
        mask_KN = None if mask_KBT is None else mask_KBT.flatten(1)
        offset_K1 = torch.arange(cohort, device=ids_KN.device).unsqueeze(1) * self.config.vocab_size
        x_KND = F.embedding(ids_KN + offset_K1, self.embedding.flatten(0, 1)) * EMBEDDING_SCALE
        head_width = self.config.width // self.config.heads
        rotary = rotary_tables(
            length, head_width, self.config.rope_theta, x_KND.device, self.compute_dtype
        )
        end = self.config.end_of_text
        positions = Positions.of(rotary, None if end is None else documents(ids_KBT, end))
        routings: list[Routing] = []
        y_KND: Tensor | None = None
        for layer in range(self.config.layers):
            below = routings[-1] if routings else None
            context = RoutingContext(ids_KN, mask_KN, below, length)
            x_KND, y_KND, routing = self.run_block(layer, x_KND, y_KND, positions, context)
            if routing is not None:
                routings.append(routing)
        _, _, x_KND = add_and_norm(x_KND, y_KND, self.final_norm, self.compute_dtype)
        return x_KND, routings

    def run_block(
        self,
        layer: int,
        x_KND: Tensor,
        y_KND: Tensor | None,
        positions: Positions,
        context: RoutingContext,
    ) -> tuple[Tensor, Tensor, Routing | None]:
        """What block `layer` makes of the stream; see `Block.forward`."""
        out: tuple[Tensor, Tensor, Routing | None] = self.blocks[layer](
            x_KND, y_KND, positions, context, self.compute_dtype
        )
        return out

    def routers(self) -> list[Router]:
        """The routers, first layer first; empty for a dense model."""
        return [m for m in self.modules() if isinstance(m, Router)]

    def begin_step(self, progress: float = 0.0) -> None:
        """Tell the routers that an optimizer step begins; `progress` as in `Router.begin_step`."""
        for router in self.routers():
            router.begin_step(progress)

    def end_step(self) -> None:
        """Tell the routers that the optimizer has moved."""
        for router in self.routers():
            router.end_step()

    def proxy_state(self, proxy: int = 0) -> State:
        """Copies of one proxy's parameters and buffers, without the axis K, on the CPU."""
        return {n: t[proxy].detach().cpu().clone() for n, t in self.state_dict().items()}

    def load_proxy_state(self, state: Mapping[str, Tensor], proxy: int = 0) -> None:
        """Overwrite one proxy with what `proxy_state` gave.

        Raises:
            TrainingError: names or shapes differ.
        """
        mine = {name: tensor[proxy] for name, tensor in self.state_dict().items()}
        check_state({name: tensor.shape for name, tensor in mine.items()}, state)
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])

    def _head(self) -> Tensor:
        head = self.embedding if self.head is None else self.head
        return head.to(self.compute_dtype)

    def _table(self, generators: Sequence[torch.Generator]) -> nn.Parameter:
        """A vector for each token of the vocabulary, (K, V, D); not drawn without generators."""
        shape = (self.cohort, self.config.vocab_size, self.config.width)
        table = nn.Parameter(torch.empty(shape))
        if generators:
            draw_normal(table, generators, EMBEDDING_STD)
        return table


def _hold_all(block: Block, prefix: str, hold: Hold) -> None:
    """Have what `hold` gives of each of the block's parameters in its place."""
    for name, parameter in list(block.named_parameters()):
        module, _, own = name.rpartition(".")
        held = hold(prefix + name, parameter)
        if held is not parameter:
            setattr(block.get_submodule(module), own, held)
