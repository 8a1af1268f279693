"""A GGUF file becomes the checkpoint that transformers reads from the same file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from mixopt.core.errors import CheckpointError
from mixopt.models.families.gguf import convert
from tests.mixopt.models.families.gguf_files import VOCAB, write


def logits(made: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made.eval()(torch.arange(VOCAB).view(1, -1)).logits
    return found


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_the_checkpoint_computes_what_was_put_into_the_file(kind: str, tmp_path: Path) -> None:
    made = write(tmp_path / "it.gguf", kind)
    convert(tmp_path / "it.gguf", tmp_path / "folder")
    assert (logits(loaded(tmp_path / "folder")) - logits(made)).abs().max() < 1e-5
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == (kind.lower(), "float32")


@pytest.mark.parametrize("store", [np.float16, "Q8_0", "Q4_1"], ids=["F16", "Q8_0", "Q4_1"])
def test_it_holds_what_transformers_reads_from_the_file(store: Any, tmp_path: Path) -> None:
    made = write(tmp_path / "it.gguf", "Llama", store)
    convert(tmp_path / "it.gguf", tmp_path / "folder")
    read = load_gguf_checkpoint(tmp_path / "it.gguf", return_tensors=True, model_to_load=made)
    ours = load_file(tmp_path / "folder" / "model.safetensors")
    assert set(read["tensors"]) == set(ours)
    for name, theirs in read["tensors"].items():
        assert torch.equal(ours[name], theirs.to(ours[name].dtype)), name
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["dtype"] == ("float16" if store == np.float16 else "float32")
    for key in ("hidden_size", "head_dim", "num_key_value_heads", "rms_norm_eps", "vocab_size"):
        assert config[key] == pytest.approx(read["config"][key]), key


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    write(tmp_path / "it.gguf")
    convert(tmp_path / "it.gguf", tmp_path / "folder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer.convert_ids_to_tokens(tokenizer("cab").input_ids) == ["c", "ab"]


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert(path, path.parent / "folder")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return str(caught.value)


def test_what_would_compute_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "it.gguf", rope__scaling__type="yarn")
    assert "rope.scaling.type is 'yarn', which mixopt does not read" in refusal(
        tmp_path / "it.gguf"
    )


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "it.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "holds the architecture 'gemma3'" in refusal(tmp_path / "it.gguf")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "it.gguf"
    write(path)
    os.truncate(path, int(path.stat().st_size * share))
    assert f"{path}: " in refusal(path)
