"""States on disk: safetensors files with JSON beside the tensors, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from mixopt.errors import CheckpointError
from mixopt.files import write_bytes


def save_state(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and JSON-able `meta` to one `.safetensors` file, atomically.

    Raises:
        CheckpointError: safetensors is not installed.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"meta": json.dumps(meta or {})}
    write_bytes(path, _safetensors().save(on_cpu, metadata=header))


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
