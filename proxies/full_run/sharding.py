"""A model's parameters, gradients and moments in pieces on all processes (FSDP2, 2304.11277).

    parameters on the meta device ──► cut over the processes ──► each process puts its rows in place

No process holds the whole model while it is built: a weight is whole once, drawn or read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from mixopt.core.errors import TrainingError
from mixopt.models.single import Cut
from mixopt.proxies.full_run.contract import FullModel
from mixopt.proxies.full_run.world import World

METHODS = ("loss", "nats", "begin_step", "end_step")  # which read parameters


def own_rows(world: World) -> Cut | None:
    """What this process keeps of a weight: a copy of the rows that `shard` gives it.

    None where one process keeps all.
    """

    def cut(weight: Tensor) -> Tensor:
        parts = weight.detach().chunk(world.size)  # as FSDP2 cuts; the last ones may get nothing
        own = parts[world.rank] if world.rank < len(parts) else weight.detach()[:0]
        return own.clone(memory_format=torch.contiguous_format)

    return None if world.size == 1 else cut


def shard(model: FullModel, world: World) -> None:
    """Cut the model's parameters over the processes, and make its routers count over all.

    Where they are on the meta device, the model's `pieces` are put in place; without any they stay
    as memory was, to be read into. Gradients are summed: a loss is a process' share of that of the
    whole batch, in fp32. One process alone keeps everything as it is.

    Raises:
        TrainingError: a router cannot be split over processes.
    """
    if world.size == 1:
        return
    if any(router.reads_whole_batch for router in model.routers()):
        raise TrainingError(
            "this router fills its experts from whole batches: its losses would depend on how "
            f"many processes share a batch, here {world.size}",
            where="promote.model.router",
            hint="Choose another router, or train in one process",
        )
    for router in model.routers():
        router.sum_over_processes = world.sum
    # of blocks' outputs: nothing works in place on them
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    cast_down = MixedPrecisionPolicy(model.gather_dtype, torch.float32, cast_forward_inputs=False)
    root = cast(nn.Module, model)
    for part in model.sharded_alone():
        _summed(fully_shard(part, mesh=mesh, mp_policy=cast_down))
    _summed(fully_shard(root, mesh=mesh, mp_policy=plain))
    _put_in_place(model, root, world.device)
    for name in METHODS:
        register_fsdp_forward_method(root, name)


def _put_in_place(model: FullModel, root: nn.Module, device: torch.device) -> None:
    """Give every parameter on the meta device its rows.

    Pieces become the parameters, or `to_empty` and copies would need room for both at once.
    """
    pieces, own = model.pieces, dict[nn.Parameter, nn.Parameter]()
    drawn = bool(pieces)
    for name, weight in model.named_weights():
        if not weight.is_meta:
            continue
        outline = weight.detach()
        assert isinstance(outline, DTensor)
        wanted = outline.to_local()
        local = pieces.pop(name).to(device) if drawn else torch.empty_like(wanted, device=device)
        assert local.shape == wanted.shape, name
        own[weight] = nn.Parameter(
            DTensor.from_local(
                local,
                outline.device_mesh,
                outline.placements,
                run_check=False,
                shape=outline.shape,
                stride=outline.stride(),
            ),
            weight.requires_grad,
        )
    # a tied weight has two names here, and stays one
    named = root.named_parameters(remove_duplicate=False)
    state = {name: own[weight] for name, weight in named if weight in own}
    root.load_state_dict(state, strict=False, assign=True)


def _summed(module: FSDPModule) -> None:
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def whole_weights(model: FullModel) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of `proxy_state`, sorted by name, each put together when it is its turn.

    Every process must go through all of them. One at a time is whole.
    """
    weights, buffers = dict(model.named_weights()), model.buffers_to_keep()
    for name in sorted(weights.keys() | buffers.keys()):
        if name in buffers:
            yield name, buffers[name][0]
            continue
        found = weights[name].detach()
        whole = found.full_tensor() if isinstance(found, DTensor) else found
        yield name, whole.view(model.shape_of(name))


def outline_of(model: FullModel) -> dict[str, Tensor]:
    """By the names of `whole_weights`, tensors of their types and shapes that take no memory."""
    shapes = {name: (model.shape_of(name), w.dtype) for name, w in model.named_weights()}
    kept = {name: (b[0].shape, b.dtype) for name, b in model.buffers_to_keep().items()}
    return {
        name: torch.empty(shape, dtype=dtype, device="meta")
        for name, (shape, dtype) in (shapes | kept).items()
    }
