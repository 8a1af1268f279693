"""The record of a promotion: once its model is upcycled, and once that is trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt import __version__
from mixopt.core.trials import TrialResult
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import Stages, UpcycledStages
from mixopt.selection.results import Predicted
from mixopt.study.results import Promotion, Stage


def untrained(job: PromotionRun, **found: Any) -> Promotion:
    """A promotion whose last training has not begun.

    Args:
        job: the promotion.
        found: fields of the record, in the place of those that `job` says, or else of empty ones.
    """
    session, settings = job.session, job.settings
    known: dict[str, Any] = {
        "id": job.folder.name,
        "finished": _now(),
        "mixopt": __version__,
        "corpus_hash": session.data.hash,
        "sequence_length": settings.recipe.sequence_length,
        "method": settings.upcycler,
        "mixture_name": job.method,
        "mixture": job.mixture,
        "imported": {} if job.models is None else dict(job.models.names),
        "predicted_of": session.fidelity,
        "tokens": 0,
        "device_seconds": 0.0,
        "stages": (),
        "expert_names": (),
        "curve": (),
        "seed": {},
        "before": {},
        "after": {},
        "predicted": {},
        "files": {},
        "loads": {},
        "entropies": {},
        "dropped": {},
        "receipt": None,
        "model_params": None,
        "active_params": None,
        "model": "",
    }
    return Promotion(**known | found)


def upcycled(job: PromotionRun, plan: Stages, done: UpcycledStages, model: Path) -> Promotion:
    """A promotion of our stages whose model is upcycled, and lies in `model`."""
    return untrained(
        job,
        tokens=sum(stage.tokens for stage in done.stages),
        device_seconds=sum(stage.device_seconds for stage in done.stages),
        stages=done.stages,
        seed=done.seed,
        before=done.before,
        expert_names=plan.experts,
        receipt=done.receipt,
        model=_named(job, model),
        model_params=plan.model.total_params(),
        active_params=plan.model.active_params(),
    )


def trained(
    job: PromotionRun,
    before: Promotion,
    kind: tuple[str, str],
    result: TrialResult,
    predicted: Mapping[str, Predicted],
    model: Path,
    files: Mapping[str, Any],
) -> Promotion:
    """A promotion whose last training came to `result`.

    Args:
        job: the promotion.
        before: its record before that.
        kind: name and kind of that training, as of `Stage`.
        result: of that training.
        predicted: by metric, of a proxy on the promotion's mixture.
        model: folder of the trained model.
        files: by name, size and checksum of the files in it.
    """
    cost = result.cost
    stage = Stage(*kind, cost.tokens, cost.device_seconds, result.metrics)
    return dataclasses.replace(
        before,
        finished=_now(),
        tokens=before.tokens + cost.tokens,
        device_seconds=before.device_seconds + cost.device_seconds,
        stages=(*before.stages, stage),
        after=result.metrics,
        predicted=predicted,
        loads={domain: tuple(load) for domain, load in result.loads.items()},
        entropies=result.entropies,
        dropped=result.dropped,
        curve=tuple(result.curve),
        files=files,
        model=_named(job, model),
    )


def _named(job: PromotionRun, model: Path) -> str:
    """As records name a model's folder: a study's folder may move."""
    return str(model.relative_to(job.folder.parent))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
