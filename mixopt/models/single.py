"""One model without the axis K, whose parameters can be sharded: what a full run trains.

    parameters (A·B, C), perhaps shards ──► views (1, A, B, C) ──► the code of `Transformer`

A `Transformer` of K = 1 is run as a function of parameters that lie here: its own are on the meta
device and take no memory. So every router and layer serves as it is, and losses and gradients are
those of K = 1 bit for bit.

Parameters lie flat, all axes but the last as one: an axis of 8 experts gives 64 processes nothing
to share, one of 8 · D rows does. A process that is to hold a piece of each never has them all: they
are drawn one block after another, with the numbers that they have in a whole model.

Shapes: K = 1, B sequences, T positions, N = B·T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from mixopt.core.phases import Part
from mixopt.models.attention import Positions
from mixopt.models.config import ModelConfig
from mixopt.models.moe import MoE
from mixopt.models.routers.base import Router, Routing, RoutingContext
from mixopt.models.transformer import Block, State, Transformer, check_state

R = TypeVar("R")
Cut = Callable[[Tensor], Tensor]  # of a weight as it lies: a copy of the rows that stay here
BlockOutput = tuple[Tensor, Tensor, Routing | None]


class SingleTransformer(nn.Module):
    """The model: of `parts`, one for each block's matrices, and of all else itself.

    A part is what is gathered and freed again on its own where the model is sharded. Norms and
    routers are small, stay fp32, and may be read by other layers: they are no part's.

    Args:
        config: its shape; `vocab_size` must be set.
        seed: draws the initial weights, those of a `Transformer` of that seed.
        compute_dtype: as of `Transformer`.
        device: where it lies.
        recompute: whether blocks are computed once more for their gradients, so that only their
            inputs are kept (activation checkpointing).
        cut: what is kept of each weight where parameters are to be sharded: they themselves are on
            the meta device then. None: all of it.
        draw: False draws nothing: what is cut is given later, by `load_proxy_state` or after the
            sharding.

    Attributes:
        pieces: by names of `named_weights`, what `cut` kept on the CPU, until they are sharded.
        parts: of the blocks, first layer first.
        cohort: 1; evaluation asks.
        gather_dtype: in which the parts' parameters may be gathered; None: fp32.

    Example:
        model = SingleTransformer(config, seed=0)
        nats, auxiliary, routings = model.loss(ids_BT[:, :-1], ids_BT[:, 1:])
    """

    cohort = 1

    def __init__(
        self,
        config: ModelConfig,
        seed: int = 0,
        compute_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        recompute: bool = False,
        *,
        cut: Cut | None = None,
        draw: bool = True,
    ) -> None:
        super().__init__()
        self._cut, self.pieces = cut, dict[str, Tensor]()
        weights: dict[str, Tensor] = {}  # flat

        def hold(name: str, weight: nn.Parameter) -> nn.Parameter:
            flat = _flat(weight.detach())
            if cut is not None and draw:
                self.pieces[name] = cut(flat)
            weights[name] = flat.to(device if cut is None else "meta")
            return nn.Parameter(torch.empty_like(weight, device="meta"))

        skeleton = _Skeleton(config, (seed,), compute_dtype, hold=hold, draw=draw)
        move_buffers(skeleton, device)
        self.config, self.compute_dtype = config, compute_dtype
        self.gather_dtype = None if compute_dtype == torch.float32 else compute_dtype
        self._skeleton = (skeleton,)  # a tuple: its modules are none of this one
        self._shapes = {name: p.shape for name, p in skeleton.named_parameters()}
        weights = {name: weights[name] for name in self._shapes}
        self.parts = nn.ModuleList(
            BlockPart(skeleton, layer, _take(weights, _matrices(skeleton, layer)), recompute)
            for layer in range(config.layers)
        )
        skeleton.holders = tuple(self._run_part(part) for part in self.parts)
        for name, weight in weights.items():
            self.register_parameter(_key(name), nn.Parameter(weight))
        self._of_block = [self._read_by(layer) for layer in range(config.layers)]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> SingleTransformer:
        """Choose between training and evaluation."""
        self._skeleton[0].train(mode)
        return super().train(mode)

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor, list[Routing]]:
        """Nats per token (1,), the routers' losses (1,), and the routing of every MoE layer."""
        run = self._skeleton[0].routed_loss
        losses, routings = self._call(run, ids_BT.unsqueeze(0), targets_BT.unsqueeze(0))
        return losses.nats_K, losses.auxiliary_K, routings

    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """As `Transformer.nats`."""
        return self._call(self._skeleton[0].nats, ids_KBT, targets_KBT, mask_KBT)

    @torch.no_grad()
    def begin_step(self, progress: float = 0.0) -> None:
        """As `Transformer.begin_step`."""
        self._call(self._skeleton[0].begin_step, progress)

    @torch.no_grad()
    def end_step(self) -> None:
        """As `Transformer.end_step`."""
        self._call(self._skeleton[0].end_step)

    def routers(self) -> list[Router]:
        """The routers, first layer first; they hold state, and no parameters."""
        return self._skeleton[0].routers()

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names as of `Transformer`, and parameters as they lie: flat, and perhaps sharded."""
        held = {key.rpartition(".")[2]: p for key, p in self.named_parameters()}
        return ((name, held[_key(name)]) for name in self._shapes)

    def sharded_alone(self) -> list[nn.Module]:
        """The parts."""
        return list(self.parts)

    def shape_of(self, name: str) -> torch.Size:
        """The shape of a weight in `proxy_state`."""
        return self._shapes[name][1:]

    def decays(self, name: str) -> bool:
        """Whether weight decay touches this weight: norms and embeddings are left alone."""
        return len(self._shapes[name]) > 2 and name not in ("embedding", "head")

    def part_of(self, name: str) -> Part:
        """Whose this weight is: a router's, the routed experts', or shared by all tokens."""
        if ".router." in name:
            return "router"
        routed = ".feed_forward." in name and ".shared" not in name and not self.config.dense
        return "experts" if routed else "shared"

    def buffers_to_keep(self) -> dict[str, Tensor]:
        """The routers' state by its names in `Transformer`, with the axis K = 1."""
        state = self._skeleton[0].state_dict()
        return {name: tensor for name, tensor in state.items() if name not in self._shapes}

    def proxy_state(self) -> State:
        """As `Transformer.proxy_state`, of parameters that are not sharded."""
        weights = {
            name: weight.detach().view(self._shapes[name][1:])
            for name, weight in self.named_weights()
        }
        state = weights | {name: tensor[0] for name, tensor in self.buffers_to_keep().items()}
        return {name: state[name].cpu().clone() for name in self._skeleton[0].state_dict()}

    @torch.no_grad()
    def load_proxy_state(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the model with what `proxy_state` gave; before it is sharded.

        Raises:
            TrainingError: names or shapes differ.
        """
        buffers = self.buffers_to_keep()
        shapes = self._shapes | {name: buffer.shape for name, buffer in buffers.items()}
        check_state({name: shape[1:] for name, shape in shapes.items()}, state)
        for name, weight in self.named_weights():
            lying = state[name].view(weight.shape)
            if self._cut is None:
                weight.copy_(lying)
            else:
                self.pieces[name] = self._cut(lying.to(weight.dtype))
        for name, buffer in buffers.items():
            buffer[0].copy_(state[name])

    def _call(self, do: Callable[..., R], *args: Any) -> R:
        """Run a method of the skeleton with the parameters that are no part's."""
        given = {name: _view(self, name, self._shapes[name]) for name in self._own()}
        found: R = functional_call(self._skeleton[0], given, (do, *args), tie_weights=False)
        return found

    def _run_part(self, part: nn.Module) -> Callable[..., BlockOutput]:
        assert isinstance(part, BlockPart)

        def run(*args: Any) -> BlockOutput:
            names = self._of_block[part.layer]
            out: BlockOutput = part({n: _view(self, n, self._shapes[n]) for n in names}, *args)
            return out

        return run

    def _own(self) -> list[str]:
        return [name for name in self._shapes if hasattr(self, _key(name))]

    def _read_by(self, layer: int) -> list[str]:
        """What block `layer` reads besides its part: its norms and router, and others' routers."""
        block = self._skeleton[0].blocks[layer]
        assert isinstance(block, Block)
        router = block.feed_forward.router
        elsewhere = router is not None and router.reads_other_layers
        return [
            name
            for name in self._own()
            if name.startswith(f"blocks.{layer}.") or (elsewhere and ".router." in name)
        ]


class BlockPart(nn.Module):
    """The matrices of one block's attention and experts.

    Args:
        skeleton: that runs them.
        layer: of the block.
        weights: name → flat.
        recompute: as of `SingleTransformer`.

    Attributes:
        layer: of the block.
    """

    def __init__(
        self, skeleton: _Skeleton, layer: int, weights: Mapping[str, Tensor], recompute: bool
    ) -> None:
        super().__init__()
        self._skeleton, self.layer, self._recompute = (skeleton,), layer, recompute
        self._shapes = {name: skeleton.get_parameter(name).shape for name in weights}
        for name, weight in weights.items():
            self.register_parameter(_key(name), nn.Parameter(weight))

    def forward(
        self,
        others: dict[str, Tensor],
        x_KND: Tensor,
        y_KND: Tensor | None,
        positions: Positions,
        context: RoutingContext,
    ) -> BlockOutput:
        """As `Block.forward`; `others` are the parameters that it reads and this part has not."""
        args = (others, x_KND, y_KND, positions, context)
        if not (self._recompute and torch.is_grad_enabled()):
            return self._run(*args)
        out: BlockOutput = checkpoint(
            self._run, *args, use_reentrant=False, context_fn=self._replaying
        )
        return out

    def _run(self, others: dict[str, Tensor], *args: Any) -> BlockOutput:
        (skeleton,) = self._skeleton
        given = others | {name: _view(self, name, shape) for name, shape in self._shapes.items()}
        block = skeleton.blocks[self.layer]
        out: BlockOutput = functional_call(
            skeleton, given, (block, *args, skeleton.compute_dtype), tie_weights=False
        )
        return out

    def _replaying(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """What surrounds the first pass, and the second, which routes with the first's counts."""
        block = self._skeleton[0].blocks[self.layer]
        assert isinstance(block, Block)
        router = block.feed_forward.router
        if router is None:
            return nullcontext(), nullcontext()
        counts_KE, tokens_K = router.step_counts_KE.clone(), router.step_tokens_K.clone()
        return nullcontext(), router.replaying(counts_KE, tokens_K)


class _Skeleton(Transformer):
    """A model whose parameters are given call by call, and whose blocks others run."""

    holders: tuple[Callable[..., BlockOutput], ...]

    def run_block(
        self,
        layer: int,
        x_KND: Tensor,
        y_KND: Tensor | None,
        positions: Positions,
        context: RoutingContext,
    ) -> BlockOutput:
        """By whoever holds the block's matrices."""
        return self.holders[layer](x_KND, y_KND, positions, context)

    def forward(self, do: Callable[..., R], *args: Any) -> R:
        """Call `do`, one of this model's parts or methods, while it has the given parameters."""
        return do(*args)


def _matrices(skeleton: Transformer, layer: int) -> list[str]:
    """Names of the weights of a block's attention and experts that may be cast to bf16."""
    block = skeleton.blocks[layer]
    assert isinstance(block, Block)
    assert isinstance(block.feed_forward, MoE)
    kept = {f"feed_forward.{name}" for name in block.feed_forward.fp32}
    return [
        f"blocks.{layer}.{name}"
        for name, weight in block.named_parameters()
        if weight.dim() > 2 and ".router." not in name and name not in kept
    ]


def _take(weights: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    return {name: weights.pop(name) for name in names}


def _key(name: str) -> str:
    """The name in a flat module, where none may hold a dot."""
    return name.replace(".", "/")


def _flat(weight: Tensor) -> Tensor:
    """(1, A, B, C) as (A·B, C), (1, C) as (C,)."""
    return weight.reshape(-1, weight.shape[-1]) if weight.dim() > 2 else weight[0]


def _view(holder: nn.Module, name: str, shape: torch.Size) -> Tensor:
    found: Tensor = getattr(holder, _key(name)).view(shape)
    return found


def move_buffers(model: nn.Module, device: torch.device | str) -> None:
    """As `to`, which refuses parameters on the meta device."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
