"""A promotion by a trainer of the user's: one training of the contract, with the role `promote`.

It ends with the checkpoint that `result.json` names, which is registered and exported as it is. It
begins with weights of its own, or from a model that is upcycled here (`stages_for_trainer`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mixopt.core.trials import Fidelity, TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import markers
from mixopt.io.trial_files import MARKER
from mixopt.pipelines.study.initial_model import initial_folder, initial_params, initial_shape
from mixopt.pipelines.study.promotion_record import trained, untrained
from mixopt.pipelines.study.promotion_room import trainer_resources
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.stage_trainings import StageTraining, train_stages
from mixopt.selection.results import Predicted
from mixopt.study.data import job_domains
from mixopt.study.hashes import digest
from mixopt.study.promote import Promote
from mixopt.study.results import OWN, Promotion
from mixopt.study.settings import Study
from mixopt.trainers.job import RESULT, TrainingJob
from mixopt.trainers.result import CHECKPOINT
from mixopt.workers.own_job import OwnJob
from mixopt.workers.proxy_task import Work

FULL_RUN, FULL_RUN_FOLDER = "full run", "full-run"
METHOD, ELSEWHERE = "own trainer", "elsewhere"  # stand where an upcycler would
PROMOTION = "promotion"  # name of the full run among a study's trainings


def train_full_run(
    job: PromotionRun, predicted: Mapping[str, Predicted], upcycled: Promotion | None = None
) -> Promotion:
    """Train the full run, or what is left of it.

    Args:
        job: the promotion; its settings name a trainer.
        predicted: by metric, of a proxy on its mixture.
        upcycled: the promotion so far, where it begins from a model that was upcycled here.

    Raises:
        TrainingError: the training failed for good.
        CorpusError: a worker met bad data.
    """
    session, settings = job.session, job.settings
    resources = trainer_resources(session.study)
    own = settings.trainer
    assert own is not None
    with session.study.naming("promote"):
        trainer = own.made(session.study.path.parent)
    asked = full_run_job(job, resources.gpus, trainer.digest())
    limits = (own.timeout, own.heartbeat, own.grace)
    work = Work(
        FULL_RUN,
        OwnJob(trainer, asked, None, *limits),
        asked.folder,
        job.folder.name,
        verified=session.verified,
    )
    output = Path(work.folder)
    training = StageTraining(
        *(session, work, full_run_flops(session, settings)),
        advice=f"See its output in {output}, change the trainer, and run the same command again. "
        f"If only {RESULT} is wrong: correct it, remove {MARKER} beside it, and nothing is trained",
        before=None if upcycled is None else upcycled.before,
    )
    (result,) = train_stages(session, FULL_RUN, [training], resources)
    return promotion_of(job, result, predicted, upcycled=upcycled)


def promotion_of(
    job: PromotionRun,
    result: TrialResult,
    predicted: Mapping[str, Predicted],
    elsewhere: str = "",
    upcycled: Promotion | None = None,
) -> Promotion:
    """The record of a full run with this `result`, whose checkpoint lies in its folder.

    Args:
        job: the promotion.
        result: what the full run measured.
        predicted: by metric, of a proxy on its mixture.
        elsewhere: where the checkpoint is in truth, if the full run was trained elsewhere.
        upcycled: see `train_full_run`.

    Raises:
        FileError: the checkpoint cannot be read.
    """
    checkpoint = full_run_folder(job) / result.environment[CHECKPOINT]
    folder, files = markers.tree_described(checkpoint)
    before = upcycled or untrained(
        job,
        method=ELSEWHERE if elsewhere else METHOD,
        imported={},
        active_params=job.settings.params,
    )
    record = trained(job, before, (FULL_RUN, OWN), result, predicted, folder, files)
    return dataclasses.replace(record, sequence_length=None, checkpoint=elsewhere)


def full_run_flops(session: Session, settings: Promote) -> float:
    """Training FLOPs of the full run; of a model of unknown size as if it were a proxy's."""
    if settings.upcycle:
        return session.flops(initial_shape(session, settings), settings.tokens)
    params = settings.params or session.fidelity.params
    return session.own_flops(params, settings.tokens)


def full_run_folder(job: PromotionRun) -> Path:
    """Where job, result and checkpoint of the full run lie."""
    return job.folder / FULL_RUN_FOLDER


def full_run_job(job: PromotionRun, gpus: float, trainer: str) -> TrainingJob:
    """What the full run is asked to train.

    Args:
        job: the promotion.
        gpus: that it may use.
        trainer: digest of its trainer's identity.
    """
    session, settings, study = job.session, job.settings, job.session.study
    own = settings.trainer
    assert own is not None
    upcycle = settings.upcycle
    params = initial_params(session, settings) if upcycle else settings.params or 0
    return TrainingJob(
        study=study.name,
        trial=PROMOTION,
        mixture=job.mixture.as_dict(),
        tokens=settings.tokens,
        seed=study.seed,
        fidelity=Fidelity("full run", params, settings.tokens),
        folder=str(full_run_folder(job)),
        metrics=session.needed_metrics,
        role="promote",
        domains=job_domains(session.data, None),
        corpus=str(session.data.path) if isinstance(session.data, Corpus) else None,
        initial_model=str(initial_folder(job)) if upcycle else None,
        settings=own.settings,
        gpus=gpus,
        identity=job.folder.name,
        trainer=trainer,
    )


def full_run_trainer(study: Study, settings: Promote) -> str:
    """Digest of the identity of the full run's trainer, elsewhere or not.

    Raises:
        StudyError: a file of it is not there.
    """
    assert settings.trainer is not None
    with study.naming("promote"):
        if settings.elsewhere:
            return digest(settings.trainer.identity(study.path.parent))
        return settings.trainer.made(study.path.parent).digest()
