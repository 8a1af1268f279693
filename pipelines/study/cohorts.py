"""Which trials train together: packed once, when they are added, and kept in the ledger.

    cohorts/0004-0007/cohort.json     its trials; beside it the checkpoint that they share
    trials/0004/                      curve and completion marker of each, as if it trained alone

Rows of a cohort equal separate trainings only within rounding, and share a checkpoint. So who
trains with whom, alone too, is written down before the first step, and a study that goes on after a
kill goes on with the same cohorts, whatever the cluster is by then. `cohort.json` follows from the
ledger, for those who read the folder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from mixopt.core.trials import State, Trial
from mixopt.io import files
from mixopt.io.trial_files import CHECKPOINT, COHORT, cohort_folder, read_cohorts
from mixopt.study.ledger import Ledger
from mixopt.workers.proxy_task import Work, finished, join


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
        ledger: keeps who trains with whom.
    """

    def __init__(self, home: Path, work: Callable[[Trial], Work], ledger: Ledger) -> None:
        self.home, self._work, self._ledger = home, work, ledger

    def packed(
        self, trials: Sequence[Trial], most: int | None = None
    ) -> tuple[list[Cohort], list[Trial]]:
        """The cohorts that `trials` were packed in, and those of them that were not packed yet.

        A cohort goes on whole, though some of it have ended, for its rows round as one. Only those
        that a person gave up are left out, and the others begin anew.

        Args:
            trials: what is to be trained.
            most: a larger cohort without steps or results does not count, if given.
        """
        free = {t.number: t for t in trials}
        self._adopt(trials)
        cohorts: list[Cohort] = []
        for numbers in self._ledger.cohorts():
            if free.keys().isdisjoint(numbers):
                continue
            members = [free.get(n) or self._ledger.trial(n) for n in numbers]
            cohort = self._cohort(members)
            stay = [t for t in members if not self._given_up(t)]
            if len(stay) < len(members):
                self._forget(cohort)
                (cohort,) = self._remember([stay])
            if most is not None and len(stay) > most and not self._begun(cohort):
                self._forget(cohort)
                continue
            self._describe(cohort)
            cohorts.append(cohort)
            for number in numbers:
                free.pop(number, None)
        return cohorts, list(free.values())

    def form(self, trials: Sequence[Trial], most: int, slots: int = 1) -> list[Cohort]:
        """Pack `trials`, and write down who trains with whom.

        Args:
            trials: those that were not packed yet.
            most: largest cohort.
            slots: trainings that run at once. Cohorts are so small that all are busy.
        """
        return self._remember(self._grouped(trials, most, slots))

    def halve(self, cohort: Cohort) -> list[Cohort]:
        """Two cohorts of the trials of one that is too large; they begin anew."""
        self._forget(cohort)
        pending = [t for t in cohort.trials if not t.ended]
        middle = -(-len(pending) // 2)
        return self._remember([half for half in (pending[:middle], pending[middle:]) if half])

    def _cohort(self, trials: Sequence[Trial]) -> Cohort:
        folder = cohort_folder(self.home, [t.number for t in trials])
        return Cohort(tuple(trials), join([self._work(t) for t in trials], folder))

    def _remember(self, groups: Sequence[Sequence[Trial]]) -> list[Cohort]:
        cohorts = [self._cohort(group) for group in groups]
        for cohort in cohorts:
            if len(cohort.trials) > 1:
                # one of that name may have trained others, of which some were given up
                (Path(cohort.work.folder) / CHECKPOINT).unlink(missing_ok=True)
        self._ledger.pack([[t.number for t in group] for group in groups])
        for cohort in cohorts:
            self._describe(cohort)
        return cohorts

    def _forget(self, cohort: Cohort) -> None:
        """Take away what tells readers of the folder that its trials train together."""
        (Path(cohort.work.folder) / COHORT).unlink(missing_ok=True)

    def _describe(self, cohort: Cohort) -> None:
        if len(cohort.trials) > 1:
            numbers = [t.number for t in cohort.trials]
            files.keep_json(Path(cohort.work.folder) / COHORT, {"trials": numbers})

    def _grouped(self, trials: Sequence[Trial], most: int, slots: int) -> list[Sequence[Trial]]:
        kinds: list[tuple[Work, list[Trial]]] = []
        for trial in trials:
            work = self._work(trial)
            alike = next((ts for first, ts in kinds if most == 1 or first.joins(work)), None)
            if alike is None:
                kinds.append((work, [trial]))
            else:
                alike.append(trial)
        return [
            alike[start:end]
            for _, alike in kinds
            for start, end in pairwise(accumulate(sizes(len(alike), most, slots), initial=0))
        ]

    def _adopt(self, trials: Sequence[Trial]) -> None:
        """Take cohorts that only the folder knows into the ledger: a lost ledger begins anew."""
        packed = {n for cohort in self._ledger.cohorts() for n in cohort}
        loose = {t.number: t for t in trials if t.number not in packed}
        kept = [own for own in read_cohorts(self.home).values() if packed.isdisjoint(own)]
        begun = [own for own in kept if not loose.keys().isdisjoint(own)]
        together = {n for own in begun for n in own}
        alone = [
            [n] for n, t in loose.items() if n not in together and self._begun(self._cohort([t]))
        ]
        if begun or alone:
            self._ledger.pack([*begun, *alone])

    def _begun(self, cohort: Cohort) -> bool:
        """Whether it holds steps or results."""
        checkpoint = Path(cohort.work.folder) / CHECKPOINT
        return checkpoint.exists() or finished(cohort.work) is not None

    def _given_up(self, trial: Trial) -> bool:
        """Whether it failed by a person's word; what failed by its own training has a marker."""
        return trial.state is State.FAILED and finished(self._work(trial)) is None


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
