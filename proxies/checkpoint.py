"""States on disk: safetensors files with JSON beside the tensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import BrokenCheckpointError, CheckpointError, is_out_of_memory
from mixopt.io.files import write_bytes


def save_state(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and JSON-able `meta` to one `.safetensors` file, atomically.

    Raises:
        CheckpointError: safetensors is not installed.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta or {})
    header = {"meta": text, "sha256": _checksum(on_cpu, text)}
    write_bytes(path, _safetensors().save(on_cpu, metadata=header))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `meta` that `save_state` wrote, on the CPU.

    Raises:
        BrokenCheckpointError: the file is not as it was written.
        CheckpointError: the file is absent or cannot be read, or safetensors is not installed.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = header.get("meta", "{}")
        meta = json.loads(text)
    except OSError as error:
        raise CheckpointError(
            f"cannot be read: {error}", where=str(path), hint="Check the disk and its permissions"
        ) from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        # RuntimeError: it became shorter between its header and its content
        raise BrokenCheckpointError(
            f"is cut or broken: {error}",
            where=str(path),
            hint="Delete it to start afresh, and check the disk",
        ) from error
    if header.get("sha256", "") not in ("", _checksum(tensors, text)):  # "": another program's file
        raise BrokenCheckpointError(
            "was changed after it was written: its checksum does not fit its contents",
            where=str(path),
            hint="Delete it to start afresh, and check the disk",
        )
    return tensors, meta


def _checksum(tensors: Mapping[str, Tensor], meta: str) -> str:
    """SHA-256 of `meta` and of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError(
            "weights and checkpoints need safetensors, which is not installed",
            hint="pip install safetensors, or train with checkpoint_seconds = inf and without "
            "keeping weights",
        ) from error
    return safetensors.torch
