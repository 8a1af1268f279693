"""Checkpoints in the Hugging Face layout: read tensor by tensor, written shard by shard.

Tensors are read when they are asked for; files are mapped into memory, not copied.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import CheckpointError
from mixopt.io import files
from mixopt.models.families.base import Family, Shape, family_of, split_part
from mixopt.models.families.config import check_held

INDEX, SINGLE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CARRIED_FILES = (  # tokenizer and generation settings, whatever the family
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
COMPUTED = ("rotary_emb.inv_freq",)  # ends of names that old tools wrote; nothing reads them
ROOM = 1.02  # of the disk that a checkpoint takes, for the files beside the tensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Open one with `open_checkpoint`.

    Attributes:
        folder: where it lies.
        family: of its config.
        config: content of `config.json`, with the family's defaults where it is silent.
        shape: that the config says.
        files: name on disk → file that holds the tensor.
    """

    folder: Path
    family: Family
    config: Mapping[str, Any]
    shape: Shape
    files: Mapping[str, Path]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Part names of its tensors, in the family's order; a tied head is the embedding."""
        tied = {"head"} if self.shape.tie_embeddings else set()
        parts = (part for part in self.family.parts(self.shape) if part not in tied)
        return tuple(part for part in parts if self._holds(part))

    @cached_property
    def largest_file(self) -> int:
        """Bytes of the largest of its files."""
        return max(path.stat().st_size for path in set(self.files.values()))

    @cached_property
    def carried(self) -> tuple[Path, ...]:
        """Its tokenizer and generation settings."""
        found = (self.folder / name for name in CARRIED_FILES)
        return tuple(path for path in found if path.is_file())

    def __getitem__(self, part: str) -> Tensor:
        """The tensor of that part name, as it is stored.

        Raises:
            CheckpointError: it cannot be read, or holds what is not finite.
        """
        fused = self._fused(part)
        name = self._name(part) if fused is None else fused[0]
        path = self.files[name]
        with _opened(path, f"{name} ") as file:
            tensor: Tensor = file.get_tensor(name) if fused is None else fused[1](file, name)
        # NaN and infinities show in the extremes; `isfinite` needs a copy of the tensor
        if not all(map(torch.isfinite, torch.aminmax(tensor))):
            raise CheckpointError(
                f"{name} holds values that are not finite",
                where=str(path),
                hint="Give a checkpoint from before the training diverged",
            )
        return tensor

    def _holds(self, part: str) -> bool:
        return self._name(part) in self.files or self._fused(part) is not None

    def _name(self, part: str) -> str:
        """What the tensor is called here: the family's name, or its other spelling if that is."""
        numbers, template = split_part(part)
        other = self.family.spellings.get(template, "").format(**numbers)
        return other if other in self.files else self.family.disk_name(part)

    def _fused(self, part: str) -> tuple[str, Any] | None:
        """Name and reader of the stacked tensor that holds an expert's `part`, if there is one."""
        numbers, template = split_part(part)
        if "expert" not in numbers or not self.family.fused:
            return None
        last, expert = template.rpartition(".")[2], numbers["expert"]
        name = self.family.fused["down" if last == "down" else "gate_up"].format(**numbers)
        if name not in self.files:
            return None
        rows = slice(None)
        if last != "down":
            hidden = self.shape.hidden
            rows = slice(0, hidden) if last == "gate" else slice(hidden, 2 * hidden)
        return name, lambda file, name: file.get_slice(name)[expert, rows]


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, checked by its files' headers: no tensor is read yet.

    Raises:
        CheckpointError: a file is absent or cut, a tensor is missing, of another shape or not
            known, or the weights are pickled.
        StudyError: the family is not described, or its config lacks a key or asks for what the
            family, as mixopt knows it, does not hold.
    """
    config, where = read_object(folder / CONFIG), str(folder / CONFIG)
    family = family_of(config, where)
    check_held(family, config, where)
    config = family.completed(config)
    shape = family.read_shape(config, where)
    held = _headers(folder)
    paths = {name: path for name, (path, _) in held.items()}
    checkpoint = Checkpoint(folder, family, config, shape, paths)
    _check(checkpoint, {name: size for name, (_, size) in held.items()})
    return checkpoint


def _check(checkpoint: Checkpoint, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Every part of the family is there once, in its shape, and nothing else is."""
    family, shape, folder = checkpoint.family, checkpoint.shape, str(checkpoint.folder)
    known: set[str] = set()
    for part in family.parts(shape):
        name, wanted = checkpoint._name(part), family.size(part, shape)
        stacked = checkpoint._fused(part)
        if stacked is not None:
            name, wanted = stacked[0], _stacked(wanted, part, shape)
        known.add(name)
        if name not in sizes:
            if part == "head" and shape.tie_embeddings:
                continue
            raise CheckpointError(
                f"{name} is missing", where=folder, hint="Fetch all files of the checkpoint"
            )
        if tuple(sizes[name]) != wanted:
            raise CheckpointError(
                f"{name} has shape {list(sizes[name])}, and by its config {list(wanted)}",
                where=folder,
                hint="Give the config.json that belongs to these weights",
            )
    extra = sorted(n for n in sizes if n not in known and not n.endswith(COMPUTED))
    if extra:
        raise CheckpointError(
            f"{extra[0]} is no tensor of {family.name}"
            + (f", nor are {len(extra) - 1} others" if len(extra) > 1 else ""),
            where=folder,
            hint="Give a checkpoint without adapters or additions, merged into its weights",
        )


def _stacked(size: tuple[int, ...], part: str, shape: Shape) -> tuple[int, ...]:
    """The shape of the tensor that holds `part`, of that size, of all experts."""
    rows, columns = size
    return shape.experts, rows if part.endswith(".down") else 2 * rows, columns


def _headers(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Name on disk → file and shape, of all tensors in `folder`."""
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        mapped = read_object(index).get("weight_map")
        if not isinstance(mapped, dict):
            raise CheckpointError("has no weight_map", where=str(index), hint="Fetch it again")
        names = sorted({str(name) for name in mapped.values()})
        if outside := [name for name in names if name != Path(name).name]:
            raise CheckpointError(
                f"names a file outside its folder, {outside[0]!r}",
                where=str(index),
                hint="Fetch the checkpoint again, from where you trust it",
            )
        paths = [folder / name for name in names]
    elif single.is_file():
        paths = [single]
    else:
        refuse_pickled(str(folder), (path.name for path in folder.iterdir()))
        raise CheckpointError(
            f"there is neither {SINGLE} nor {INDEX}",
            where=str(folder),
            hint="Give a folder with config.json and safetensors",
        )
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in paths:
        found |= {name: (path, size) for name, size in tensor_shapes(path).items()}
    return found


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape, of the tensors of a safetensors file; only its header is read.

    Raises:
        CheckpointError: it cannot be read, or is cut.
    """
    with _opened(path) as file:
        return {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118


def refuse_pickled(folder: str, names: Iterable[str]) -> None:
    """Refuse pickled weights among the files of a folder without safetensors.

    Raises:
        CheckpointError: naming the first.
    """
    pickled = (n for n in sorted(names) if any(PurePath(n).match(each) for each in PICKLED))
    if name := next(pickled, ""):
        raise CheckpointError(
            "weights are pickled, and a pickle can run any code",
            where=f"{folder}/{name}",
            hint="Save them as safetensors (transformers: save_pretrained does)",
        )


@contextlib.contextmanager
def _opened(path: Path, what: str = "") -> Iterator[Any]:
    """A safetensors file to read from; whatever fails names it, and `what` was read."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(
            "checkpoints need safetensors, which is not installed",
            hint="pip install safetensors",
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{what}cannot be read: {error}", where=str(path), hint="Fetch this file again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file.

    Raises:
        CheckpointError: it cannot be read, is cut, or is something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            hint="Give a folder with config.json and safetensors",
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"is cut or no JSON: {error}", where=str(path), hint="Fetch it again"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError("is no JSON object", where=str(path), hint="Fetch it again")
    return values


def planned_bytes(family: Family, shape: Shape, dtype: torch.dtype) -> dict[str, int]:
    """Part name → bytes, of all tensors of a model."""
    return {
        part: torch.Size(family.size(part, shape)).numel() * dtype.itemsize
        for part in family.parts(shape)
    }


def shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """`sizes` cut into runs of at most `most` bytes, in order; a larger part is alone."""
    found: list[list[str]] = [[]]
    taken = 0
    for part, size in sizes.items():
        if found[-1] and taken + size > most:
            found.append([])
            taken = 0
        found[-1].append(part)
        taken += size
    return found


def write_checkpoint(
    folder: Path,
    family: Family,
    shape: Shape,
    config: Mapping[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    most: int,
    carried: Sequence[Path] = (),
) -> Iterator[str]:
    """Write a checkpoint into `folder`, a shard at a time; yields each shard's name once written.

    The config is written last: without it no tool takes the folder for a model.

    Args:
        folder: exists and is empty.
        family: of the layout.
        shape: of the model.
        config: content of `config.json`.
        tensors: part name and tensor, in the family's order; converted to `dtype`.
        dtype: of all tensors on disk.
        most: bytes of a shard.
        carried: files that are copied beside it.

    Raises:
        CheckpointError: the disk is too small for it.
        FileError: a file cannot be written.
    """
    sizes = planned_bytes(family, shape, dtype)
    need, free = int(sum(sizes.values()) * ROOM), shutil.disk_usage(folder).free
    if need > free:
        raise CheckpointError(
            f"the model takes {need / 1e9:.2f} GB, and the disk of {folder.parent.absolute()} has "
            f"{free / 1e9:.2f} GB left",
            hint="Free space on that disk, or write elsewhere",
        )
    runs, source = shards(sizes, most), iter(tensors)
    mapped: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        name = SINGLE if len(runs) == 1 else f"model-{number:05d}-of-{len(runs):05d}.safetensors"
        held: dict[str, Tensor] = {}
        for wanted in run:
            part, tensor = next(source)
            if part != wanted:
                raise AssertionError(f"{part} came where {wanted} belongs")
            held[family.disk_name(part)] = _of_its_own(tensor, dtype, held.values())
            del tensor
        _save(folder / name, held)
        mapped |= dict.fromkeys(held, name)
        held.clear()
        yield name
    if len(runs) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": mapped}
        files.write_json(folder / INDEX, index)
    for path in carried:
        files.write_bytes(folder / path.name, path.read_bytes())
    files.write_json(folder / CONFIG, dict(config))


def _of_its_own(tensor: Tensor, dtype: torch.dtype, held: Iterable[Tensor]) -> Tensor:
    """`tensor` in `dtype`; a copy only where it must be, for copies take memory.

    Experts may be the same tensor, which safetensors refuses.
    """
    shared = any(tensor.data_ptr() == other.data_ptr() for other in held)
    if tensor.dtype == dtype and tensor.is_contiguous() and not shared:
        return tensor
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with files.writing(path):
        try:
            save_file(dict(tensors), path, metadata={"format": "pt"})  # transformers asks for it
        except SafetensorError as error:  # an OSError as text: `… (os error 28)`
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error
        path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes files of mode 600
        with path.open("rb") as file:
            os.fsync(file.fileno())
