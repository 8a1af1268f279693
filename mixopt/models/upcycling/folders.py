"""Upcycling of checkpoints on disk: dense folders in, a folder that everybody's tools load out.

Tensors pass through one by one: what is held is a block's layers and one shard of the output.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mixopt.core.errors import StudyError
from mixopt.io import files
from mixopt.models.families.base import Family, Shape, family
from mixopt.models.families.checkpoint import (
    CONFIG,
    Checkpoint,
    open_checkpoint,
    planned_bytes,
    write_checkpoint,
)
from mixopt.models.families.config import check_config, check_trunk, not_carried, write_config
from mixopt.models.upcycling.base import make_upcycler
from mixopt.models.upcycling.convert import Conversion
from mixopt.models.upcycling.merges import make_merge
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.router_starts import make_router_start

RECEIPT = "upcycling.json"  # beside the weights
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 2**28  # bytes of a shard: more only where a block is larger
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class Request:
    """An upcycling that is asked for.

    Attributes:
        method: registry name of the upcycler, or `package.module:Name`.
        seed: folder of the dense seed.
        sources: expert name → folder of a dense expert branched from it, in expert order.
        experts: E.
        experts_per_token: k.
        target: family of the output; the seed's own default if empty.
        dtype: of the tensors written; the seed's if empty.
        random_seed: draws what is new.
        settings: of the method.
        merge: of what is no expert, where the method merges.
        merge_settings: of it.
        router: what the routers start from.
        router_settings: of it.
    """

    method: str
    seed: Path
    sources: Mapping[str, Path] = field(default_factory=dict)
    experts: int = 8
    experts_per_token: int = 2
    target: str = ""
    dtype: str = ""
    random_seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    merge: str = "average"
    merge_settings: Mapping[str, object] = field(default_factory=dict)
    router: str = "random"
    router_settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A request that was checked against the checkpoints' headers; nothing is written yet.

    Attributes:
        request: as it was asked.
        seed: the dense seed.
        family: of the output.
        shape: of the output.
        dtype: of its tensors.
        conversion: what will be done.
        receipt: what is known of it before.
    """

    request: Request
    seed: Checkpoint
    family: Family
    shape: Shape
    dtype: torch.dtype
    conversion: Conversion
    receipt: Receipt

    @property
    def bytes(self) -> int:
        """Of all tensors of the output."""
        return sum(planned_bytes(self.family, self.shape, self.dtype).values())

    @property
    def params(self) -> int:
        """Of the output."""
        return self.bytes // self.dtype.itemsize

    @property
    def shard(self) -> int:
        """Most bytes of a file of the output: a block of it."""
        sizes = planned_bytes(self.family, self.shape, self.dtype)
        block = sum(size for part, size in sizes.items() if part.startswith("layers.0."))
        return max(SMALL, block)


def plan(request: Request) -> Plan:
    """Check what is asked for: settings, headers of the checkpoints, tokenizers.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        StudyError: settings or models do not go together.
    """
    method = make_upcycler(request.method, request.settings)
    seed = open_checkpoint(request.seed)
    target = family(request.target or seed.family.target)
    check_trunk(seed.family, target)
    check_config(seed.family, seed.config, target, str(request.seed / CONFIG))
    _check_numbers(request)
    sources = {name: open_checkpoint(folder) for name, folder in request.sources.items()}
    for name, source in sources.items():
        _check_tokenizer(name, source.folder, seed.folder)
    shape = dataclasses.replace(
        seed.shape,
        experts=request.experts,
        experts_per_token=request.experts_per_token,
        hidden=method.expert_width(seed.shape.hidden, request.experts),
        renormalize=True,
    )
    conversion = Conversion(
        method=method,
        seed=seed,
        sources=sources,
        shape=shape,
        merge=make_merge(request.merge, request.merge_settings),
        router=make_router_start(request.router, request.router_settings),
        random_seed=request.random_seed,
    )
    conversion.check()
    notes = [f"config key {key} is not carried over" for key in not_carried(target, seed.config)]
    receipt = Receipt(
        method=request.method,
        experts=conversion.origins,
        channels_kept=method.channels_kept,
        preserves_function=method.preserves_function(
            shape.renormalize, shape.experts, shape.experts_per_token
        ),
        merge=request.merge if method.merges else "",
        router=request.router,
        notes=(*notes, *filter(None, [target.warning])),
    )
    return Plan(request, seed, target, shape, _dtype(request, seed), conversion, receipt)


def write(plan: Plan, out: Path, say: Callable[[str], None] = lambda line: None) -> Receipt:
    """Carry `plan` out into the new folder `out`, which appears whole or not at all.

    Args:
        plan: of `plan`.
        out: is made; it must not exist.
        say: told of each file that is written.

    Raises:
        CheckpointError: a tensor cannot be used, or the disk is too small.
        FileError: a file cannot be written.
        StudyError: `out` exists.
    """
    if out.exists():
        raise StudyError(
            "exists already", where=str(out), hint="Name a folder that is not there yet"
        )
    part = out.with_name(f".{out.name}.part")  # one writer: a second finds it and replaces it
    shutil.rmtree(part, ignore_errors=True)
    with files.writing(part):
        part.mkdir(parents=True)
    try:
        tensors = plan.conversion.tensors(plan.family.parts(plan.shape))
        dtype = str(plan.dtype).removeprefix("torch.")
        config = write_config(plan.family, plan.shape, plan.seed.config, dtype)
        for name in write_checkpoint(
            part,
            plan.family,
            plan.shape,
            config,
            tensors,
            plan.dtype,
            plan.shard,
            plan.seed.carried,
        ):
            say(name)
        files.write_json(part / RECEIPT, plan.receipt.to_json())
        with files.writing(out):
            part.rename(out)
        files.sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return plan.receipt


def _check_numbers(request: Request) -> None:
    if request.experts < 2:
        raise StudyError(f"must be at least 2, is {request.experts}", where="experts")
    if not 1 <= request.experts_per_token <= request.experts:
        raise StudyError(
            f"must be 1 to {request.experts}, is {request.experts_per_token}",
            where="experts_per_token",
        )


def _check_tokenizer(name: str, folder: Path, seed: Path) -> None:
    """Refuse a source whose tokenizer is not the seed's; one without any counts as the same."""
    for file in TOKENIZERS:
        mine, seeds = folder / file, seed / file
        if mine.is_file() and seeds.is_file() and mine.read_bytes() != seeds.read_bytes():
            raise StudyError(
                f"its {file} is not the seed's",
                where=name,
                hint="Give experts that were branched from this seed, with its tokenizer",
            )


def _dtype(request: Request, seed: Checkpoint) -> torch.dtype:
    name = request.dtype or str(seed.config.get("dtype") or seed.config.get("torch_dtype") or "")
    if request.dtype and request.dtype not in DTYPES:
        raise StudyError(f"must be one of {', '.join(DTYPES)}, is {request.dtype!r}", where="dtype")
    return DTYPES.get(name) or seed["final_norm"].dtype
