"""The built-in proxy by the trainers' contract measures what it does by itself, to the digit."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Fidelity, Limits, Outcome
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies import training
from mixopt.proxies.job import Job
from mixopt.proxies.trainer import proxy_job, train
from mixopt.trainers.base import make_trainer
from mixopt.trainers.job import Domain, TrainingJob
from mixopt.trainers.run import Progress, run_training

MODEL = ModelConfig(width=16, heads=2, experts=2, experts_per_token=1, expert_width=16)
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=4,
    precision="fp32",
    evaluations=3,
    evaluation_tokens=128,
    curve_tokens=64,
    evaluation_share=None,
    checkpoint_seconds=0.0,
)
MIXTURE = Mixture.of({"d0": 0.3, "d1": 0.7})
TOKENS = 12 * 64
KINDS: dict[str, Any] = {
    "function": "mixopt.proxies.trainer:train",
    "command": {"command": f"{sys.executable} -m mixopt.proxies.trainer {{job}}"},
}


def built_in(corpus: Corpus, folder: Path, limits: Limits | None = None) -> Outcome:
    job = Job(
        MODEL,
        RECIPE,
        str(corpus.path),
        (MIXTURE,),
        (7,),
        TOKENS,
        token_limits={"d0": 500},
        limits=(limits,),
    )
    (outcome,) = training.train(job, folder, threads=1, device="cpu")
    return outcome


def make_job(corpus: Corpus, folder: Path, **changes: Any) -> TrainingJob:
    settings = {
        "model": dataclasses.asdict(MODEL),
        "recipe": dataclasses.asdict(RECIPE),
    }
    job = TrainingJob(
        "demo",
        "7",
        MIXTURE.as_dict(),
        TOKENS,
        7,
        Fidelity("proxy", 0, TOKENS),
        str(folder),
        metrics=("bpb/d0", "bpb/d1"),
        domains={
            name: Domain(tokens, limit=500 if name == "d0" else None)
            for name, tokens in corpus.tokens.items()
        },
        corpus=str(corpus.path),
        settings=settings,
    )
    return dataclasses.replace(job, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_it_measures_what_the_built_in_proxy_measures(
    corpus: Corpus, tmp_path: Path, kind: str
) -> None:
    there = built_in(corpus, tmp_path / "there").result
    here = run_training(
        make_trainer(KINDS[kind], tmp_path), make_job(corpus, tmp_path / "x")
    ).result
    assert there is not None
    assert here is not None
    for name in ("metrics", "loads", "entropies", "dropped"):
        assert getattr(here, name) == getattr(there, name)
    assert [(p.tokens, p.metrics, p.comparable) for p in here.curve] == [
        (p.tokens, p.metrics, p.comparable) for p in there.curve
    ]
    assert (here.cost.tokens, here.cost.flops) == (there.cost.tokens, there.cost.flops)
    assert here.environment["verified"] == "mixture, tokens, seed"


def test_interrupted_it_goes_on_to_the_same_digits(corpus: Corpus, tmp_path: Path) -> None:
    there = built_in(corpus, tmp_path / "there").result
    job, trainer = make_job(corpus, tmp_path / "x"), make_trainer(KINDS["function"], tmp_path)

    def stop(progress: Progress) -> None:
        if progress.tokens >= 4 * 64 and progress.phase == "evaluation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(trainer, job, report=stop)
    here = run_training(trainer, job).result
    assert there is not None
    assert here is not None
    assert here.metrics == there.metrics
    assert [p.comparable for p in here.curve] == [p.comparable for p in there.curve]
    assert json.loads((tmp_path / "x" / "job.json").read_text())["resume"]


def test_it_is_pruned_where_the_built_in_proxy_is(corpus: Corpus, tmp_path: Path) -> None:
    weights = {"bpb/d0": 1.0}
    there = built_in(corpus, tmp_path / "there", Limits(weights, ((8, 0.1),), "no hope"))
    limits = Limits(weights, ((8 * 64, 0.1),), "no hope")
    trainer = make_trainer(KINDS["function"], tmp_path)
    here = run_training(trainer, make_job(corpus, tmp_path / "x"), limits=limits)
    assert (here.pruned, there.pruned) == (True, True)
    assert there.result is not None
    assert here.result is not None
    assert here.result.metrics == there.result.metrics
    assert here.result.cost.tokens == there.result.cost.tokens


def test_the_full_run_keeps_its_weights(corpus: Corpus, tmp_path: Path) -> None:
    job = make_job(corpus, tmp_path / "x", role="promote")
    result = train(job, job.report)
    assert result.checkpoint is not None
    assert (tmp_path / "x" / result.checkpoint).exists()


def test_its_recipe_is_written_as_in_a_study_file(corpus: Corpus, tmp_path: Path) -> None:
    short, long = (
        make_job(corpus, tmp_path, settings={"model": {}, "recipe": {"evaluation_tokens": count}})
        for count in ("4k", 4000)
    )
    assert proxy_job(short) == proxy_job(long)


def test_failures_of_memory_split_the_batch(corpus: Corpus, tmp_path: Path) -> None:
    parts = [
        proxy_job(make_job(corpus, tmp_path, memory_failures=n)).recipe.micro_batches
        for n in range(4)
    ]
    assert parts == [1, 2, 4, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": None}, "the built-in proxy trains on a corpus"),
        ({"settings": {}}, "`model` is missing"),
        ({"settings": {"model": {}, "recipes": {}}}, "unknown: recipes"),
        ({"settings": {"model": {"wide": 3}}}, "unexpected keyword argument 'wide'"),
        ({"settings": {"model": {}, "recipe": {"curve_tokens": "4 x"}}}, "write 600000, 600k"),
    ],
)
def test_a_wrong_job_is_refused(
    corpus: Corpus, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        proxy_job(dataclasses.replace(make_job(corpus, tmp_path), **changes))
