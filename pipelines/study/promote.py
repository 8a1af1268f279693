"""Promotion: the full run of the mixture that a verdict asks for.

By our upcycling (`promotion_stages`), of existing models (`upcycled_checkpoint`), by a trainer of
the user's (`own_promotion`), or by ours and then that trainer (`stages_for_trainer`). Every
training is an idempotent piece of work with a folder of its own; the folder of a promotion carries
the hash of its settings, so a changed promotion begins anew beside the old one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.core.objective import Objective
from mixopt.io import files, markers
from mixopt.pipelines.study.full_run_elsewhere import told_full_run
from mixopt.pipelines.study.own_promotion import train_full_run
from mixopt.pipelines.study.plan_changes import new_full_run_note
from mixopt.pipelines.study.promotion_folder import asked_of, promotion_folder
from mixopt.pipelines.study.promotion_identity import keep_asked, new_promotion_note
from mixopt.pipelines.study.promotion_record import trained, upcycled
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import MOE, run_stages
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.stage_trainings import ClusterMachine
from mixopt.pipelines.study.stages_for_trainer import upcycled_model
from mixopt.pipelines.study.upcycled_checkpoint import upcycle_checkpoint
from mixopt.selection.results import Predicted
from mixopt.study.model import study_model
from mixopt.study.records import read_result
from mixopt.study.results import Promotion, Verdict

RESULT = "result.json"


def promote(session: Session, verdict: Verdict) -> Promotion:
    """Run the promotion that `verdict` asks for, or what is left of it.

    A promotion that ended keeps its result, with what was predicted then of a proxy: a search that
    goes on afterwards does not make a second one of it.

    Raises:
        StudyError: the study asks for none.
        TrainingError: a stage failed for good; the ones before it are kept.
        FullRunWaits: it is trained elsewhere, and not told yet.
    """
    job = promotion_run(session, verdict)
    folder = job.folder
    _note_identity(job)
    ended = read_result(folder)
    if ended is None or not _is_whole(folder.parent / ended.model, ended):
        ended = _run(job)
        files.write_json(folder / RESULT, ended.to_json())
    # another round of search may find the same mixture as another candidate
    result = dataclasses.replace(ended, mixture_name=job.method)
    files.write_json(session.home / "promotion" / RESULT, result.to_json())
    return result


def promotion_run(session: Session, verdict: Verdict) -> PromotionRun:
    """The promotion that `verdict` asks for.

    Raises:
        StudyError: the study asks for none.
    """
    settings = session.study.promote
    if settings is None:
        raise StudyError(
            "the study asks for no promotion",
            where=str(session.study.path),
            hint="Add `promote` to the study file",
        )
    mixture = verdict.mixture
    return PromotionRun(
        session=session,
        settings=settings,
        mixture=mixture,
        method=verdict.promoted,
        folder=promotion_folder(session, settings, mixture),
        surrogate=verdict.surrogate,
        models=session.models,
    )


def _note_identity(job: PromotionRun) -> None:
    """Say where a promotion begins anew beside another, and keep what it depends on."""
    session, settings = job.session, job.settings
    if not settings.upcycles:
        note = new_full_run_note(session.study, session.data, settings, job.mixture)
        note = note or new_promotion_note(job.folder, None)
    else:
        asked = asked_of(session.study, session.data, settings, job.mixture, job.models)
        note = new_promotion_note(job.folder, asked)
        keep_asked(job.folder, asked)
    if note:
        session.display.warn(note)


def _is_whole(model: Path, ended: Promotion) -> bool:
    """Whether the promoted model lies there as it was written."""
    return ended.has_weights and markers.whole(model, ended.files)


def _run(job: PromotionRun) -> Promotion:
    if not job.settings.upcycles:
        return _by_trainer(job)
    if job.settings.trainer is not None:
        return _by_trainer(job, upcycled_model(job))
    if job.models is not None and job.models.checkpoints:
        return upcycle_checkpoint(job, job.models, predicted(job))
    stages = job.stages()
    done = run_stages(stages, ClusterMachine(job.session))
    before = upcycled(job, stages, done.upcycled, done.model)
    described = markers.described(done.model)
    return trained(job, before, MOE, done.last, predicted(job), done.model, described)


def _by_trainer(job: PromotionRun, upcycled: Promotion | None = None) -> Promotion:
    """The full run by a trainer of the user's, from our upcycled model or from none."""
    full_run = told_full_run if job.settings.elsewhere else train_full_run
    return full_run(job, predicted(job), upcycled)


def predicted(job: PromotionRun) -> dict[str, Predicted]:
    """What the verdict's surrogate predicts of a proxy on the mixture, per metric.

    At the proxies' size and tokens: not a prediction of the promoted run, which is another model at
    another budget. That needs proxies of several sizes.

    Returns:
        By metric, the prediction of one run with a fresh seed; `std` is for the search's seed.
    """
    session = job.session
    trials = session.ledger.trials()
    model = study_model(session.study, session.fidelity, trials)
    weighed = session.objective.metrics
    known = [trial.metrics for trial in model.trials if trial.complete]  # own trainers' differ
    shown = _shown_metrics(session, known)
    rest = tuple(m for m in shown if m not in weighed and all(m in each for each in known))
    found: dict[str, tuple[float, float]] = {}
    for part in (weighed, rest):
        if part:
            prediction = model.fitted(job.surrogate, part).predict(job.mixture.array[None])
            pairs = zip(prediction.mean[0].tolist(), prediction.std[0].tolist(), strict=True)
            found |= dict(zip(prediction.metrics, pairs, strict=True))
    intervals = {
        metric: model.forecast(trials, job.mixture, pair, Objective({metric: 1.0})).within(1)
        for metric, pair in found.items()
    }
    return {metric: Predicted(*pair, *intervals[metric]) for metric, pair in found.items()}


def _shown_metrics(session: Session, known: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Metrics that are shown of a promotion: of our proxies in bits per byte, else all of them."""
    if session.study.trainer is not None:
        return tuple(dict.fromkeys(metric for each in known for metric in each))
    return (
        *(f"bpb/{domain}" for domain in session.corpus.validation_domains),
        *(f"task/{name}" for name in session.tasks),
    )
