"""The full run of a promotion that is trained elsewhere: handed out by `ask`, told by `tell`.

    promote: {trainer: elsewhere, tokens: 100B}

Its folder has the files of any full run: `job.json` once it is handed out, and the completion
marker once it is told. The checkpoint stays where it is; `checkpoint.json` says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Cost, Outcome, TrialResult
from mixopt.io import files, markers
from mixopt.pipelines.study.own_promotion import (
    FULL_RUN,
    PROMOTION,
    full_run_folder,
    full_run_job,
    full_run_trainer,
    promotion_of,
)
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.trials import TrialsWait
from mixopt.pipelines.views.commands import command
from mixopt.selection.results import Predicted
from mixopt.study.results import Promotion
from mixopt.trainers.job import JOB, RESULT, TrainingJob
from mixopt.trainers.result import CHECKPOINT
from mixopt.workers.proxy_task import Home

POINTER = "checkpoint.json"  # beside the marker: where the checkpoint is
LOCATION = "checkpoint location"  # key of a result's environment


class FullRunWaits(TrialsWait):
    """The full run is trained elsewhere, and its result is not told yet.

    Attributes:
        job: the promotion.
        handed_out: whether `mixopt ask` has named it.
    """

    def __init__(self, job: PromotionRun) -> None:
        self.job = job
        study = job.session.study.path
        super().__init__(FULL_RUN, [], study)
        self.handed_out = (full_run_folder(job) / JOB).exists()
        now = "is handed out and not told yet" if self.handed_out else "waits to be handed out"
        self.what = f"the full run of the {job.method} mixture {now}"
        self.hint = f"`{command('ask', study)}` hands it out, `mixopt tell` takes its result"

    @property
    def asked(self) -> TrainingJob:
        """What is to be trained."""
        session, settings = self.job.session, self.job.settings
        return full_run_job(self.job, 0.0, full_run_trainer(session.study, settings))


def told_full_run(
    job: PromotionRun, predicted: Mapping[str, Predicted], upcycled: Promotion | None = None
) -> Promotion:
    """The full run that was told; arguments as of `own_promotion.train_full_run`.

    Raises:
        FullRunWaits: it is not told yet.
        TrainingError: it was told to have failed.
    """
    outcome = told_outcome(job)
    if outcome is None:
        raise FullRunWaits(job)
    if outcome.result is None:
        study = job.session.study.path
        raise TrainingError(
            f"it was told to have failed: {outcome.failure} {outcome.message}".rstrip(),
            where=f"promotion, {FULL_RUN}",
            hint="Train it once more, and tell its result in place of that: "
            f"`{command('tell', study, 'results.csv', '--replace')}`",
        )
    location = outcome.result.environment[LOCATION]
    return promotion_of(job, outcome.result, predicted, location, upcycled)


def told_outcome(job: PromotionRun) -> Outcome | None:
    """What was told of the full run; None before."""
    return Home(str(full_run_folder(job)), job.folder.name).outcome()


def hand_out(waits: FullRunWaits) -> None:
    """Keep that the full run is handed out."""
    Path(waits.asked.folder).mkdir(parents=True, exist_ok=True)
    waits.asked.write()


def record_full_run(job: PromotionRun, outcome: Outcome, before: Outcome | None) -> None:
    """Keep what was told of the full run; what was told before stays beside it.

    The promotion's record of what was told before goes: it is made anew.
    """
    folder = full_run_folder(job)
    record: dict[str, Any] = {"identity": job.folder.name, "outcomes": [outcome.to_json()]}
    if before is not None:
        earlier = (markers.read_alone(folder) or {}).get("replaced", [])
        record["replaced"] = [*earlier, before.to_json()]
    if outcome.result is not None:
        files.write_json(folder / POINTER, {CHECKPOINT: outcome.result.environment[LOCATION]})
    markers.write(folder, record)
    (job.folder / RESULT).unlink(missing_ok=True)


def full_run_result(tokens: int, metrics: Mapping[str, float], checkpoint: str) -> TrialResult:
    """The result of a full run with these metrics, whose checkpoint is at `checkpoint`."""
    environment = {CHECKPOINT: POINTER, LOCATION: checkpoint}
    return TrialResult(dict(metrics), (), Cost(tokens=tokens), environment=environment)


def asked_row(waits: FullRunWaits) -> dict[str, Any]:
    """The row of the table that `ask` writes; its last column is to be filled in."""
    asked = waits.asked
    return {
        "trial": PROMOTION,
        "role": asked.role,
        "candidate": waits.job.method,
        "seed": asked.seed,
        "tokens": asked.tokens,
        **{f"mixture.{name}": weight for name, weight in asked.mixture.items()},
        **({} if asked.initial_model is None else {"initial_model": asked.initial_model}),
        "checkpoint": "",
    }
