"""Upcycling of checkpoints on disk: dense folders in, a folder that everybody's tools load out.

Tensors pass through one by one: what is held is a block's layers and one shard of the output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from mixopt.core.errors import StudyError
from mixopt.core.registry import check_name
from mixopt.io import files
from mixopt.io.new_folder import new_folder, refuse_existing
from mixopt.models.families.base import Family, Shape, family
from mixopt.models.families.checkpoint import (
    CONFIG,
    Checkpoint,
    open_checkpoint,
    planned_bytes,
    shards,
    write_checkpoint,
)
from mixopt.models.families.config import (
    check_branched,
    check_config,
    check_trunk,
    not_carried,
    write_config,
)
from mixopt.models.families.tokenizers import difference
from mixopt.models.upcycling import SEED
from mixopt.models.upcycling.base import Upcycler, make_upcycler
from mixopt.models.upcycling.convert import Conversion
from mixopt.models.upcycling.measuring import (
    Samples,
    check_installed,
    hidden_states,
    measure_folder,
    token_ids,
)
from mixopt.models.upcycling.merges import make_merge
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.router_starts import check_covered, make_router_start

RECEIPT = "upcycling.json"  # beside the weights
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 2**28  # bytes of a shard: more only where a block is larger


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
        samples: domain → text, or token ids (n, T): what routers may start from, and the receipt
            is measured on. Needs transformers.
        start_samples: what routers start from instead, where the receipt's text is held out.
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
    samples: Samples = field(default_factory=dict)
    start_samples: Samples = field(default_factory=dict)


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

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Part name → bytes, of all tensors of the output."""
        return planned_bytes(self.family, self.shape, self.dtype)

    @property
    def bytes(self) -> int:
        """Of all tensors of the output."""
        return sum(self.sizes.values())

    @property
    def params(self) -> int:
        """Of the output; a tied head, though it is written, is the embedding."""
        tied = self.sizes["head"] if self.shape.tie_embeddings else 0
        return (self.bytes - tied) // self.dtype.itemsize

    @property
    def active_params(self) -> int:
        """Of the output, those that a token passes: k of the E experts."""
        experts = sum(size for part, size in self.sizes.items() if ".experts." in part)
        idle = experts * (self.shape.experts - self.shape.experts_per_token) // self.shape.experts
        return self.params - idle // self.dtype.itemsize

    @property
    def body_params(self) -> tuple[int, int]:
        """Parameters without embedding and head, and of them those that a token passes."""
        ends = 1 if self.shape.tie_embeddings else 2
        outside = ends * self.shape.vocab_size * self.shape.width
        return self.params - outside, self.active_params - outside

    @property
    def dense_params(self) -> int:
        """Parameters of the seed, without embedding and head."""
        sizes = planned_bytes(self.seed.family, self.seed.shape, self.dtype)
        ends = sum(sizes[part] for part in ("embedding", "head"))
        return (sum(sizes.values()) - ends) // self.dtype.itemsize

    @property
    def shard(self) -> int:
        """Most bytes of a file of the output: a block of it."""
        block = sum(size for part, size in self.sizes.items() if part.startswith("layers.0."))
        return max(SMALL, block)

    @property
    def files(self) -> int:
        """Files of tensors."""
        return len(shards(self.sizes, self.shard))


def plan(request: Request) -> Plan:
    """Check what is asked for: settings, headers of the checkpoints, tokenizers.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        StudyError: settings or models do not go together.
    """
    _check_numbers(request)
    method = make_upcycler(request.method, request.settings)
    seed = open_checkpoint(request.seed)
    target = family(request.target or seed.family.target or seed.family.name)
    check_trunk(seed.family, target)
    check_config(seed.family, seed.config, target, str(request.seed / CONFIG))
    shape = dataclasses.replace(
        seed.shape,
        experts=request.experts,
        experts_per_token=request.experts_per_token,
        hidden=method.expert_width(seed.shape.hidden, request.experts),
        renormalize=True,
    )
    dtype = _dtype(request, seed)
    conversion = Conversion(
        method=method,
        seed=seed,
        sources=_sources(request, seed),
        shape=shape,
        merge=make_merge(request.merge, request.merge_settings),
        router=make_router_start(request.router, request.router_settings),
        random_seed=request.random_seed,
        dtype=dtype,
    )
    conversion.check()
    _check_sources_are_used(method, conversion)
    _check_samples(request, conversion)
    notes = [f"config key {key} is not carried over" for key in not_carried(target, seed.config)]
    notes += [target.warning] if target.warning else []
    receipt = conversion.receipt(request.method, request.merge, request.router, notes)
    return Plan(request, seed, target, shape, dtype, conversion, receipt)


def write(plan: Plan, out: Path, on_file: Callable[[str], None] = lambda name: None) -> Receipt:
    """Carry `plan` out into the new folder `out`, which appears whole or not at all.

    Args:
        plan: of `plan`.
        out: is made; it must not exist.
        on_file: is given the name of each file of tensors once it is written.

    Raises:
        CheckpointError: a tensor cannot be used, or the disk is too small.
        FileError: `out` exists, another process writes it, or a file cannot be written.
        StudyError: `out` lies inside a checkpoint that is read.
    """
    check_out(plan, out)
    conversion, samples = plan.conversion, token_ids(plan.seed.folder, plan.request.samples)
    if conversion.needs_samples:
        start = token_ids(plan.seed.folder, plan.request.start_samples) or samples
        states = hidden_states(plan.seed.folder, start)
        conversion = dataclasses.replace(conversion, states=states)
    dtype = str(plan.dtype).removeprefix("torch.")
    config = write_config(plan.family, plan.shape, plan.seed.config, dtype)
    with new_folder(out) as folder:
        for name in write_checkpoint(
            folder,
            plan.family,
            plan.shape,
            config,
            conversion.tensors(plan.family.parts(plan.shape)),
            plan.dtype,
            plan.shard,
            plan.seed.carried,
        ):
            on_file(name)
        receipt = plan.receipt
        if samples:
            receipt = measure_folder(receipt, plan.seed.folder, folder, samples)
        files.write_json(folder / RECEIPT, receipt.to_json())
    return receipt


def check_out(plan: Plan, out: Path) -> None:
    """Refuse an output that is there already, or would lie inside a checkpoint that is read.

    Raises:
        FileError: `out` exists.
        StudyError: `out` lies inside the seed or a source.
    """
    refuse_existing(out)
    inputs = {SEED: plan.request.seed, **plan.request.sources}
    for name, folder in inputs.items():
        if out.resolve().is_relative_to(folder.resolve()):
            raise StudyError(
                f"lies inside {name}, {folder}",
                where=str(out),
                hint="Name a folder outside the checkpoints",
            )


def _check_samples(request: Request, conversion: Conversion) -> None:
    if request.samples:
        check_installed()
        token_ids(request.seed, request.samples)
    elif conversion.needs_samples:
        raise StudyError(
            "the method or the router start looks at samples, and there are none",
            where="samples",
            hint="Give a sample of text for every source, by its name",
        )
    if conversion.router.needs_samples:
        check_covered(conversion.origins, request.start_samples or request.samples)


def _check_numbers(request: Request) -> None:
    if request.experts < 2:
        raise StudyError(
            f"must be at least 2, is {request.experts}",
            where="experts",
            hint="Ask for at least 2 experts",
        )
    if not 1 <= request.experts_per_token <= request.experts:
        raise StudyError(
            f"must be 1 to {request.experts}, is {request.experts_per_token}",
            where="experts_per_token",
            hint="A token cannot pass more experts than there are",
        )


def _sources(request: Request, seed: Checkpoint) -> dict[str, Checkpoint]:
    """The dense experts, opened; their tokenizers are the seed's."""
    opened: dict[str, Checkpoint] = {}
    for name, folder in request.sources.items():
        if name == SEED:
            raise StudyError(
                f"a source cannot be called {SEED!r}: that is the seed model",
                where="sources.seed",
                hint="Rename it",
            )
        opened[name] = open_checkpoint(folder)
        check_branched(opened[name].config, seed.config, name)
        if different := difference(folder, seed.folder):
            raise StudyError(
                f"its tokenizer is not the seed's: {different} there",
                where=f"sources.{name}",
                hint="Give experts that were branched from this seed, with its tokenizer",
            )
    return opened


def _check_sources_are_used(method: Upcycler, conversion: Conversion) -> None:
    unused = [name for name in conversion.sources if name not in conversion.origins]
    if unused and not method.merges:
        raise StudyError(
            f"the method does not use {', '.join(unused)}",
            where="sources",
            hint="Leave sources out, or choose a method that takes domain experts",
        )


def _dtype(request: Request, seed: Checkpoint) -> torch.dtype:
    if request.dtype:
        check_name("dtype", request.dtype, DTYPES, where="dtype", own=False)
        return DTYPES[request.dtype]
    name = str(seed.config.get("dtype") or seed.config.get("torch_dtype") or "")
    return DTYPES.get(name) or seed["final_norm"].dtype
