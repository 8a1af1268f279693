"""One attempt at a training: the trainer started, followed, pruned, ended; its outcome.

    job.json ──► supervisor ──► command ──► progress.jsonl ──► curve.jsonl, limits, reports
                                        └─► result.json ──► outcome

The folder holds besides:

    output-1.log      what the command wrote to its outputs, a file per attempt
    attempts.json     how many attempts there were, and what they spent
    trainer.lock      held as long as a process of an attempt lives
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mixopt
from mixopt.core.trials import Cost, CurvePoint, Failure, Limits, Outcome, TrialResult
from mixopt.io import locks
from mixopt.trainers import result as results
from mixopt.trainers.attempts import Attempts
from mixopt.trainers.base import Trainer
from mixopt.trainers.command import JOB_VARIABLE
from mixopt.trainers.failures import TrainerError, broken, ending, failure_of, last_lines
from mixopt.trainers.job import PROGRESS, RESULT, TrainingJob
from mixopt.trainers.progress import Curve, Follower, Report
from mixopt.trainers.supervised import Supervised
from mixopt.trainers.supervisor import LOCK

READ_AGAIN = (
    "The training has ended. Correct its files by hand, and the same command reads them again and "
    "trains nothing"
)
TRAIN_AGAIN = "; to train again, remove result.json"
PATIENCE_SECONDS = 120.0  # for the last process of an earlier attempt to go


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        tokens: trained so far.
        tokens_per_second: since the report before.
        phase: `training` or `evaluation`.
        note: what whoever runs the study should know; nearly always empty.
    """

    tokens: int
    tokens_per_second: float
    phase: str
    note: str = ""


def run_training(
    trainer: Trainer,
    job: TrainingJob,
    *,
    limits: Limits | None = None,
    timeout: float | None = None,
    heartbeat: float | None = None,
    grace: float = 10.0,
    report: Callable[[Progress], None] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Outcome:
    """Run one attempt at `job`; its result, or that it diverged or was pruned.

    Called again on the same folder it tells the trainer to resume. But where its command ended with
    exit code 0 and left a `result.json` that was refused, that is read again and nothing is
    trained: a person may have corrected it. Whoever calls holds the folder: two attempts at once
    would write the same files. When this returns or raises, no process of the
    attempt is left. `resume`, `attempt` and `memory_failures` of the job are filled in here.

    Args:
        trainer: what trains.
        job: what is trained, and where.
        limits: beyond which it is pruned; its steps are numbers of tokens.
        timeout: seconds that the attempt may take.
        heartbeat: seconds that it may be silent: no line of progress, no output.
        grace: seconds between SIGTERM and SIGKILL.
        report: called for each line of progress; what it raises ends the training (resumable).
        patience: seconds to wait until an earlier attempt is gone.

    Raises:
        TrainerError: the attempt failed, for another reason than that the training diverged.
        LedgerError: processes of an earlier attempt do not end.
        CheckpointError: the folder holds another training.
        StudyError: a file of the trainer is not there.
    """
    folder = Path(job.folder)
    if job.trainer and job.trainer != trainer.digest():
        raise TrainerError(
            Failure.CRASHED,
            "the trainer's files are not those with which the study began",
            where=str(trainer.folder),
            hint="Put them back, or give the study another name: other files are other trainings",
        )
    with locks.hold(folder / LOCK, f"training {job.trial}", patience=patience):
        record = Attempts.read(folder, job.identity)
        curve = Curve.open(folder, job.metrics)
        corrected = record.refused and (folder / RESULT).exists()
        if not corrected:
            _remove(folder / PROGRESS, folder / RESULT)
        curve.write()
    attempt = _Attempt(trainer, job, limits, curve, record, report)
    if (outcome := attempt.pruned()) is not None:
        return outcome
    return attempt.read_again() if corrected else attempt.run(timeout, heartbeat, grace)


class _Attempt:
    """A training from the start of its command to its outcome."""

    def __init__(
        self,
        trainer: Trainer,
        job: TrainingJob,
        limits: Limits | None,
        curve: Curve,
        record: Attempts,
        report: Callable[[Progress], None] | None,
    ) -> None:
        self.trainer, self.limits, self.curve, self.record = trainer, limits, curve, record
        self.report = report
        self.folder = Path(job.folder)
        self.seconds_before = max(record.seconds, curve.seconds)
        self.job = dataclasses.replace(
            job,
            resume=record.attempts > 0,
            attempt=record.attempts + 1,
            memory_failures=record.memory_failures,
        )
        self.output = self.folder / f"output-{self.job.attempt}.log"
        self.follower = Follower(self.folder / PROGRESS, job.metrics)
        self.started = self.heard = self.spoke = time.monotonic()
        self.tokens = curve.points[-1].tokens if curve.points else 0  # at the last report
        self.written = 0  # bytes of output when it was last heard
        self.outcome: Outcome | None = None  # where it is known before the end

    @property
    def seconds(self) -> float:
        """Spent on this training, earlier attempts included."""
        return self.seconds_before + time.monotonic() - self.started

    def pruned(self) -> Outcome | None:
        """The outcome, if an evaluation of an earlier attempt was beyond the limits."""
        found = (self._pruned_at(point) for point in self.curve.points)
        return next((outcome for outcome in found if outcome is not None), None)

    def _pruned_at(self, point: CurvePoint) -> Outcome | None:
        why = None if self.limits is None else self.limits.hopeless(point)
        if self.limits is None or why is None:
            return None
        points = [p for p in self.curve.points if p.tokens <= point.tokens]
        result = self._result(points, point.tokens, point.seconds)
        result = dataclasses.replace(result, expected=self.limits.expected(point))
        return Outcome(result, message=why, pruned=True)

    def run(self, timeout: float | None, heartbeat: float | None, grace: float) -> Outcome:
        """Start the command, follow it, end it."""
        self.record.attempts += 1
        self.record.refused = False
        self.record.write()
        job_file = self.job.write()
        try:
            with self._supervised(job_file, grace) as told:
                for _ in told.looks():
                    self._look(told, timeout, heartbeat)
                    if self.outcome is not None:
                        return self.outcome
            return self._ended(told.last)
        except TrainerError as error:
            self.record.memory_failures += error.failure is Failure.OUT_OF_MEMORY
            raise
        finally:
            self.record.seconds = self.seconds
            self.record.write()

    @contextlib.contextmanager
    def _supervised(self, job_file: Path, grace: float) -> Iterator[Supervised]:
        """The command running; none of its processes is left when the block ends."""
        # -P: a file of the study's folder cannot stand in for a module of mixopt or of Python
        supervisor = [sys.executable, "-P", "-m", "mixopt.trainers.supervisor"]
        options = ["--folder", str(self.folder), "--grace", str(grace), "--patience", "10"]
        with self.output.open("wb") as output:
            try:
                process = subprocess.Popen(
                    [*supervisor, *options, "--", *self.trainer.argv(job_file)],
                    cwd=self.trainer.folder,
                    env=self._environment(job_file),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for the driver, which then ends this
                )
            except OSError as error:
                raise TrainerError(
                    Failure.CRASHED,
                    f"nothing can be started there: {error.strerror}",
                    where=str(self.trainer.folder),
                    hint="The study file's folder must be there on every node",
                ) from error
        told = Supervised(process, grace)
        try:
            yield told
        finally:
            told.end()

    def _environment(self, job_file: Path) -> dict[str, str]:
        defaults = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(self.job.threads)}
        return {**defaults, **os.environ, JOB_VARIABLE: str(job_file)}

    def _look(self, told: Supervised, timeout: float | None, heartbeat: float | None) -> None:
        """Take up what there is to read; know the outcome, or raise, where the training ends."""
        now = time.monotonic()
        if told.starting:
            self.started = self.heard = self.spoke = now
            return
        for report in self.follower.new():
            self._take(report)
            if self.outcome is not None:
                return
        written = self.output.stat().st_size
        if written != self.written:
            self.written, self.heard = written, now
        if told.ended:  # what it left is being ended
            return
        if timeout is not None and now - self.started > timeout:
            raise self._too_long(f"it took longer than {timeout:g} seconds")
        if heartbeat is not None and now - self.heard > heartbeat:
            raise self._too_long(f"no line of progress and no output for {heartbeat:g} seconds")

    def _too_long(self, what: str) -> TrainerError:
        return TrainerError(
            Failure.WORKER_LOST,
            f"{what}, and was ended",
            where=str(self.output),
            hint="Its last output is there",
        )

    def _take(self, report: Report) -> None:
        """Take up a line of progress."""
        now = self.heard = time.monotonic()
        self._diverged(report)
        if self.outcome is not None:
            return
        point = self.curve.add(report, self.seconds)
        speed = (report.tokens - self.tokens) / max(now - self.spoke, 1e-9)
        self.tokens, self.spoke = report.tokens, now
        if self.report is not None:
            phase = "training" if point is None else "evaluation"
            self.report(Progress(report.tokens, speed, phase, report.note))
        if point is not None:
            self.outcome = self._pruned_at(point)

    def _diverged(self, report: Report) -> None:
        """Know the outcome, if a line of progress says that the training diverged."""
        if report.diverged:
            names = ", ".join(report.diverged)
            message = f"{names} was not finite at {report.tokens:,} tokens"
            self.outcome = Outcome(None, Failure.DIVERGED, message)

    def _ended(self, last: dict[str, Any]) -> Outcome:
        """The outcome of a command that ended by itself."""
        if "held" in last:
            raise TrainerError(Failure.WORKER_LOST, last["held"])
        if "cannot_start" in last:
            raise TrainerError(
                Failure.CRASHED,
                f"the command cannot be started: {last['cannot_start']}",
                where="trainer.command",
                hint="Install it on every node, or correct the study file",
            )
        if "code" not in last:
            lines = last_lines(self.output)
            raise TrainerError(
                Failure.WORKER_LOST, f"its supervisor was killed\n{lines}", where=str(self.output)
            )
        code = int(last["code"])
        if last.get("left") and self.report is not None:
            note = f"the command of {self.job.trial} left {last['left']} processes; they were ended"
            self.report(Progress(self.follower.tokens, 0.0, "training", note))
        return self._accepted(code, self._take)

    def read_again(self) -> Outcome:
        """The outcome by the files of an attempt that ended, as they are now.

        Raises:
            TrainerError: they are refused again.
        """
        try:
            return self._accepted(0, self._diverged)
        finally:
            self.record.write()

    def _accepted(self, code: int, take: Callable[[Report], None]) -> Outcome:
        """The outcome of a command that ended with `code`; whether its files were refused is kept.

        Args:
            code: exit code.
            take: takes up what is left of the progress.
        """
        try:
            for report in self.follower.new(ended=code == 0):
                take(report)
                if self.outcome is not None:
                    return self.outcome
            outcome = self._judged(code)
        except TrainerError as error:
            if code == 0 and error.failure is Failure.BROKEN_CONTRACT:
                self.record.refused = True
                also = READ_AGAIN + (TRAIN_AGAIN if (self.folder / RESULT).exists() else "")
                raise broken(error.what, error.where, f"{error.hint}. {also}") from error
            raise
        self.record.refused = code == 0 and outcome.failure is Failure.DIVERGED
        return outcome

    def _judged(self, code: int) -> Outcome:
        """The outcome by exit code and `result.json`."""
        try:
            values = results.read(self.job)
        except TrainerError:
            if code == 0:
                raise
            values = None  # it crashed while it wrote
        told = None if values is None else results.told_failure(values, self.job)
        if told is not None:
            failure, message = told
            if failure is Failure.DIVERGED:
                return Outcome(None, failure, message)
            raise TrainerError(failure, message, where=str(self.output))
        if code != 0:
            lines = last_lines(self.output)
            raise TrainerError(
                failure_of(code, lines),
                f"{ending(code)}. The last lines of its output:\n{lines}",
                where=str(self.output),
            )
        if values is None:
            raise broken(
                "is not there, and the command ended with exit code 0",
                str(self.folder / RESULT),
                "Write it before the end, or end with another exit code",
            )
        return self._measured(results.check(values, self.job))

    def _measured(self, checked: results.Checked) -> Outcome:
        if self.follower.tokens > results.most_tokens(checked.values, self.job):
            raise broken(
                f"tells {self.follower.tokens:,} tokens; the job has {self.job.tokens:,}",
                str(self.follower.path),
                "Train on `tokens` of job.json; whole batches may differ: say `batch_tokens`",
            )
        if checked.diverged:
            names = ", ".join(checked.diverged)
            return Outcome(None, Failure.DIVERGED, f"{names} was not finite at the end")
        points = self.curve.points
        tokens = max([checked.tokens, *(point.tokens for point in points)])
        on_the_way = points[-1].metrics if points and points[-1].tokens == tokens else {}
        if on_the_way == checked.metrics:
            on_the_way = {}
        self.curve.end(CurvePoint(tokens, tokens, checked.metrics, self.seconds, on_the_way))
        result = self._result(self.curve.points, tokens, self.seconds)
        flops, device_seconds = checked.number("flops"), checked.number("device_seconds")
        cost = result.cost
        environment = {**result.environment, "verified": ", ".join(checked.verified)}
        if checked.values.get(results.CHECKPOINT):
            environment[results.CHECKPOINT] = checked.values[results.CHECKPOINT]
        result = dataclasses.replace(
            result,
            cost=Cost(
                tokens,
                cost.device_seconds if device_seconds is None else device_seconds,
                cost.flops if flops is None else flops,
            ),
            environment={**(checked.values.get("environment") or {}), **environment},
            loads={n: tuple(v) for n, v in (checked.values.get("loads") or {}).items()},
            entropies=checked.by_domain("entropies"),
            dropped=checked.by_domain("dropped"),
        )
        return Outcome(result)

    def _result(self, points: list[CurvePoint], tokens: int, seconds: float) -> TrialResult:
        """The result that ends with the last of `points`, its cost as far as mixopt knows it."""
        params = self.job.fidelity.params
        flops = 6.0 * params * tokens if params > 1 else 0.0  # forward and backward (2001.08361)
        return TrialResult(
            metrics=dict(points[-1].metrics),
            curve=tuple(points),
            cost=Cost(tokens, seconds * max(1.0, self.job.gpus), flops),
            environment={
                "mixopt": mixopt.__version__,
                "trainer": self.trainer.digest(),
                "threads": str(self.job.threads),
            },
        )


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
