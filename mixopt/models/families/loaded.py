"""A checkpoint as transformers runs it. transformers is an optional dependency."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mixopt.core.errors import CheckpointError

INSTALL = "pip install 'mixopt[huggingface]'"
ONE_BY_ONE = "HF_DEACTIVATE_ASYNC_LOAD"  # transformers then reads no tensor ahead


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
        CheckpointError: transformers is not installed or cannot load it, or it lacks a weight.
    """
    model, lacking = _load(folder, dtype, hint)
    _check_whole(lacking, folder, hint)
    return model


def load_in_pieces(
    folder: Path, dtype: torch.dtype, hint: str, cut: Callable[[Tensor], Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    """The model in `folder` without its weights, and what `cut` makes of each, by name.

    The parameters are on the meta device, and tied ones are tied; buffers are as they should be.
    One weight at a time is whole, with what it is made from (the experts of a layer, say).

    Args:
        folder: as of `load_model`.
        dtype: of the weights that `cut` is given.
        hint: as of `load_model`.
        cut: makes a copy of what is kept of a weight.

    Raises:
        CheckpointError: as `load_model`.
    """
    kept: dict[tuple[nn.Module, str], Tensor] = {}

    def hand_on(module: nn.Module, name: str, weight: nn.Parameter | None) -> Any:
        if weight is None or weight.is_meta:
            return None
        kept[module, name] = cut(weight)
        empty: Any = nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        empty._is_hf_initialized = True  # or transformers draws it
        return empty

    hook = register_module_parameter_registration_hook(hand_on)
    try:
        with _one_by_one():
            model, lacking = _load(folder, dtype, hint)
    finally:
        hook.remove()
    places = [
        (path, module, name)
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    ]
    pieces = {
        f"{path}.{name}".lstrip("."): kept[module, name]
        for path, module, name in places
        if (module, name) in kept
    }
    _check_whole(lacking | {n for n, _ in model.named_parameters()} - pieces.keys(), folder, hint)
    return model, pieces


def _load(folder: Path, dtype: torch.dtype, hint: str) -> tuple[Any, set[str]]:
    """The model, and the names of weights that the checkpoint lacks."""
    if not is_installed():
        raise CheckpointError(
            "models of other tools are run by transformers, which is not installed",
            where=str(folder),
            hint=INSTALL,
        )
    import transformers

    try:
        with _without_bars():
            auto: Any = transformers.AutoModelForCausalLM
            model, found = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"transformers cannot load it: {error}", where=str(folder), hint=hint
        ) from error
    return model.eval(), set(found["missing_keys"])


def _check_whole(lacking: set[str], folder: Path, hint: str) -> None:
    """Refuse a checkpoint without all weights: transformers would draw those at random."""
    if lacking:
        more = f" and {len(lacking) - 1} more weights" if len(lacking) > 1 else ""
        raise CheckpointError(f"lacks {min(lacking)}{more}", where=str(folder), hint=hint)


def routers_of(model: Any) -> list[Any]:
    """The routers of a mixture of experts of transformers, in the order of its blocks.

    The output of each is (logits, gates, experts), the last two (tokens, k); `num_experts` is E.
    """
    return [m for m in model.modules() if type(m).__name__.endswith("TopKRouter")]


@contextmanager
def _one_by_one() -> Iterator[None]:
    before = os.environ.get(ONE_BY_ONE)
    os.environ[ONE_BY_ONE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONE_BY_ONE]
        else:
            os.environ[ONE_BY_ONE] = before


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
