"""Every router through the step loop: it learns, and an interruption changes nothing."""

from pathlib import Path

import pytest
import torch

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.proxies.checkpoint import load_state
from mixopt.proxies.job import Job
from mixopt.proxies.training import Progress, train

RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    micro_batches=2,
    precision="fp32",
    evaluations=2,
    evaluation_tokens=256,
    curve_tokens=128,
)
SETTINGS: dict[str, dict] = {
    "expert-choice": {"ablation": True},
    "remoe": {"coefficient": 1e-3},
    "stable": {"stage": 0.4},
}


def _job(corpus: Corpus, router: str, steps: int) -> Job:
    model = ModelConfig(
        width=16,
        layers=2,
        heads=2,
        expert_width=16,
        router=router,
        router_settings=SETTINGS.get(router, {}),
    )
    mixtures = (Mixture.of({"d0": 9, "d1": 1}), Mixture.of({"d0": 1, "d1": 9}))
    return Job(model, RECIPE, str(corpus.path), mixtures, (1, 2), steps * 128)


class Interruption(Exception):
    """What a test stops a training with."""


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_every_router_learns(router: str, corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, router, 24)
    for outcome in train(job, tmp_path, None, 1, device="cpu"):
        assert outcome.result is not None, outcome.message
        first, last = outcome.result.curve
        assert last.metrics["bpb/d0"] + last.metrics["bpb/d1"] < (
            first.metrics["bpb/d0"] + first.metrics["bpb/d1"]
        )
        assert sum(outcome.result.loads["d0"]) == pytest.approx(1)


@pytest.mark.parametrize("router", ["loss-free", "remoe", "stable"])
def test_state_that_is_kept_from_step_to_step_survives_an_interruption(
    router: str, corpus: Corpus, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step >= 8 and progress.phase == "training":
            raise Interruption

    job = _job(corpus, router, 16)
    train(job, tmp_path / "whole", None, 1, device="cpu", keep_weights=True)
    with pytest.raises(Interruption):
        train(job, tmp_path / "broken", stop, 1, device="cpu", keep_weights=True)
    train(job, tmp_path / "broken", None, 1, device="cpu", keep_weights=True)
    for k in range(2):
        whole, _ = load_state(tmp_path / "whole" / f"model-{k}.safetensors")
        resumed, _ = load_state(tmp_path / "broken" / f"model-{k}.safetensors")
        for name, tensor in whole.items():
            assert torch.equal(tensor, resumed[name]), name
