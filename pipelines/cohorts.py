"""Which trials train together: packed once, remembered in the study folder until they are done.

    cohorts/0004-0007/cohort.json     its trials; beside it the checkpoint that they share
    trials/0004/                      curve and completion marker of each, as if it trained alone

Rows of a cohort equal separate trainings only within rounding, and share a checkpoint. So who
trains with whom is written down before the first step, and a study that goes on after a kill
goes on with the same cohorts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from mixopt import files
from mixopt.records import CHECKPOINT, COHORT, cohort_folder, read_cohorts, trial_folder
from mixopt.trials import Trial
from workers.proxy_task import Work, finished, join


@dataclass(frozen=True)
class Cohort:
    """Trials that train as one, and the work that trains them.

    Attributes:
        trials: in the order of the work's proxies; some may have ended in an earlier life.
        work: what a worker is given.
    """

    trials: tuple[Trial, ...]
    work: Work

    @property
    def pending(self) -> tuple[int, ...]:
        """Numbers of the trials that wait for their outcome."""
        return tuple(trial.number for trial in self.trials if not trial.ended)


class Packing:
    """Packs the trials of one study.

    Args:
        home: the study folder.
        work: from a trial to its training alone.
        trial: from a number to the trial, also one that has ended.
    """

    def __init__(
        self, home: Path, work: Callable[[Trial], Work], trial: Callable[[int], Trial]
    ) -> None:
        self.home, self._work, self._trial = home, work, trial

    def form(self, trials: Sequence[Trial], most: int, slots: int = 1) -> list[Cohort]:
        """The cohorts of all `trials`, none of which has ended: those begun, then new ones.

        Args:
            trials: what is to be trained.
            most: largest cohort.
            slots: trainings that run at once. Cohorts are so small that all are busy.
        """
        free = {t.number: t for t in trials}
        begun: list[Cohort] = []
        for folder, numbers in read_cohorts(self.home).items():
            if free.keys().isdisjoint(numbers):
                continue
            cohort = self._cohort([free.get(n) or self._trial(n) for n in numbers])
            if self._goes_on(cohort, free.keys() >= set(numbers) and len(numbers) <= most):
                begun.append(cohort)
                for number in numbers:
                    free.pop(number, None)
            else:
                (folder / COHORT).unlink()
        alone = [t for t in free.values() if self._began_alone(t)]
        fresh = [t for t in free.values() if t not in alone]
        packed = [self._remembered(group) for group in self._packed(fresh, most, slots)]
        return [*begun, *(self._cohort([t]) for t in alone), *packed]

    def halve(self, cohort: Cohort) -> list[Cohort]:
        """Two cohorts of the trials of one that is too large; they begin anew."""
        (Path(cohort.work.folder) / COHORT).unlink()
        pending = [t for t in cohort.trials if not t.ended]
        middle = -(-len(pending) // 2)
        return [self._remembered(half) for half in (pending[:middle], pending[middle:]) if half]

    def _cohort(self, trials: Sequence[Trial]) -> Cohort:
        folder = cohort_folder(self.home, [t.number for t in trials])
        return Cohort(tuple(trials), join([self._work(t) for t in trials], folder))

    def _remembered(self, trials: Sequence[Trial]) -> Cohort:
        cohort = self._cohort(trials)
        if len(trials) > 1:
            folder = Path(cohort.work.folder)
            # one of that name may have trained others, before somebody changed the study's cohort
            (folder / CHECKPOINT).unlink(missing_ok=True)
            files.write_json(folder / COHORT, {"trials": [t.number for t in trials]})
        return cohort

    def _packed(self, trials: Sequence[Trial], most: int, slots: int) -> list[Sequence[Trial]]:
        kinds: dict[str, list[Trial]] = {}
        for trial in trials:
            kind = self._work(trial).shared() if most > 1 else ""
            kinds.setdefault(kind, []).append(trial)
        return [
            alike[start:end]
            for alike in kinds.values()
            for start, end in pairwise(accumulate(sizes(len(alike), most, slots), initial=0))
        ]

    def _goes_on(self, cohort: Cohort, whole: bool) -> bool:
        """Whether a remembered cohort is trained on: it holds steps or results, or is `whole`."""
        checkpoint = Path(cohort.work.folder) / CHECKPOINT
        return whole or checkpoint.exists() or finished(cohort.work) is not None

    def _began_alone(self, trial: Trial) -> bool:
        checkpoint = trial_folder(self.home, trial.number) / CHECKPOINT
        return checkpoint.exists() or finished(self._work(trial)) is not None


def sizes(trials: int, most: int, slots: int = 1) -> list[int]:
    """Sizes of the fewest equal cohorts of at most `most` that keep all `slots` busy.

    Their number is a multiple of the slots where there are trials enough: five cohorts on two
    slots take as long as six smaller ones.
    """
    if trials < 1:
        return []
    number = -(-trials // most)
    number = min(trials, -(-number // slots) * slots)
    return [trials // number + (i < trials % number) for i in range(number)]
