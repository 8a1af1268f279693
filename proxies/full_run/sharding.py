"""A model's parameters, gradients and moments in pieces on all processes (FSDP2, 2304.11277)."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from mixopt.core.errors import TrainingError
from mixopt.models.transformer import State
from mixopt.proxies.full_run.contract import FullModel
from mixopt.proxies.full_run.world import World

METHODS = ("loss", "nats", "begin_step", "end_step")  # which read parameters


def shard(model: FullModel, world: World) -> None:
    """Cut the model's parameters over the processes, and make its routers count over all.

    Gradients are summed: a loss is a process' share of that of the whole batch, in fp32.
    One process alone keeps everything as it is.

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
    for name in METHODS:
        register_fsdp_forward_method(root, name)


def _summed(module: FSDPModule) -> None:
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def whole_state(model: FullModel, world: World) -> State:
    """As `proxy_state` of the model before it was sharded; in other processes than the first {}.

    Every process must call it. One weight at a time is whole on the devices.
    """
    state: State = {}
    for name, weight in model.named_weights():
        found = weight.detach()
        whole = found.full_tensor() if isinstance(found, DTensor) else found
        if world.first:
            state[name] = whole.view(model.shape_of(name)).cpu().clone()
    if world.first:
        state |= {name: b[0].cpu().clone() for name, b in model.buffers_to_keep().items()}
    return state
