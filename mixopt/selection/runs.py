"""The runs of a selection: which finalists are run with which fresh seeds, under a fixed budget.

The finalist of a search looks better than it is, for it was picked among many by noisy numbers.
So finalists are run again with seeds that the search never used, and only these runs count.
Equal seeds share initialization and data order, so that mixtures are compared seed by seed.
What the runs show is in `reports.py`, what follows from it in `gate.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Failure, Fidelity, Role, State, Trial, TrialSpec
from mixopt.selection.candidates import NATURAL, projected
from mixopt.selection.looks import Look

Rule = Literal["repeat", "successive-rejects"]


def phase_pulls(candidates: int, seeds: int, budget: int | None) -> list[int]:
    """Runs of every live candidate by the end of each phase; one candidate goes after each.

    Successive Rejects: with K candidates and n runs, n_k = ceil((n - K) / (L (K + 1 - k))),
    L = 1/2 + sum_{i=2..K} 1/i, for k = 1 ... K - 1, at most as many as there are seeds.

    Args:
        candidates: K, the baseline among them.
        seeds: that there are.
        budget: n, runs in all; None for one phase in which every candidate has every seed.
    """
    if candidates < 2 or budget is None:
        return [seeds]
    log_bar = 0.5 + sum(1 / i for i in range(2, candidates + 1))
    pulls = [
        math.ceil(max(0, budget - candidates) / (log_bar * (candidates + 1 - phase)))
        for phase in range(1, candidates)
    ]
    # two pulls at least: one gives no deviation, and the baseline is paired with all
    return [min(max(2, n), seeds) for n in pulls]


@dataclass(frozen=True)
class Selection:
    """Pulls finalists with fresh seeds until the budget ends.

    Has no state: everything follows from the trials in the ledger, so that a resumed selection
    asks for what the uninterrupted one would have.

    Attributes:
        candidates: mixture by name; must hold `baseline`.
        fidelity: at which they are run.
        objective: lower is better.
        seeds: fresh ones, used in this order by every candidate; none that the search has used.
        confidence: that the gate asks for, in (0.5, 1).
        budget: runs in all for `successive-rejects`; None gives every candidate every seed.
        rule: `repeat` runs every candidate with every seed. `successive-rejects` (best-arm
            identification with a fixed budget, optimal up to constants by 1605.09004) drops the
            worst candidate after each phase and spends its runs on the others; the baseline is
            never dropped, the gate needs it.
        round: of the specs.
        look: which of the study's looks the verdict is: the adjusted p-value of what is promoted
            is at most its level. None is the only look, with level 1 - confidence.
        baseline: name of the candidate that the others must beat.
        barred: names of candidates that are compared and never promoted: further baselines that
            the study's space does not hold.
        guardrails: what is promoted keeps to all of them (`mixopt.selection.guarded`).

    Raises:
        StudyError: the baseline is no candidate, a seed is named twice, or there are too few.
    """

    candidates: Mapping[str, Mixture]
    fidelity: Fidelity
    objective: Objective
    seeds: Sequence[int]
    confidence: float = 0.95
    budget: int | None = None
    rule: Rule = "repeat"
    round: int = 0
    look: Look | None = None
    baseline: str = NATURAL
    barred: Collection[str] = ()
    guardrails: Sequence[Guardrail] = ()

    def __post_init__(self) -> None:
        if self.baseline not in self.candidates:
            raise StudyError(
                f"the {self.baseline} mixture is not among the candidates, so nothing can be "
                "beaten",
                where="selection.candidates",
                hint=f"Add it under the name {self.baseline!r}",
            )
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:
            raise StudyError(
                f"seeds {list(self.seeds)} are not at least two different ones",
                where="selection.seeds",
                hint="Give two or more, better five, that differ from the search's seed",
            )
        if not 0.5 < self.confidence < 1:
            raise StudyError(f"{self.confidence} is not in (0.5, 1)", where="selection.confidence")

    @property
    def level(self) -> float:
        """The largest adjusted p-value that is promoted; 0 where no look is left."""
        return 1 - self.confidence if self.look is None else self.look.level

    @property
    def schedule(self) -> list[int]:
        """Runs of every live candidate by the end of each phase."""
        budget = None if self.rule == "repeat" else self.budget
        return phase_pulls(len(self.candidates), len(self.seeds), budget)

    def next_pulls(self, trials: Sequence[Trial]) -> list[TrialSpec]:
        """The runs to start now; empty while a phase is still running, and at the end.

        Args:
            trials: of the ledger; those of other roles or candidates are ignored. A run that
                diverged counts as pulled: its candidate goes on with what it has. So does one that
                was lost, but its phase does not end before it was run again (see `lost`).
        """
        live, target = self._phase(trials)
        pulled = {(t.spec.candidate, t.spec.seed) for t in self.pulls(trials)}
        return [
            TrialSpec(self.candidates[name], self.fidelity, seed, Role.SELECT, self.round, name)
            for seed in self.seeds[:target]
            for name in live
            if (name, seed) not in pulled
        ]

    def live(self, trials: Sequence[Trial]) -> list[str]:
        """The candidates not rejected so far."""
        return self._phase(trials)[0]

    def done(self, trials: Sequence[Trial]) -> bool:
        """Whether every run has ended, so that there is nothing left to wait for."""
        waiting = any(t.state in (State.WAITING, State.RUNNING) for t in self.pulls(trials))
        return not waiting and not self.next_pulls(trials)

    def lost(self, trials: Sequence[Trial]) -> list[Trial]:
        """The runs that failed for another reason than their recipe, and were not run again.

        They say nothing about their mixture: a verdict without them compares what was not asked.
        """
        own = self.pulls(trials)
        again = {(t.spec.candidate, t.spec.seed) for t in own if _answers(t) or not t.ended}
        last = {(t.spec.candidate, t.spec.seed): t for t in own}
        return [t for key, t in last.items() if key not in again]

    @property
    def rows(self) -> list[str]:
        """The candidates, the baseline first."""
        return [self.baseline, *(name for name in self.candidates if name != self.baseline)]

    @property
    def fallback(self) -> str:
        """The candidate that is promoted if none beats the baseline: that, or its projection."""
        stand_in = projected(self.baseline)
        return stand_in if stand_in in self.candidates else self.baseline

    def pulls(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those of `trials` that are runs of this selection, in ledger order."""
        mine = [
            t
            for t in trials
            if t.spec.role is Role.SELECT
            and t.spec.candidate in self.candidates
            and self.candidates[t.spec.candidate].same_as(t.spec.mixture)
            and t.spec.fidelity == self.fidelity
            and t.spec.seed in self.seeds
        ]
        return sorted(mine, key=lambda t: t.number)

    def values(self, trials: Sequence[Trial]) -> dict[str, dict[int, float]]:
        """Objective by candidate and seed of the complete runs; of a repeated run, the first."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.candidates}
        for trial in self.pulls(trials):
            if trial.complete:
                value = self.objective.value(trial.metrics)
                found[trial.spec.candidate].setdefault(trial.spec.seed, value)
        return found

    def metric_values(self, metric: str, trials: Sequence[Trial]) -> dict[str, dict[int, float]]:
        """Values of a metric, as `values` of the objective; runs without it have none."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.candidates}
        for trial in self.pulls(trials):
            if trial.complete and metric in trial.metrics:
                runs = found[trial.spec.candidate]
                runs.setdefault(trial.spec.seed, trial.metrics[metric])
        return found

    def _phase(self, trials: Sequence[Trial]) -> tuple[list[str], int]:
        """Live candidates and the pulls that each should have by now."""
        own, values = self.pulls(trials), self.values(trials)
        live = list(self.candidates)
        for phase, target in enumerate(self.schedule):
            wanted = {(name, seed) for name in live for seed in self.seeds[:target]}
            ended = {(t.spec.candidate, t.spec.seed) for t in own if _answers(t)}
            if not wanted <= ended or phase == len(self.schedule) - 1:
                return live, target
            rejectable = [name for name in live if name not in (self.baseline, self.fallback)]
            if len(rejectable) < 2:  # the last challenger meets the baseline in every phase left
                continue
            used = self.seeds[:target]
            live.remove(max(rejectable, key=lambda name: _mean(values[name], used)))
        return live, self.schedule[-1]


def _answers(trial: Trial) -> bool:
    """Whether a run is final: it has a value, it diverges, or a person has given it up."""
    return trial.complete or trial.failure in (Failure.DIVERGED, Failure.GIVEN_UP)


def _mean(values: Mapping[int, float], seeds: Sequence[int]) -> float:
    """Mean over those of `seeds` that finished; infinite where none did, so that it goes first."""
    kept = [values[seed] for seed in seeds if seed in values]
    return float(np.mean(kept)) if kept else math.inf
