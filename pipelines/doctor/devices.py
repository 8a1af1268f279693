"""Devices: which there are, and whether bf16 is faster than fp32 on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from mixopt.pipelines.doctor.finding import Finding, Level, Place

CHECK = "devices"
SIZE, REPEATS = 512, 6  # a product takes milliseconds on one core


def check_devices(place: Place) -> Iterator[Finding]:
    """Look for GPUs, and time products of matrices on each kind of device."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(CHECK, Level.FINE, f"{cores} cores for this process")
    yield _speed("cpu", "the CPU")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(number)
            yield _speed(f"cuda:{number}", f"GPU {number}, {name}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            *(CHECK, Level.BROKEN, f"there is a GPU, which torch {torch.__version__} cannot use"),
            fix="Install a torch that is built for its driver's CUDA: pytorch.org/get-started",
        )
    asked = 0.0 if place.study is None else place.study.ray.gpus_per_trial
    if asked and not torch.cuda.is_available():
        yield Finding(
            *(CHECK, Level.NOTE, f"ray.gpus_per_trial is {asked:g}, and this machine has no GPU"),
            fix="Fine where the cluster's other nodes have them; else set it to 0",
        )


def _speed(device: str, name: str) -> Finding:
    import torch

    plain, half = (_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    faster = plain / half
    chosen = "bf16" if faster > 1 else "fp32"
    text = f"{name}: bf16 has {faster:.2g} times the speed of fp32 ({SIZE} × {SIZE} products)"
    return Finding(CHECK, Level.FINE, f"{text}, so `precision: auto` will likely take {chosen}")


def _seconds(device: str, dtype: object) -> float:
    """Of the fastest of some products, the first of which warms up."""
    import torch

    matrix = torch.ones(SIZE, SIZE, device=device, dtype=dtype)  # type: ignore[call-overload]
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        product = matrix @ matrix
        product.sum().item()  # waits for the device
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
