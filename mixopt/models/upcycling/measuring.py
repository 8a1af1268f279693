"""Checkpoints on disk, run by transformers: what the seed's layers read, what the mixture computes.

transformers is an optional dependency. Models are loaded in fp32.

Shapes: B sequences of T tokens, E experts, k of them per token, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import CheckpointError, StudyError
from mixopt.models.families.loaded import INSTALL, is_installed, load_model, routers_of
from mixopt.models.upcycling.hidden_states import BATCH, HiddenStates, gather
from mixopt.models.upcycling.receipt import Receipt, Seen

SEQUENCES, LENGTH = 16, 256  # of a sample: 4,096 tokens
TOKENIZER = "tokenizer.json"

Samples = Mapping[str, str | np.ndarray]  # name → text, or token ids (n, T)


def check_installed() -> None:
    """Refuse samples without transformers.

    Raises:
        StudyError: it is not installed.
    """
    if not is_installed():
        raise StudyError(
            "samples need transformers, which is not installed",
            where="samples",
            hint=f"{INSTALL}, or leave samples out",
        )


def token_ids(folder: Path, samples: Samples) -> dict[str, np.ndarray]:
    """Samples as token ids (n, T): the first of a text, in at most 16 sequences of 256.

    Args:
        folder: of a checkpoint with its tokenizer.
        samples: texts, or token ids, which stay as they are.

    Raises:
        StudyError: there is no `tokenizer.json` for a text, or a sample is empty.
    """
    found: dict[str, np.ndarray] = {}
    for name, sample in samples.items():
        ids = _encoded(folder, sample) if isinstance(sample, str) else np.asarray(sample)
        if ids.ndim != 2 or not ids.size:
            raise StudyError(
                f"holds no tokens in rows: its shape is {ids.shape}",
                where=f"samples.{name}",
                hint="Give text, or token ids as rows of sequences",
            )
        found[name] = ids
    return found


def hidden_states(seed: Path, samples: Mapping[str, np.ndarray]) -> HiddenStates:
    """What the feed-forward layers of the dense model in `seed` read on `samples`.

    Args:
        seed: folder of a dense checkpoint.
        samples: name → token ids (n, T).

    Raises:
        StudyError: transformers is not installed, or a token is not in the vocabulary.
        CheckpointError: transformers cannot load the folder.
    """
    model = _load(seed, samples)
    inputs: list[Tensor] = []

    def keep(layer: Any, args: tuple[Any, ...]) -> None:
        inputs.append(args[0].flatten(0, 1))

    for block in model.model.layers:
        block.mlp.register_forward_pre_hook(keep)

    def inputs_of(ids_BT: Tensor) -> list[Tensor]:
        inputs.clear()
        model.model(ids_BT, use_cache=False)
        return list(inputs)

    return gather(inputs_of, samples)


@torch.no_grad()
def measure_folder(receipt: Receipt, seed: Path, moe: Path, samples: Samples) -> Receipt:
    """`receipt` with what the dense model in `seed` and the mixture in `moe` compute on `samples`.

    Both are in memory at once, in fp32.

    Args:
        receipt: of the conversion.
        seed: folder of the dense checkpoint.
        moe: folder of the mixture made of it.
        samples: domain → text, or token ids (n, T).

    Raises:
        StudyError: transformers is not installed, a text has no tokenizer, or a token is not in the
            vocabulary.
        CheckpointError: transformers cannot load a folder.
    """
    ids = token_ids(seed, samples)
    dense, mixture = _load(seed, ids), _load(moe, ids)
    return receipt.with_measures({name: _seen(dense, mixture, each) for name, each in ids.items()})


def _seen(dense: Any, mixture: Any, ids: np.ndarray) -> Seen:
    routers = routers_of(mixture)
    if not routers:
        raise CheckpointError(
            "no router is found in it as transformers runs it, so that loads cannot be measured",
            where=str(mixture.config.name_or_path),
            hint="Leave samples out",
        )
    counts: list[list[float]] = [[0.0] * int(router.num_experts) for router in routers]
    entropies, difference = [0.0] * len(routers), 0.0
    routed: list[tuple[Tensor, Tensor]] = []

    def keep(router: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        routed.append((output[1], output[2]))  # gates and experts, (B·T, k) each

    hooks = [router.register_forward_hook(keep) for router in routers]
    ids_nT = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    for ids_BT in ids_nT.split(BATCH):
        routed.clear()
        gap = mixture(ids_BT, use_cache=False).logits - dense(ids_BT, use_cache=False).logits
        difference = max(difference, float(gap.abs().max()))
        for layer, (gates, experts) in enumerate(routed):
            new = torch.bincount(experts.flatten(), minlength=len(counts[layer])).tolist()
            counts[layer] = [a + b for a, b in zip(counts[layer], new, strict=True)]
            shares = gates.float() / gates.float().sum(-1, keepdim=True)
            entropies[layer] += float(torch.special.entr(shares).sum())
    for hook in hooks:
        hook.remove()
    return Seen(counts, sum(entropies) / (ids_nT.numel() * len(routers)), difference)


def _load(folder: Path, samples: Mapping[str, np.ndarray]) -> Any:
    """The model in `folder`, in fp32, for evaluation."""
    check_installed()
    model = load_model(
        folder,
        torch.float32,
        hint="Leave samples out, or give a checkpoint of a family that transformers has",
    )
    for name, ids in samples.items():
        if ids.min() < 0 or ids.max() >= model.config.vocab_size:
            raise StudyError(
                f"holds token {ids.max()}, and the vocabulary has {model.config.vocab_size}",
                where=f"samples.{name}",
                hint="Give ids of the seed's own tokenizer",
            )
    return model


def _encoded(folder: Path, text: str) -> np.ndarray:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise StudyError(
            f"samples are text, and {folder} has no {TOKENIZER}",
            where="samples",
            hint="Give token ids, or a seed with its tokenizer",
        )
    ids: Sequence[int] = Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids
    length = min(LENGTH, len(ids))
    sequences = min(SEQUENCES, len(ids) // length) if length else 0
    return np.array(ids[: sequences * length]).reshape(sequences, length)
