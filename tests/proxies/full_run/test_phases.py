"""Parameters train in phases: what is frozen stays as it is, and a resume knows what moved."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixopt.core.mixture import Mixture
from mixopt.core.phases import Phase
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.single import SingleTransformer
from mixopt.proxies.checkpoint import load_state
from mixopt.proxies.full_run.progress import FullProgress
from mixopt.proxies.full_run.training import train_full
from mixopt.proxies.full_run.world import World
from mixopt.proxies.job import Job
from tests.proxies.full_run.processes import together

RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    precision="fp32",
    evaluations=10,
    evaluation_tokens=64,
    curve_tokens=32,
)
MODEL = ModelConfig(width=16, layers=2, heads=2, expert_width=16, shared_experts=1)
PHASES = (Phase("router", 0.2), Phase("experts", 0.3), Phase("all", 0.5))


class Kill(Exception):
    """What a test stops a training with."""


def _job(corpus: Corpus, steps: int = 10) -> Job:
    mixture = Mixture.of({"d0": 9, "d1": 1})
    return Job(MODEL, RECIPE, str(corpus.path), (mixture,), (1,), steps * 128)


def _parts(corpus: Corpus) -> SingleTransformer:
    return SingleTransformer(dataclasses.replace(MODEL, vocab_size=corpus.vocab_size), seed=1)


def _weights(job: Job, folder: Path, phases: tuple[Phase, ...]) -> dict[str, Tensor]:
    outcome = train_full(job, folder, World(), keep_weights=True, phases=phases)
    assert outcome.result is not None
    return dict(load_state(folder / "model.safetensors")[0])


@pytest.mark.parametrize("what", ["router", "experts"])
def test_only_what_a_phase_names_moves(what: str, corpus: Corpus, tmp_path: Path) -> None:
    model = _parts(corpus)
    before = model.proxy_state()
    phases = (Phase(what, 1.0),)  # type: ignore[arg-type]
    after = _weights(_job(corpus, 3), tmp_path, phases)
    moved = {
        name for name, _ in model.named_weights() if not torch.equal(before[name], after[name])
    }
    assert moved == {name for name, _ in model.named_weights() if model.part_of(name) == what}


def test_a_phase_of_all_is_a_training_without_phases(corpus: Corpus, tmp_path: Path) -> None:
    one = _weights(_job(corpus, 3), tmp_path / "one", ())
    other = _weights(_job(corpus, 3), tmp_path / "other", (Phase("all", 1.0),))
    assert all(torch.equal(one[name], other[name]) for name in one)


def _killed(world: World, job: Job, folder: Path) -> None:
    def kill(progress: FullProgress) -> None:
        if progress.phase == "evaluation" and progress.step == 7:
            raise Kill

    with pytest.raises(Kill):
        train_full(job, folder, world, kill, phases=PHASES)


@pytest.mark.slow
def test_a_run_killed_in_its_last_phase_goes_on_as_if_it_had_not_been(
    corpus: Corpus, tmp_path: Path
) -> None:
    job = _job(corpus)
    whole = _weights(job, tmp_path / "whole", PHASES)
    together(2, _killed, job, tmp_path / "killed")
    resumed = _weights(job, tmp_path / "killed", PHASES)
    for name, weight in whole.items():
        assert torch.allclose(resumed[name], weight, atol=1e-5), name
