"""The trainings of a promotion on the cluster; each ends once, or fails the promotion for good."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.core.errors import TrainingError
from mixopt.core.trials import Outcome, TrialResult
from mixopt.pipelines.study.full_run_watch import FullRunWatch
from mixopt.pipelines.study.promotion_room import full_run_resources
from mixopt.pipelines.study.promotion_stages import UPCYCLED
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.training import Training, train
from mixopt.pipelines.views.time_left import FULL_RUN
from mixopt.workers.cluster import Resources
from mixopt.workers.full_job import FullJob
from mixopt.workers.promotion_job import Upcycling, upcycle_on_cluster, upcycled
from mixopt.workers.proxy_task import Work, finished

if TYPE_CHECKING:
    from mixopt.workers import driver


SHOWN_SECONDS = 10.0  # between two looks that MLflow is given at a training
ENDS = (UPCYCLED, FULL_RUN)  # trainings that a promotion ends with, ours or another's


class StageTraining(Training):
    """A stage's training; what has ended already comes from its completion marker.

    Args:
        session: of the study.
        work: of the stage.
        flops: of the whole training, for the bar.
        advice: what to do where it diverged.
        before: as of `FullRunWatch`.
    """

    def __init__(
        self,
        session: Session,
        work: Work,
        flops: float,
        advice: str,
        before: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(work, work.key, tokens=work.job.tokens, proxies=1, bars={work.key: flops})
        self.flops, self._advice, self._display = flops, advice, session.display
        self._tracker, self._shown = session.tracker, 0.0
        ended = finished(work)
        self.outcome: Outcome | None = ended[0] if ended else None
        watched = work.key in ENDS and self.outcome is None
        self._watch = FullRunWatch(session, work, before) if watched else None

    def progressed(self) -> None:
        """Show it in MLflow, once in a while."""
        if time.monotonic() - self._shown >= SHOWN_SECONDS:
            self._shown = time.monotonic()
            self._look()
            self._tracker.live_promotion(Path(self.work.folder).parent)

    def _look(self) -> None:
        """Look at the evaluations of the run that the promotion ends with."""
        if self._watch is not None:
            self._watch.look()

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Keep the outcome."""
        (self.outcome,) = outcomes
        self._look()

    def failed(self, event: driver.Failed) -> None:
        """Say so.

        Raises:
            TrainingError: the driver does not try again.
        """
        why = (event.message.splitlines() or [""])[0][:200].rstrip(".")
        again = "" if event.final else "; it is tried again from its last checkpoint"
        self._display.warn(f"{self.label}: {event.failure}{': ' if why else ''}{why}{again}")
        if event.final:
            raise TrainingError(
                f"failed for good: {event.message}",
                where=f"promotion, {self.label}",
                hint="Remove the cause and run the same command again",
            )

    @property
    def result(self) -> TrialResult:
        """What the stage measured.

        Raises:
            TrainingError: it has no result, such as a training that diverged.
        """
        assert self.outcome is not None  # asked for once it has ended
        if self.outcome.result is None:
            raise TrainingError(
                f"{self.outcome.failure}: {self.outcome.message}",
                where=f"promotion, {self.label}",
                hint=self._advice,
            )
        return self.outcome.result


def train_stages(
    session: Session, label: str, stages: Sequence[StageTraining], resources: Resources
) -> list[TrialResult]:
    """Train `stages` on the cluster, except those that have ended; the results of all.

    Raises:
        TrainingError: one failed for good.
    """
    todo = [stage for stage in stages if stage.outcome is None]
    if todo:
        session.connect()
    ended = {stage.label: stage.flops for stage in stages if stage.outcome is not None}
    total = sum(stage.flops for stage in stages)
    with session.display.phase(label, total, len(stages), ended, FULL_RUN):
        train(todo, resources, session.display)
    return [stage.result for stage in stages]


@dataclass(frozen=True)
class ClusterMachine:
    """Runs a promotion's parts on the cluster of a study.

    Attributes:
        session: of the study.
    """

    session: Session

    def train(self, label: str, works: Sequence[Work]) -> list[TrialResult]:
        """Train `works`, except those that have ended; see `train_stages`."""
        session, stages = self.session, []
        for work in works:
            assert isinstance(work.job, FullJob)  # stages are ours
            model, tokens = work.job.job.model, work.job.tokens
            stages.append(
                StageTraining(
                    *(session, work, session.flops(model, tokens)),
                    advice="Lower promote.recipe.learning_rate; what was trained before it is kept",
                )
            )
        return train_stages(session, label, stages, full_run_resources(session.study))

    def upcycle(self, ask: Upcycling) -> dict[str, Any]:
        """Upcycle on a worker unless it is done; see `promotion_job.upcycle_on_cluster`."""
        if (done := upcycled(ask)) is not None:
            return done
        session = self.session
        session.connect()
        made_of = f"{len(ask.expert_models)} experts" if ask.expert_models else "the seed"
        session.display.say(f"upcycling {made_of}: {ask.method.upcycler}")
        return upcycle_on_cluster(ask, full_run_resources(session.study), session.display.warn)
