"""Merges against naive references and small examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.upcycling import MERGES
from mixopt.models.upcycling.convert import merge_by_rows
from mixopt.models.upcycling.merges import VALUES_AT_ONCE, make_merge

SEED = torch.tensor([1.0, 1.0, 1.0, 1.0])


def changed(*changes: float) -> torch.Tensor:
    return SEED + torch.tensor(changes)


def naive_ties(
    seed: np.ndarray, models: list[np.ndarray], density: float, scale: float
) -> np.ndarray:
    """Weight by weight, as the paper's figure tells it."""
    trimmed = []
    for model in models:
        change = model - seed
        kept = max(1, round(density * change.size))
        largest = np.argsort(-np.abs(change), kind="stable")[:kept]
        trimmed.append(np.where(np.isin(np.arange(change.size), largest), change, 0.0))
    merged = seed.copy()
    for i in range(seed.size):
        sign = np.sign(sum(change[i] for change in trimmed))
        agreeing = [change[i] for change in trimmed if sign and np.sign(change[i]) == sign]
        if agreeing:
            merged[i] += scale * np.mean(agreeing)
    return merged


def test_ties_by_hand() -> None:
    """Half is kept of each; the first weight's signs disagree, 4 beats -3."""
    models = [changed(4.0, 0.1, 2.0, 0.0), changed(-3.0, 0.2, 4.0, 0.0)]
    merged = make_merge("ties", {"density": 0.5}).merge(SEED, models, torch.Generator())
    assert merged.tolist() == [5.0, 1.0, 4.0, 1.0]


def test_ties_drops_a_draw_of_signs() -> None:
    models = [changed(2.0, 0, 0, 0), changed(-2.0, 0, 0, 0)]
    merged = make_merge("ties", {"density": 1.0}).merge(SEED, models, torch.Generator())
    assert torch.equal(merged, SEED)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("models", [1, 2, 5])
def test_ties_is_the_naive_one(density: float, models: int) -> None:
    random = np.random.default_rng(models)
    seed, *rest = random.normal(size=(models + 1, 40)).astype(np.float32)
    settings = {"density": density, "scale": 0.7}
    merged = make_merge("ties", settings).merge(
        torch.from_numpy(seed.reshape(8, 5)),
        [torch.from_numpy(each.reshape(8, 5)) for each in rest],
        torch.Generator(),
    )
    expected = naive_ties(seed, rest, density, 0.7).reshape(8, 5)
    assert np.allclose(merged.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("density", [0.1, 0.2, 0.9, 1.0])
def test_ties_in_slices_keeps_the_largest_of_the_whole_tensor(density: float) -> None:
    """More values than are merged at once; a quarter of the changes are equal, as often in bf16."""
    random = torch.Generator().manual_seed(0)
    seed, model = (torch.randn(VALUES_AT_ONCE // 512 + 3, 700, generator=random) for _ in range(2))
    model[: len(model) // 4] = seed[: len(model) // 4] + 0.5
    change = model - seed
    least = change.abs().flatten().kthvalue(change.numel() - round(density * change.numel()) + 1)
    merge = make_merge("ties", {"density": density}).for_tensor(seed, [model])
    merged = merge_by_rows(merge, seed, [model], random, torch.float32)
    assert torch.equal(merged, torch.where(change.abs() >= least.values, seed + change, seed))


def test_dare_without_drops_is_the_average() -> None:
    models = [changed(1, 2, 3, 4), changed(0, 0, 3, -4)]
    args = (SEED, models, torch.Generator())
    merged = make_merge("dare", {"drop": 0.0}).merge(*args)
    assert torch.allclose(merged, make_merge("average").merge(*args))


def test_dare_rescales_what_it_keeps_and_keeps_the_mean() -> None:
    seed, change = torch.full((20_000,), 3.0), 2.0
    merged = make_merge("dare", {"drop": 0.75}).merge(
        seed, [seed + change], torch.Generator().manual_seed(0)
    )
    assert set(merged.tolist()) == {3.0, 3.0 + change / 0.25}
    assert float(merged.mean()) == pytest.approx(3.0 + change, rel=0.03)


def test_dare_draws_each_model_apart() -> None:
    seed = torch.zeros(64)
    merged = make_merge("dare").merge(seed, [seed + 1, seed + 1], torch.Generator().manual_seed(0))
    assert set(merged.tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("name", sorted(MERGES))
def test_merges_are_taken_in_fp32_and_leave_the_models_alone(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    seed, *models = (torch.randn(6, 4, generator=random).bfloat16() for _ in range(4))
    before = [tensor.clone() for tensor in (seed, *models)]
    merged = make_merge(name).merge(seed, models, random)
    assert merged.dtype == torch.float32
    assert not torch.equal(merged, merged.bfloat16().float())
    assert all(map(torch.equal, before, (seed, *models)))


@pytest.mark.parametrize("name", sorted(MERGES))
def test_models_that_never_left_the_seed_merge_into_it(name: str) -> None:
    merged = make_merge(name).merge(SEED, [SEED, SEED], torch.Generator())
    assert torch.equal(merged, SEED)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ties", {"density": 0}), ("ties", {"density": 2}), ("dare", {"drop": 1})],
)
def test_settings_out_of_range_are_refused_by_name(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(StudyError, match=f"merge_settings.{next(iter(settings))}"):
        make_merge(name, settings)
