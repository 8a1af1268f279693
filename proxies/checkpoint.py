"""States on disk: safetensors files with JSON beside the tensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import BrokenCheckpointError, CheckpointError, is_out_of_memory
from mixopt.io.files import replacing, write_bytes

TYPES = {  # safetensors' names
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


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


def write_state(
    path: Path, outline: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """As `save_state`, of tensors that come one after another: none has to stay in memory.

    Args:
        path: the file.
        outline: tensors of the names, types and shapes that come, perhaps on the meta device.
        tensors: names and tensors, sorted by name.

    Raises:
        AssertionError: what comes differs from the outline.
        FileError: the file cannot be written.
    """
    layout: dict[str, Any] = {}
    end = 0
    for name in sorted(outline, key=lambda name: (-outline[name].itemsize, name)):
        tensor, start = outline[name], end
        end += tensor.numel() * tensor.itemsize
        kind = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape)}
        layout[name] = {**kind, "data_offsets": [start, end]}
    text, found = "{}", hashlib.sha256(b"{}")
    first = _header(layout, text, found.hexdigest())
    with replacing(path) as file:
        file.write(first)
        for wanted, (name, tensor) in zip(sorted(outline), tensors, strict=True):
            on_cpu, like = tensor.detach().cpu(), outline[wanted]
            came = name, on_cpu.dtype, on_cpu.shape
            assert came == (wanted, like.dtype, like.shape), came
            _add(found, name, on_cpu)
            file.seek(len(first) + layout[name]["data_offsets"][0])
            file.write(_bytes(on_cpu))
        file.seek(0)
        file.write(_header(layout, text, found.hexdigest()))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `meta` that `save_state` wrote, on the CPU.

    Raises:
        BrokenCheckpointError: the file is not as it was written.
        CheckpointError: the file is absent or cannot be read, or safetensors is not installed.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = json.loads(header.get("meta", "{}"))
    _check(path, header, tensors)
    return tensors, meta


def open_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors that `save_state` wrote, each read from disk when it is asked for.

    Raises:
        BrokenCheckpointError: the file is not as it was written.
        CheckpointError: the file is absent or cannot be read, or safetensors is not installed.
    """
    with _opened(path) as file:
        header, tensors = file.metadata() or {}, _OnDisk(path, tuple(file.keys()))
    _check(path, header, tensors)
    return tensors


class _OnDisk(Mapping[str, Tensor]):
    """Tensors of a file by name."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with _opened(self._path) as file:
            found: Tensor = file.get_tensor(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
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


def _check(path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    text = header.get("meta", "{}")
    if header.get("sha256", "") not in ("", _checksum(tensors, text)):  # "": another program's file
        raise BrokenCheckpointError(
            "was changed after it was written: its checksum does not fit its contents",
            where=str(path),
            hint="Delete it to start afresh, and check the disk",
        )


def _checksum(tensors: Mapping[str, Tensor], meta: str) -> str:
    """SHA-256 of `meta` and of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        _add(found, name, tensors[name])
    return found.hexdigest()


def _add(found: Any, name: str, tensor: Tensor) -> None:
    found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(_bytes(tensor))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(layout: Mapping[str, Any], meta: str, checksum: str) -> bytes:
    """What a safetensors file begins with: the length of a JSON text, and that."""
    values = {"__metadata__": {"meta": meta, "sha256": checksum}, **layout}
    text = json.dumps(values, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
