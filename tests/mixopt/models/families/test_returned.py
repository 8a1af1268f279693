"""An exported model comes back as the model that it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixopt.core.errors import CheckpointError
from mixopt.models.families.checkpoint import open_checkpoint
from mixopt.models.families.returned import returned_config, returned_state
from mixopt.models.transformer import Transformer
from tests.mixopt.models.families.made import some_ids
from tests.mixopt.models.families.test_export import BASE, SHAPES, export, trained


@pytest.mark.parametrize("shape", SHAPES)
def test_an_exported_model_comes_back_with_its_logits(shape: str, tmp_path: Path) -> None:
    model = trained(dataclasses.replace(BASE, **SHAPES[shape]))
    checkpoint = open_checkpoint(export(model, tmp_path))
    config = returned_config(checkpoint)
    assert dataclasses.replace(model.config, tie_embeddings=False) == config
    back = Transformer(config, (0,)).eval()
    back.load_proxy_state(returned_state(checkpoint, config))
    ids = some_ids(vocabulary=config.vocab_size)[None]
    torch.testing.assert_close(back.logits(ids), model.logits(ids), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 1e-6), ("sliding_window", 16), ("num_key_value_heads", 2)],
)
def test_what_our_transformer_does_not_compute_is_refused(
    key: str, value: Any, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(export(trained(BASE), tmp_path))
    config = {**checkpoint.config, key: value}
    shape = checkpoint.shape
    if key == "num_key_value_heads":
        shape = dataclasses.replace(shape, kv_heads=value)
    other = dataclasses.replace(checkpoint, config=config, shape=shape)
    with pytest.raises(CheckpointError, match=key):
        returned_config(other)


def test_a_dense_checkpoint_is_no_mixtral(tmp_path: Path) -> None:
    folder = export(trained(BASE), tmp_path)
    checkpoint = open_checkpoint(folder)
    dense = dataclasses.replace(checkpoint.family, name="llama")
    with pytest.raises(CheckpointError, match="model_type"):
        returned_config(dataclasses.replace(checkpoint, family=dense))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mixtral"
