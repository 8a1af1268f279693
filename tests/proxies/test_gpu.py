"""What only a GPU can show; skipped without one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.fusion import fusing
from mixopt.models.routers import ROUTERS
from mixopt.models.routers.base import Routing, RoutingContext, router_class
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import CapturedStep, capturable, make_step, worth_compiling
from mixopt.proxies.cohorts import choose_cohort
from mixopt.proxies.job import Job
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.precision import choose_precision
from mixopt.proxies.step import Step
from mixopt.proxies.training import Progress, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CONFIG = ModelConfig(width=32, layers=2, heads=2, experts=4, expert_width=16, vocab_size=64)
MIXTURES = tuple(Mixture.exact({"d0": w, "d1": 1 - w}) for w in (0.25, 0.5, 0.75))


def _config(router: str) -> ModelConfig:
    settings = {"ablation": True} if router == "expert-choice" else {}
    return dataclasses.replace(CONFIG, router=router, router_settings=settings)


def _batches(steps: int, cohort: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    strides = torch.randint(1, 4, (steps, cohort, 4, 17), generator=generator)
    return list(strides.cumsum(-1) % 64)


def _losses(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    steps: int = 12,
    *,
    kind: type[Step] | None = None,
    seeds: tuple[int, ...] = (3, 4),
    optimizer: str = "adamw",
) -> Tensor:
    """Training losses on the same batches, (steps, K)."""
    model = Transformer(config, seeds, dtype).to(device).train()
    recipe = Recipe(optimizer=optimizer)
    adam = CohortOptimizer(model, recipe, tuple(3e-3 * (1 + s % 2) for s in seeds))
    step = kind(model, adam) if kind else make_step(model, adam)
    losses = []
    for number, ids_KBT in enumerate(_batches(steps, len(seeds))):
        losses.append(step(ids_KBT.to(device), progress=number / steps, rate_share=0.5))
    if isinstance(step, CapturedStep):
        assert step.replayed
    return torch.stack(losses).cpu()


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_every_router_trains_as_on_a_cpu(router: str) -> None:
    config = _config(router)
    on_cpu = _losses(config, CPU, torch.float32)
    assert torch.allclose(_losses(config, GPU, torch.float32), on_cpu, atol=5e-3)
    low = _losses(config, GPU, torch.bfloat16)
    assert torch.allclose(low, on_cpu, atol=0.1)
    assert (low[-1] < low[0]).all()


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_a_captured_step_is_the_step_itself(router: str) -> None:
    config = _config(router)
    assert capturable(Transformer(config, (0,), torch.bfloat16).to(GPU))
    by_itself = _losses(config, GPU, torch.bfloat16, kind=Step)
    replayed = _losses(config, GPU, torch.bfloat16, kind=CapturedStep)
    assert torch.equal(replayed, by_itself)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_captured_steps_serve_dense_models_and_muon(dense: bool, optimizer: str) -> None:
    shape = {"experts": 1, "experts_per_token": 1} if dense else {"shared_experts": 1}
    config = dataclasses.replace(CONFIG, **shape)
    assert config.dense == dense
    by_itself = _losses(config, GPU, torch.bfloat16, kind=Step, optimizer=optimizer)
    replayed = _losses(config, GPU, torch.bfloat16, optimizer=optimizer)
    assert torch.equal(replayed, by_itself)


@pytest.mark.parametrize("router", ["softmax", "hmoe", "moe++", "loss-free"])
def test_a_compiled_step_is_the_step_within_rounding(router: str) -> None:
    plain = _losses(_config(router), GPU, torch.bfloat16)
    with fusing():
        compiled = _losses(_config(router), GPU, torch.bfloat16)
    assert torch.allclose(compiled, plain, atol=0.05)


def test_a_router_that_looks_at_values_trains_by_itself() -> None:
    class Looking(router_class("softmax")):
        def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
            routing = super().route(x_KND, context)
            assert float(routing.gates_KNS.sum()) > 0
            return routing

    model = Transformer(CONFIG, (3, 4), torch.bfloat16).to(GPU).train()
    for block in model.blocks:
        block.feed_forward.router.__class__ = Looking
    step = CapturedStep(model, CohortOptimizer(model, Recipe(), (6e-3, 3e-3)))
    expected = _losses(CONFIG, GPU, torch.bfloat16, kind=Step)
    for number, ids_KBT in enumerate(_batches(12)):
        loss_K = step(ids_KBT.to(GPU), rate_share=0.5)
        assert torch.equal(loss_K.cpu(), expected[number])
    assert not step.replayed


def test_more_groups_than_one_product_takes_are_cut() -> None:
    config = dataclasses.replace(CONFIG, layers=1, experts=512)
    model = Transformer(config, (0, 1, 2), torch.bfloat16).to(GPU).train()
    step = make_step(model, CohortOptimizer(model, Recipe(), (3e-3,) * 3))
    on_cpu = Transformer(config, (0, 1, 2), torch.bfloat16).train()
    other = make_step(on_cpu, CohortOptimizer(on_cpu, Recipe(), (3e-3,) * 3))
    for ids_KBT in _batches(5, 3):
        assert torch.allclose(step(ids_KBT.to(GPU)).cpu(), other(ids_KBT), atol=0.05)


def test_a_cohort_is_its_proxies_alone() -> None:
    together = _losses(CONFIG, GPU, torch.float32, seeds=(3, 4))
    config = CONFIG
    for k, seed in enumerate((3, 4)):
        model = Transformer(config, (seed,), torch.float32).to(GPU).train()
        optimizer = CohortOptimizer(model, Recipe(), (3e-3 * (1 + seed % 2),))
        step = make_step(model, optimizer)
        for number, ids_KBT in enumerate(_batches(12)):
            loss_K = step(ids_KBT[k : k + 1].to(GPU), rate_share=0.5)
            assert torch.allclose(loss_K.cpu(), together[number, k : k + 1], atol=5e-3)


def test_a_proxy_that_diverges_touches_no_other() -> None:
    model = Transformer(CONFIG, (3, 4), torch.bfloat16).to(GPU).train()
    step = make_step(model, CohortOptimizer(model, Recipe(), (3e-3, 3e-3)))
    with torch.no_grad():
        model.embedding[1] = float("nan")
    for ids_KBT in _batches(8):
        loss_K = step(ids_KBT.to(GPU))
        assert loss_K[0].isfinite()
        assert not loss_K[1].isfinite()


def _job(corpus: Corpus, **settings: object) -> Job:
    values = {"sequence_length": 16, "batch_sequences": 4, "evaluation_tokens": 256}
    recipe = Recipe(**{**values, "curve_tokens": 128, **settings})
    model = dataclasses.replace(CONFIG, vocab_size=0)
    return Job(model, recipe, str(corpus.path), MIXTURES, (0, 1, 2), 40 * 64)


def test_a_training_goes_on_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    whole = train(_job(corpus, precision="bf16"), tmp_path / "whole", device="cuda")

    class Stop(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.step >= 16:
            raise Stop

    job = _job(corpus, precision="bf16", checkpoint_seconds=1e-9)
    with pytest.raises(Stop):
        train(job, tmp_path / "cut", interrupt, device="cuda")
    again = train(job, tmp_path / "cut", device="cuda")
    for one, other in zip(whole, again, strict=True):
        assert one.result
        assert other.result
        assert one.result.metrics == other.result.metrics


def test_precision_and_cohort_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(sequence_length=16, batch_sequences=4)
    assert choose_precision(CONFIG, recipe, 1, GPU) in ("bf16", "fp32")
    monkeypatch.setattr("mixopt.proxies.cohorts.MOST", 4)
    monkeypatch.setattr("mixopt.proxies.cohorts.SECONDS", 0.05)
    assert choose_cohort(CONFIG, recipe, GPU) >= 2


def test_long_trainings_are_compiled() -> None:
    model = Transformer(CONFIG, (0,), torch.bfloat16).to(GPU)
    assert worth_compiling(model, Recipe(), 1_000_000)
    assert not worth_compiling(model, Recipe(), 10)
    assert worth_compiling(model, Recipe(compile="always"), 10)
    assert not worth_compiling(model, Recipe(compile="never"), 1_000_000)


def test_a_compiled_training_ends_as_one_that_is_not(corpus: Corpus, tmp_path: Path) -> None:
    ends = []
    for how in ("always", "never"):
        job = _job(corpus, precision="bf16", compile=how, checkpoint_seconds=float("inf"))
        ends.append(train(job, tmp_path / how, device="cuda"))
    for one, other in zip(*ends, strict=True):
        assert one.result
        assert other.result
        assert one.result.metrics == pytest.approx(other.result.metrics, abs=0.05)
