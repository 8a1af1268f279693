"""A model from its folder, to be evaluated: of our own format, or a Hugging Face checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from mixopt.core.errors import CheckpointError
from mixopt.io import files
from mixopt.io.markers import SHAPE, WEIGHTS
from mixopt.models.config import ModelConfig
from mixopt.models.families.checkpoint import CONFIG, open_checkpoint
from mixopt.models.families.returned import returned_config, returned_state
from mixopt.models.transformer import State, Transformer
from mixopt.proxies.checkpoint import load_state
from mixopt.proxies.foreign import ForeignModel, LanguageModel
from mixopt.proxies.precision import DTYPES


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint in the Hugging Face layout, not our own format."""
    return (folder / CONFIG).exists()


def own_shape(folder: Path) -> ModelConfig:
    """The shape of the model of our own format in `folder`.

    Raises:
        FileError: there is none.
    """
    return files.read_json(folder / SHAPE, lambda values: ModelConfig(**values), hint="")


def vocabulary(folder: Path) -> int:
    """Rows of the embedding of the model in `folder`.

    Raises:
        MixoptError: it cannot be read.
    """
    if is_checkpoint(folder):
        return open_checkpoint(folder).shape.vocab_size
    return own_shape(folder).vocab_size


def load_stored(
    folder: Path, precision: str, device: torch.device, end_of_text: int | None = None
) -> LanguageModel:
    """The model in `folder`; what our transformer does not compute, transformers runs.

    Args:
        folder: of a model.
        precision: `fp32` or `bf16`.
        device: where it goes.
        end_of_text: id of the token between documents, if a Hugging Face checkpoint shall mask
            them from each other; our format says itself whether it was trained so.

    Raises:
        MixoptError: there is none, it is broken, or transformers is needed and not installed.
    """
    if not is_checkpoint(folder):
        return _ours(own_shape(folder), load_state(folder / WEIGHTS)[0], precision, device)
    checkpoint = open_checkpoint(folder)
    try:
        config = _masked(returned_config(checkpoint), end_of_text)
    except CheckpointError:
        return ForeignModel.load(folder, DTYPES[precision], device, end_of_text)
    return _ours(config, returned_state(checkpoint, config), precision, device)


def _masked(config: ModelConfig, end_of_text: int | None) -> ModelConfig:
    if end_of_text is None:
        return config
    return dataclasses.replace(config, document_mask=True, end_of_text=end_of_text)


def _ours(config: ModelConfig, state: State, precision: str, device: torch.device) -> Transformer:
    model = Transformer(config, compute_dtype=DTYPES[precision])
    model.load_proxy_state(state)
    return model.to(device)
