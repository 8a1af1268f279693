"""A checkpoint as transformers runs it. transformers is an optional dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mixopt.core.errors import CheckpointError

INSTALL = "pip install 'mixopt[huggingface]'"


def is_installed() -> bool:
    """Whether transformers is there. Imports nothing."""
    return importlib.util.find_spec("transformers") is not None


def load_model(folder: Path, dtype: torch.dtype, hint: str) -> Any:
    """The causal language model in `folder`, for evaluation, on the CPU.

    Nothing is fetched from elsewhere, and no code of the folder is run.

    Args:
        folder: of a checkpoint in the Hugging Face layout.
        dtype: of its weights in memory.
        hint: what to do where transformers cannot load it.

    Raises:
        CheckpointError: transformers is not installed, or cannot load it.
    """
    if not is_installed():
        raise CheckpointError(
            "models of other tools are run by transformers, which is not installed",
            where=str(folder),
            hint=INSTALL,
        )
    import transformers

    try:
        with _without_bars():
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"transformers cannot load it: {error}", where=str(folder), hint=hint
        ) from error
    return model.eval()


def routers_of(model: Any) -> list[Any]:
    """The routers of a mixture of experts of transformers, in the order of its blocks.

    The output of each is (logits, gates, experts), the last two (tokens, k); `num_experts` is E.
    """
    return [m for m in model.modules() if type(m).__name__.endswith("TopKRouter")]


@contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
