"""Every method on checkpoints on disk, as transformers loads what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixopt.models.upcycling.folders import Request, plan, write
from tests.mixopt.models.families.made import logits, make, some_ids


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmo2"])
@pytest.mark.parametrize("placement", ["down", "root"])
def test_virtual_groups_compute_what_their_seed_does(
    kind: str, placement: str, tmp_path: Path
) -> None:
    seed = make(kind, tmp_path / "seed")
    settings = {"granularity": 4, "placement": placement}
    request = Request("virtual-groups", seed, experts=8, experts_per_token=4, settings=settings)
    receipt = write(plan(request), tmp_path / "moe")
    ids = some_ids()
    assert receipt.preserves_function
    assert (logits(tmp_path / "moe", ids) - logits(seed, ids)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("method", "settings"),
    [("drop-upcycling", {}), ("llama-moe", {}), ("llama-moe", {"split": "k-means"})],
)
def test_lossy_methods_load_and_change_the_function(
    method: str, settings: dict[str, object], tmp_path: Path
) -> None:
    seed = make("qwen3", tmp_path / "seed")
    receipt = write(plan(Request(method, seed, experts=4, settings=settings)), tmp_path / "moe")
    found = logits(tmp_path / "moe", some_ids())
    assert not receipt.preserves_function
    assert torch.isfinite(found).all()
    assert (found - logits(seed, some_ids())).abs().max() > 1e-4


def branched(seed: Path, folder: Path) -> Path:
    """A dense model that left the seed in a direction of its own."""
    shutil.copytree(seed, folder)
    random = torch.Generator().manual_seed(ord(folder.name))
    file = folder / "model.safetensors"
    tensors = {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=random)
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("merge", ["ties", "dare"])
def test_dense_experts_are_merged_by_other_merges(merge: str, tmp_path: Path) -> None:
    seed = make("olmo2", tmp_path / "seed")
    sources = {name: branched(seed, tmp_path / name) for name in "ab"}
    request = Request("branch-train-mix", seed, sources, experts=3, merge=merge)
    receipt = write(plan(request), tmp_path / "moe")
    assert (receipt.merge, receipt.experts) == (merge, ("a", "b", "seed"))
    assert torch.isfinite(logits(tmp_path / "moe", some_ids())).all()
