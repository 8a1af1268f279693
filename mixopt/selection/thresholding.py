"""Which mixtures beat the baseline: a thresholding bandit over fresh seeds.

Selection asks for the best candidate, this for the set of candidates beyond a threshold: runs go to
the mixtures of which it is hardest to say. Not a rule of the gate: the clear winner, which the gate
has to be surest of, is what APT runs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Fidelity, Role, Trial, TrialSpec
from mixopt.selection.candidates import NATURAL
from mixopt.selection.reports import reports
from mixopt.selection.results import Candidate
from mixopt.selection.runs import Selection

FIRST = 2  # pulls of every candidate before any is preferred: one gives no deviation


def apt_index(
    counts: np.ndarray, means: np.ndarray, threshold: float = 0.0, epsilon: float = 0.0
) -> np.ndarray:
    """(k,) sqrt(T) (|mean - threshold| + epsilon): APT (1605.08671) pulls where it is least.

    Args:
        counts: (k,) pulls so far, T.
        means: (k,) mean of each arm's pulls.
        threshold: which the arms are compared with.
        epsilon: half the width around the threshold in which either answer is right.
    """
    return np.asarray(np.sqrt(counts) * (np.abs(means - threshold) + epsilon))


@dataclass(frozen=True)
class Beating:
    """Which mixtures beat the baseline.

    Attributes:
        beating: names of the candidates whose mean difference to the baseline is at most -margin,
            best first.
        candidates: what the runs say of each candidate, the baseline among them.
    """

    beating: tuple[str, ...]
    candidates: Mapping[str, Candidate]


@dataclass(frozen=True)
class Thresholding:
    """Runs the mixtures of which it is hardest to say whether they beat the baseline, then says.

    Anytime Parameter-free Thresholding (1605.08671). A candidate is an arm, and a pull its
    difference to the baseline on one seed: it costs one run, and another one of the baseline where
    its seed is new. Like `Selection` it has no state: everything follows from the trials in the
    ledger. The candidate that is decided most clearly is run least, and means of candidates that
    were run by their own results are a little too far from the baseline: for a promotion use
    `Selection`, with other seeds.

    Attributes:
        candidates: mixture by name; must hold `baseline`.
        fidelity: at which they are run.
        objective: lower is better.
        seeds: fresh ones, used in this order by every candidate.
        budget: runs in all, the baseline's included.
        margin: by how much a candidate must be better to count as beating the baseline.
        epsilon: half the width around the margin in which either answer is right.
        batch: pulls decided at a time, to be run side by side; 1 is APT itself.
        round: of the specs.
        baseline: name of the candidate that the others are compared with.

    Raises:
        StudyError: the baseline is no candidate or there is no other, too few seeds, or a budget
            that does not run every candidate twice.
    """

    candidates: Mapping[str, Mixture]
    fidelity: Fidelity
    objective: Objective
    seeds: Sequence[int]
    budget: int
    margin: float = 0.0
    epsilon: float = 0.0
    batch: int = 1
    round: int = 0
    baseline: str = NATURAL

    def __post_init__(self) -> None:
        least = FIRST * len(self._runs.candidates)
        if len(self.candidates) < 2:
            raise StudyError(
                f"there is nothing to compare {self.baseline} with", where="candidates"
            )
        if self.budget < least:
            raise StudyError(
                f"{self.budget} runs do not run each of {len(self.candidates)} mixtures "
                f"{FIRST} times",
                where="budget",
                hint=f"Allow at least {least}",
            )
        if self.batch < 1 or self.epsilon < 0:
            raise StudyError("batch must be at least 1, epsilon at least 0", where="thresholding")

    def next_pulls(self, trials: Sequence[Trial]) -> list[TrialSpec]:
        """The runs to start now; empty while a batch is still running, and at the end.

        Args:
            trials: of the ledger; those of other roles or candidates are ignored. A failed run
                counts as pulled; a candidate all of whose runs failed does not beat the baseline
                and is left alone.
        """
        known = self._runs.pulls(trials)
        asked = {(t.spec.candidate, t.spec.seed) for t in known}
        ended = {(t.spec.candidate, t.spec.seed) for t in known if t.ended}
        values = self._runs.values(trials)
        names = [name for name in self.candidates if name != self.baseline]
        counts = np.zeros(len(names), dtype=int)
        means = np.zeros(len(names))
        planned: set[tuple[str, int]] = set()
        while batch := self._next_batch(names, counts, means, planned):
            if not set(batch) <= ended:
                return [
                    TrialSpec(
                        self.candidates[name], self.fidelity, seed, Role.SELECT, self.round, name
                    )
                    for name, seed in batch
                    if (name, seed) not in asked
                ]
            planned |= set(batch)
            for i, name in enumerate(names):
                counts[i] = sum((name, seed) in planned for seed in self.seeds)
                gaps = [
                    values[name][seed] - values[self.baseline][seed]
                    for seed in self.seeds[: counts[i]]
                    if seed in values[name] and seed in values[self.baseline]
                ]
                means[i] = np.mean(gaps) if gaps else np.inf
        return []

    def done(self, trials: Sequence[Trial]) -> bool:
        """Whether every run has ended, so that `verdict` is final."""
        return all(t.ended for t in self._runs.pulls(trials)) and not self.next_pulls(trials)

    def verdict(self, trials: Sequence[Trial]) -> Beating:
        """The candidates that beat the baseline by `margin`, by the runs so far."""
        candidates = reports(self._runs, trials)
        better = {
            name: candidate.difference
            for name, candidate in candidates.items()
            if name != self.baseline
            and candidate.difference is not None
            and candidate.difference <= -self.margin
        }
        return Beating(tuple(sorted(better, key=better.__getitem__)), candidates)

    def _next_batch(
        self, names: list[str], counts: np.ndarray, means: np.ndarray, planned: set[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        """The next (candidate, seed) pairs given the means so far, as many as the budget allows."""
        counts = counts.copy()
        batch: list[tuple[str, int]] = []

        def pull(i: int) -> bool:
            seed = self.seeds[counts[i]]
            runs = [(names[i], seed)]
            if (self.baseline, seed) not in {*planned, *batch}:
                runs.insert(0, (self.baseline, seed))
            if len(planned) + len(batch) + len(runs) > self.budget:
                return False
            batch.extend(runs)
            counts[i] += 1
            return True

        if not planned:
            for i in [*range(len(names))] * FIRST:
                pull(i)
            return batch
        for _ in range(self.batch):
            index = apt_index(counts, means, -self.margin, self.epsilon)
            index[counts >= len(self.seeds)] = np.inf
            i = int(index.argmin())
            if not np.isfinite(index[i]) or not pull(i):
                break
        return batch

    @cached_property
    def _runs(self) -> Selection:
        return Selection(
            self.candidates,
            self.fidelity,
            self.objective,
            self.seeds,
            round=self.round,
            baseline=self.baseline,
        )
