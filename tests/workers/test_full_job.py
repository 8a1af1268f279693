"""A full run that goes on says from where, and its log tells each step once."""

from pathlib import Path

import pytest
import torch

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io import training_log
from mixopt.io.full_checkpoints import checkpoint_path, resumed_tokens
from mixopt.models.config import ModelConfig
from mixopt.proxies.full_run.progress import FullProgress
from mixopt.proxies.full_run.world import World
from mixopt.proxies.job import Job
from mixopt.workers.full_job import SCRATCH, FullJob
from mixopt.workers.proxy_task import Work, perform

STEP = 4 * 16  # tokens
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=4,
    precision="fp32",
    evaluations=10,
    evaluation_tokens=64,
    curve_tokens=32,
)
MODEL = ModelConfig(width=16, layers=1, heads=2, experts=2, experts_per_token=1, expert_width=16)


class Kill(Exception):
    """What a test stops a training with."""


def full_job(corpus: Corpus) -> FullJob:
    mixture = Mixture.uniform(corpus.domains)
    return FullJob(Job(MODEL, RECIPE, str(corpus.path), (mixture,), (1,), 20 * STEP))


def killed(job: FullJob, folder: Path, step: int) -> None:
    """Train until the evaluation of `step` is reported; its checkpoint is not written."""

    def report(progress: FullProgress) -> None:
        if progress.phase == "evaluation" and progress.step == step:
            raise Kill

    with pytest.raises(Kill):
        job.train(folder, World(device=torch.device("cpu")), report, 1, keep_weights=False)


def test_a_resume_says_how_much_was_trained_before_and_its_log_has_each_step_once(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    job = full_job(text_corpus)
    killed(job, tmp_path, 8)
    assert resumed_tokens(tmp_path) == 6 * STEP
    assert training_log.read(tmp_path)[-1]["tokens"] == 8 * STEP
    killed(job, tmp_path, 14)
    assert resumed_tokens(tmp_path) == 12 * STEP
    (checkpoint_path(tmp_path, 12) / "done.json").write_text("{")  # as a torn disk leaves it
    assert resumed_tokens(tmp_path) == 10 * STEP

    (tmp_path / SCRATCH).mkdir()  # as several processes leave it that are killed
    *reports, done = perform(Work("moe", job, str(tmp_path), ""), attempt=3, micro_batches=1)
    assert done["kind"] == "done"
    assert not (tmp_path / SCRATCH).exists()
    assert {message["resumed"] for message in reports} == {10 * STEP}
    log = training_log.read(tmp_path)
    losses = [report["step"] for report in log if report["loss"]]
    evaluations = [report["step"] for report in log if report["metrics"]]
    assert losses == evaluations == list(range(2, 21, 2))
    attempts = {report["step"]: report["resumed"] // STEP for report in log if report["loss"]}
    assert [attempts[step] for step in (6, 8, 10, 12, 20)] == [0, 6, 6, 10, 10]
