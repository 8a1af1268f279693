"""Steps shared by processes against those of one process, for every router."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mixopt.core.errors import TrainingError
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.single import SingleTransformer
from mixopt.proxies.full_run.evaluation import SplitModel
from mixopt.proxies.full_run.optimizer import FullOptimizer
from mixopt.proxies.full_run.sharding import own_rows, shard, whole_weights
from mixopt.proxies.full_run.step import FullStep
from mixopt.proxies.full_run.world import World, split_rows
from tests.proxies.full_run.processes import together

BATCH, PARTS, STEPS = 8, 2, 3
RECIPE = Recipe(batch_sequences=BATCH, micro_batches=PARTS, gradient_clip=0.5)
CONFIG = ModelConfig(width=16, layers=2, heads=2, experts=4, expert_width=12, vocab_size=40)
SETTINGS: dict[str, dict[str, Any]] = {
    "remoe": {"coefficient": 1e-2},
    "stable": {"stage": 0.5},
    "loss-free": {"sequence_coefficient": 0.1},
}
SHAPES = {
    "dense": dataclasses.replace(CONFIG, experts=1, experts_per_token=1),
    "untied, with shared experts, micro": dataclasses.replace(
        CONFIG, tie_embeddings=False, shared_experts=1, balance="micro"
    ),
    **{
        name: dataclasses.replace(CONFIG, router=name, router_settings=SETTINGS.get(name, {}))
        for name in sorted(ROUTERS)
        if name != "expert-choice"
    },
}
Found = dict[str, torch.Tensor]


def _ids(step: int) -> torch.Tensor:
    return torch.randint(40, (BATCH, 13), generator=torch.Generator().manual_seed(step))


def _run(config: ModelConfig, world: World, dtype: torch.dtype, recompute: bool = False) -> Found:
    """What steps return, an evaluation's nats, and the state after them."""
    model = SingleTransformer(config, 3, dtype, recompute=recompute, cut=own_rows(world))
    shard(model, world)
    weights, total = dict(model.named_weights()), None if world.size == 1 else world.sum
    optimizer = FullOptimizer(weights, model.decays, RECIPE, 1e-2, total)
    rows = split_rows(BATCH, PARTS, world)
    move = FullStep(model, optimizer, [len(part) for part in rows], BATCH // PARTS, world)
    own = [row for part in rows for row in part]
    found: Found = {}
    for step in range(STEPS):
        found[f"step {step}"] = move(_ids(step)[own], step / STEPS, 1.0, float(world.first))
        if not config.dense:
            found[f"counts {step}"] = move.counts()
    ids_KBT = _ids(9)[None, :5]
    nats_KN, routings = SplitModel(model, world).eval().nats(ids_KBT[..., :-1], ids_KBT[..., 1:])
    found["nats"] = nats_KN
    for layer, routing in enumerate(routings):
        found[f"load {layer}"] = routing.counts_KE
        found[f"reached {layer}"] = (routing.indices_KNS >= 0).sum(-1).float()
    return found | {name: tensor.clone() for name, tensor in whole_weights(model)}


def _compare(world: World, expected: Path) -> None:
    for name, found in torch.load(expected).items():
        for recompute in (False, True):
            mine = _run(SHAPES[name], world, torch.float32, recompute)
            for key, tensor in mine.items():
                close = torch.allclose(tensor, found[key], atol=2e-5, rtol=1e-4)
                assert close, (name, recompute, key, tensor, found[key])
            assert mine.keys() == found.keys()


@pytest.mark.parametrize(
    ("processes", "shapes"),
    [
        (2, ("softmax", "rmoe", "stable", "loss-free", "untied, with shared experts, micro")),
        pytest.param(2, tuple(SHAPES), marks=pytest.mark.slow),
        pytest.param(3, tuple(SHAPES), marks=pytest.mark.slow),
    ],
)
def test_steps_and_evaluations_are_those_of_one_process(
    processes: int, shapes: tuple[str, ...], tmp_path: Path
) -> None:
    """Batches of 8 in two parts: three processes take 2, 1 and 1 sequences of each."""
    expected = {name: _run(SHAPES[name], World(), torch.float32) for name in shapes}
    torch.save(expected, tmp_path / "expected.pt")
    together(processes, _compare, tmp_path / "expected.pt")


def _compare_bf16(world: World, expected: Path) -> None:
    for name, found in torch.load(expected).items():
        mine = _run(SHAPES[name], world, torch.bfloat16, recompute=True)
        for step in range(STEPS):
            nats, entropy, norm, _ = (mine[f"step {step}"] / found[f"step {step}"]).tolist()
            assert abs(nats - 1) < 2e-3, (name, step, nats)
            assert abs(norm - 1) < 5e-2, (name, step, norm)
            assert name == "dense" or abs(entropy - 1) < 5e-2, (name, step, entropy)


@pytest.mark.slow
def test_bf16_steps_are_close_to_those_of_one_process(tmp_path: Path) -> None:
    expected = {name: _run(shape, World(), torch.bfloat16) for name, shape in SHAPES.items()}
    torch.save(expected, tmp_path / "expected.pt")
    together(2, _compare_bf16, tmp_path / "expected.pt")


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_every_row_of_a_batch_belongs_to_one_process(processes: int) -> None:
    shares = [split_rows(BATCH, PARTS, World(rank, processes)) for rank in range(processes)]
    rows = [row for share in shares for part in share for row in part]
    assert sorted(rows) == list(range(BATCH))
    for share in shares:
        assert [row // (BATCH // PARTS) for part in share for row in part] == sorted(
            row // (BATCH // PARTS) for part in share for row in part
        )


def test_more_processes_than_sequences_of_a_part_are_refused_with_the_numbers() -> None:
    with pytest.raises(TrainingError, match="5 processes cannot share 4 sequences") as refused:
        split_rows(BATCH, PARTS, World(0, 5))
    assert "at most 4 processes" in refused.value.hint


def test_a_router_that_reads_whole_batches_is_refused_in_several_processes() -> None:
    config = dataclasses.replace(CONFIG, router="expert-choice", router_settings={"ablation": True})
    model = SingleTransformer(config)
    shard(model, World())  # one process may
    with pytest.raises(TrainingError, match="fills its experts from whole batches"):
        shard(model, World(0, 2))
