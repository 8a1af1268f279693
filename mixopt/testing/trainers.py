"""What every trainer must do, as tests: subclass `TrainerConformance` and set `trainer`.

Example:
    >>> class TestMyTrainer(TrainerConformance):
    ...     trainer = {"command": "python train.py {job}"}
    ...     folder = Path("my_study")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.core.trials import Fidelity, Outcome, TrialResult
from mixopt.trainers.base import make_trainer
from mixopt.trainers.job import Domain, TrainingJob
from mixopt.trainers.run import Progress, run_training


class Interrupted(BaseException):
    """Ends a training in the middle, as a killed driver does."""


class TrainerConformance:
    """Tests that pytest collects in a subclass. Keep the job short: it runs several times.

    Attributes:
        trainer: what `trainer:` of a study file holds.
        folder: of that study file.
        tolerance: how far metrics of equal jobs may be apart; 0 where all is deterministic.
        timeout: seconds that one training may take.
    """

    trainer: str | Mapping[str, Any] = ""
    folder: Path = Path()
    tolerance: float = 0.0
    timeout: float = 600.0

    def job(self, folder: Path) -> TrainingJob:
        """A short job in `folder`; override it with domains, tokens, metrics of your own."""
        return TrainingJob(
            study="conformance",
            trial="0",
            mixture={"code": 0.25, "web": 0.75},
            tokens=1000,
            seed=0,
            fidelity=Fidelity("proxy", 0, 1000),
            folder=str(folder),
            metrics=("loss",),
            domains={"code": Domain(1000), "web": Domain(3000)},
            settings=make_trainer(self.trainer, self.folder).settings,
        )

    def outcome(self, job: TrainingJob, interrupt: bool = False) -> Outcome:
        """What becomes of one attempt at `job`, interrupted at its first report if asked for."""
        self.reports: list[Progress] = []

        def report(progress: Progress) -> None:
            self.reports.append(progress)
            if interrupt:
                raise Interrupted

        trainer = make_trainer(self.trainer, self.folder)
        return run_training(trainer, job, report=report, timeout=self.timeout)

    def result(self, job: TrainingJob) -> TrialResult:
        """The result of one attempt at `job`."""
        outcome = self.outcome(job)
        assert outcome.result is not None, outcome.message
        return outcome.result

    def test_it_reports_on_the_way_and_ends_with_all_metrics(self, tmp_path: Path) -> None:
        """At least once, tokens never going back, and it leaves no process behind."""
        job = self.job(tmp_path)
        result = self.result(job)
        assert set(job.metrics) <= set(result.metrics)
        tokens = [progress.tokens for progress in self.reports]
        assert tokens
        assert tokens == sorted(tokens)
        assert [p.note for p in self.reports if "processes; they were ended" in p.note] == []

    def test_equal_jobs_give_equal_metrics_and_mixtures_matter(self, tmp_path: Path) -> None:
        """Within `tolerance`; the mixture turned round gives others."""
        first = self.result(self.job(tmp_path / "first")).metrics
        again = self.result(self.job(tmp_path / "again")).metrics
        job = self.job(tmp_path / "other")
        turned = dict(zip(job.mixture, reversed(list(job.mixture.values())), strict=True))
        other = self.result(dataclasses.replace(job, mixture=turned)).metrics
        assert self.distance(first, again) <= self.tolerance
        assert self.distance(first, other) > self.tolerance

    def test_a_killed_training_goes_on_to_the_same_end(self, tmp_path: Path) -> None:
        """From its checkpoint or anew, in the same folder."""
        whole = self.result(self.job(tmp_path / "whole")).metrics
        job = self.job(tmp_path / "killed")
        try:
            self.outcome(job, interrupt=True)
        except Interrupted:
            pass
        else:
            raise AssertionError("it ended without a report")
        assert self.distance(whole, self.result(job).metrics) <= self.tolerance

    def distance(self, one: Mapping[str, float], other: Mapping[str, float]) -> float:
        """The largest difference of a metric."""
        assert set(one) == set(other)
        return max(abs(one[name] - other[name]) for name in one)
