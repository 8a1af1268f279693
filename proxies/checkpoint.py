"""States on disk: safetensors files with JSON beside the tensors, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from mixopt.errors import CheckpointError


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary neighbour, fsync, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def save_state(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and JSON-able `meta` to one `.safetensors` file, atomically.

    Raises:
        CheckpointError: safetensors is not installed.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"meta": json.dumps(meta or {})}
    write_atomically(path, _safetensors().save(on_cpu, metadata=header))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `meta` that `save_state` wrote, on the CPU.

    Raises:
        CheckpointError: the file is absent or broken, or safetensors is not installed.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"cannot be read: {error}", where=str(path), mend="Delete it to start afresh"
        ) from error


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError(
            "weights and checkpoints need safetensors, which is not installed",
            mend="pip install safetensors, or train with checkpoint_seconds = inf and without "
            "keeping weights",
        ) from error
    return safetensors.torch


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
