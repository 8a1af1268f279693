"""A mixture of experts of ours, exported, computes in transformers what it computes here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.families.checkpoint import open_checkpoint, write_checkpoint
from mixopt.models.families.export import (
    check_exportable,
    exported_config,
    exported_shape,
    exported_tensors,
)
from mixopt.models.families.mixtral import MIXTRAL
from mixopt.models.routers import ROUTERS
from mixopt.models.transformer import Transformer
from tests.mixopt.models.families.made import logits, some_ids

BASE = ModelConfig(vocab_size=64, width=32, heads=4, expert_width=24)
SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "untied": {"tie_embeddings": False},
    "one head": {"heads": 1, "layers": 1},
    "deep, fine": {"layers": 4, "experts": 8, "experts_per_token": 4, "expert_width": 8},
    "all experts": {"experts": 2, "experts_per_token": 2},
    "other positions": {"rope_theta": 500.0, "tie_embeddings": False},
    "wide": {"width": 64, "heads": 2, "expert_width": 80},
}


def trained(config: ModelConfig) -> Transformer:
    """A model whose norms are not all ones, and whose routers choose clearly."""
    model = Transformer(config, (3,)).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter += noise if name.endswith("router.weight") else 0.02 * noise
    return model


def export(model: Transformer, folder: Path, most: int = 2**20) -> Path:
    config, state = model.config, model.proxy_state()
    list(
        write_checkpoint(
            folder,
            MIXTRAL,
            exported_shape(config),
            exported_config(config, 128, 7),
            exported_tensors(state, config),
            torch.float32,
            most,
        )
    )
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same_logits(shape: str, tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, **SHAPES[shape])
    check_exportable(config)
    model = trained(config)
    ids = some_ids(3, 96)
    with torch.no_grad():
        ours = model.logits(ids[None])[0]
    theirs = logits(export(model, tmp_path), ids)
    assert ours.std() > 0.1  # there is something to differ
    assert (theirs - ours).abs().max() < 1e-5


def test_what_leaves_is_a_checkpoint_that_we_read(tmp_path: Path) -> None:
    model = trained(BASE)
    checkpoint = open_checkpoint(export(model, tmp_path, most=20_000))
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert checkpoint.shape == exported_shape(BASE)
    sent = dict(exported_tensors(model.proxy_state(), BASE))
    assert set(checkpoint.parts) == set(sent)
    assert all(torch.equal(checkpoint[part], sent[part]) for part in sent)


def test_the_config_says_what_the_training_was(tmp_path: Path) -> None:
    config = json.loads((export(trained(BASE), tmp_path) / "config.json").read_text())
    assert config["max_position_embeddings"] == 128
    assert (config["bos_token_id"], config["eos_token_id"]) == (7, 7)
    assert config["tie_word_embeddings"] is False
    assert config["rms_norm_eps"] == 1e-5
    assert config["router_aux_loss_coef"] == BASE.balance_coefficient


@pytest.mark.parametrize(
    ("change", "key", "nearest"),
    [
        ({"experts": 1, "experts_per_token": 1}, "experts", "llama"),
        ({"shared_experts": 2}, "shared_experts", "granitemoeshared"),
        ({"renormalize": False}, "renormalize", "qwen2_moe"),
        ({"experts_per_token": 1}, "experts_per_token", "qwen2_moe"),
        ({"router": "loss-free"}, "router", "glm4_moe"),
        ({"router": "hmoe"}, "router", "unequal width.*no format"),
        ({"router": "deepseek"}, "router", "qwen2_moe"),
    ],
)
def test_what_has_no_home_is_refused_with_the_nearest_format(
    change: dict[str, Any], key: str, nearest: str
) -> None:
    with pytest.raises(StudyError, match=nearest) as refused:
        check_exportable(dataclasses.replace(BASE, **change))
    assert refused.value.where == key


@pytest.mark.parametrize("router", sorted(set(ROUTERS) - {"softmax", "expert-choice"}))
def test_no_other_router_leaves_as_mixtral(router: str) -> None:
    with pytest.raises(StudyError, match=r"mixtral has no home for .*with the router soft"):
        check_exportable(dataclasses.replace(BASE, router=router))
