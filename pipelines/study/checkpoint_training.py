"""The training of an upcycled Hugging Face checkpoint: transformers' own module, our full run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import TRAINED
from mixopt.models.config import ModelConfig
from mixopt.models.families.base import Shape
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import FULL_RUN, UPCYCLED
from mixopt.proxies.job import Job
from mixopt.study.promote import Promote
from mixopt.workers.full_job import FullJob
from mixopt.workers.proxy_task import Work

MODEL = f"{FULL_RUN}/{TRAINED}"  # what it leaves in the promotion's folder


def trained_shape(settings: Promote, shape: Shape) -> ModelConfig:
    """The checkpoint's shape in our words, with how `promote.model` balances its routers.

    Its size and cost are those of our own model of that shape: they differ a little where heads
    share keys, or are wider than D / heads.
    """
    splits = shape.width % (2 * shape.heads) == 0
    return dataclasses.replace(
        settings.model,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads if splits else 1,
        experts=shape.experts,
        experts_per_token=shape.experts_per_token,
        expert_width=shape.hidden,
        shared_experts=0,
        router="softmax",
        router_settings={},
        renormalize=shape.renormalize,
        tie_embeddings=shape.tie_embeddings,
        vocab_size=shape.vocab_size,
    )


def checkpoint_work(run: PromotionRun, shape: Shape, checkpoint: Path) -> Work:
    """The training of the checkpoint on the promotion's mixture.

    Args:
        run: the promotion; its folder's name stands for what the checkpoint holds.
        shape: of the checkpoint.
        checkpoint: its folder, which stays as it is.
    """
    session, settings, asked = run.session, run.settings, run.settings.resources
    assert isinstance(session.data, Corpus)
    job = Job(
        model=trained_shape(settings, shape),
        recipe=session.recipe("promote"),
        corpus=str(session.study.corpus_path),
        mixtures=(run.mixture,),
        seeds=(session.study.seed,),
        tokens=settings.tokens,
        identity=run.folder.name,
        tasks=session.tasks,
        weighed=session.weighed,
    )
    full = FullJob(
        *(job, asked.processes, asked.recompute),
        checkpoint=str(checkpoint),
        phases=settings.phases,
    )
    return Work(
        *(UPCYCLED, full, str(run.folder / FULL_RUN), run.folder.name),
        keep_weights=True,
        verified=session.verified,
    )
