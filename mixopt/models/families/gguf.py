"""GGUF files, llama.cpp's format, turned into a checkpoint in the Hugging Face layout.

Quantized tensors become fp32, one at a time. Needs the packages gguf, and transformers for the
tokenizer.

Shapes: H heads, h channels of one, D width.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixopt.core.errors import CheckpointError, StudyError
from mixopt.io.new_folder import new_folder
from mixopt.models.families.base import Family, Shape, family, split_part
from mixopt.models.families.checkpoint import write_checkpoint
from mixopt.models.families.config import write_config

ENDING = ".gguf"
READ = ("llama", "qwen3")  # architectures held against transformers; Mistral's is llama
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
SHARD = 2**28  # bytes of a file
NO_HOME = {  # keys of an architecture that change what the model computes
    "rope.scaling.type": ("none",),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
}


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that is open.

    Attributes:
        path: the file.
        fields: key → value, of those that hold one value.
        tensors: name → the reader's tensor.
    """

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Any]

    @property
    def family(self) -> Family:
        """Of its architecture.

        Raises:
            CheckpointError: mixopt does not read it.
        """
        name = self.fields.get("general.architecture")
        if name not in READ:
            raise CheckpointError(
                f"holds the architecture {name!r}, and mixopt reads GGUF of {' and '.join(READ)}",
                where=str(self.path),
                hint="Give the model's safetensors",
            )
        return family(name)

    def key(self, name: str, default: Any = None) -> Any:
        """The value of a key of the architecture."""
        return self.fields.get(f"{self.fields['general.architecture']}.{name}", default)

    def config(self) -> dict[str, Any]:
        """What its `config.json` would say.

        Raises:
            CheckpointError: the file holds what would compute something else there.
        """
        for name, allowed in NO_HOME.items():
            if (value := self.key(name, allowed[0])) not in allowed:
                raise self._refused(f"{name} is {value!r}")
        if "rope_freqs.weight" in self.tensors:
            raise self._refused("its rotary positions are scaled by a tensor, rope_freqs")
        values = {
            "hidden_size": self.key("embedding_length"),
            "num_hidden_layers": self.key("block_count"),
            "num_attention_heads": self.key("attention.head_count"),
            "num_key_value_heads": self.key("attention.head_count_kv"),
            "head_dim": self.key("attention.key_length"),
            "intermediate_size": self.key("feed_forward_length"),
            "vocab_size": self._rows("token_embd.weight"),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "max_position_embeddings": self.key("context_length"),
            "rms_norm_eps": self.key("attention.layer_norm_rms_epsilon"),
            "rope_theta": self.key("rope.freq_base", 10_000.0),
            "bos_token_id": self.fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.fields.get("tokenizer.ggml.eos_token_id"),
            "hidden_act": "silu",
        }
        return {key: value for key, value in values.items() if value is not None}

    def dtype(self) -> torch.dtype:
        """Of its largest tensor as it is stored; fp32 where that is quantized."""
        largest = max(self.tensors.values(), key=lambda tensor: int(tensor.n_elements))
        return DTYPES.get(largest.tensor_type.name, torch.float32)

    def read(self, shape: Shape) -> Iterator[tuple[str, Tensor]]:
        """All tensors by part name, fp32, in the family's order.

        Raises:
            CheckpointError: one is missing, cut, or of another shape.
        """
        import gguf

        held = self.family
        architecture = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[held.name]
        names = gguf.get_tensor_name_map(architecture, shape.layers)
        for part in held.parts(shape):
            stored = held.disk_name(_stored(part, shape)).removesuffix(".weight")
            name = f"{names.get_name(stored)}.weight"
            if name not in self.tensors:
                raise self._broken(f"{name} is missing")
            found = self.tensors[name]
            try:
                values = torch.from_numpy(gguf.dequantize(found.data, found.tensor_type).copy())
                tensor = values.reshape(held.size(part, shape))
            except (ValueError, RuntimeError) as error:
                raise self._broken(f"{name} cannot be read: {error}") from error
            yield part, _as_transformers_has_it(held, part, tensor, shape)

    def _rows(self, name: str) -> int:
        if name not in self.tensors:
            raise self._broken(f"{name} is missing")
        return int(self.tensors[name].shape[-1])

    def _refused(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{what}, which mixopt does not read from GGUF",
            where=str(self.path),
            hint="Give the model's safetensors",
        )

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(what, where=str(self.path), hint="Fetch this file again")


def convert(path: Path, folder: Path) -> Path:
    """Write what the GGUF file `path` holds as a checkpoint into the new folder `folder`.

    Raises:
        CheckpointError: it cannot be read, or holds what mixopt does not read from GGUF.
        FileError: the folder cannot be written.
    """
    file = open_gguf(path)
    held, config = file.family, file.config()
    try:
        shape = held.read_shape(config, str(path))
    except StudyError as error:
        raise CheckpointError(error.what, where=str(path), hint="Fetch it again") from error
    _refuse_others(file, held, shape)
    dtype = file.dtype()
    config = write_config(held, shape, config, str(dtype).removeprefix("torch."))
    with new_folder(folder) as part:
        for _ in write_checkpoint(part, held, shape, config, file.read(shape), dtype, SHARD):
            pass
        if "tokenizer.ggml.tokens" in file.fields:
            _write_tokenizer(path, part)
    return folder


def open_gguf(path: Path) -> GgufFile:
    """The GGUF file at `path`; its tensors stay on disk.

    Raises:
        CheckpointError: it cannot be read, or the package gguf is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise CheckpointError(
            "GGUF needs the package gguf, which is not installed",
            where=str(path),
            hint='pip install "mixopt[huggingface]"',
        ) from error
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"cannot be read: {error}", where=str(path), hint="Fetch this file again"
        ) from error
    return GgufFile(path, fields, {tensor.name: tensor for tensor in reader.tensors})


def _refuse_others(file: GgufFile, held: Family, shape: Shape) -> None:
    """Refuse tensors beyond the family's: biases, experts."""
    known = len({_stored(part, shape) for part in held.parts(shape)})
    biases = sorted(name for name in file.tensors if name.endswith(".bias"))
    if biases or len(file.tensors) > known:
        what = biases[0] if biases else f"{len(file.tensors) - known} tensors more than {held.name}"
        raise file._refused(f"it holds {what}")


def _stored(part: str, shape: Shape) -> str:
    """The part that holds the tensor: GGUF leaves a tied head out."""
    return "embedding" if part == "head" and shape.tie_embeddings else part


def _as_transformers_has_it(held: Family, part: str, tensor: Tensor, shape: Shape) -> Tensor:
    """llama.cpp turns neighbouring channels of a head, transformers those half a head apart.

    Its converter of Llama reorders the rows of q and k so; that of Qwen3 does not.
    """
    last = split_part(part)[1].rpartition(".")[2]
    if held.name != "llama" or last not in ("q", "k"):
        return tensor
    heads = shape.heads if last == "q" else shape.kv_heads
    pairs_HhD = tensor.view(heads, shape.head_width // 2, 2, shape.width)
    return pairs_HhD.transpose(1, 2).reshape(tensor.shape)


def _write_tokenizer(path: Path, folder: Path) -> None:
    """The tokenizer of the file, as transformers reads it."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise CheckpointError(
            "the tokenizer of a GGUF file needs transformers, which is not installed",
            where=str(path),
            hint='pip install "mixopt[huggingface]"',
        ) from error
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer.save_pretrained(folder)
