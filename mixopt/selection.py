"""Choosing under a fixed budget: finalists, fresh seeds, and the gate before a promotion.

The finalist of a search looks better than it is, for it was picked among many by noisy numbers.
So finalists are run again with seeds that the search never used, and only these runs count.
Equal seeds share initialization and data order, so that mixtures are compared seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixopt.errors import StudyError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Fidelity, Role, State, Trial, TrialSpec

NATURAL = "natural"  # the arm that every other must beat
SAME = 0.02  # Hellinger distance under which two finalists are one
Rule = Literal["repeat", "successive-rejects"]


def finalists(
    recommended: Mixture, observed: Mixture | None, natural: Mixture
) -> dict[str, Mixture]:
    """The arms of a selection: natural, recommended, best observed, uniform, without near-doubles.

    Of two that nearly agree the first named here stays.
    """
    arms = {NATURAL: natural, "recommended": recommended}
    if observed is not None:
        arms["best observed"] = observed
    arms["uniform"] = Mixture.uniform(natural.domains)
    kept: dict[str, Mixture] = {}
    for name, mixture in arms.items():
        if all(mixture.distance(other) >= SAME for other in kept.values()):
            kept[name] = mixture
    return kept


def best_observed(trials: Sequence[Trial], objective: Objective) -> Mixture | None:
    """The mixture with the least mean objective over its complete trials; None without any."""
    values: dict[Mixture, list[float]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.complete and all(name in trial.metrics for name in objective.metrics):
            values.setdefault(trial.spec.mixture, []).append(objective.value(trial.metrics))
    return min(values, key=lambda m: float(np.mean(values[m])), default=None)


@dataclass(frozen=True)
class ArmReport:
    """What the selection's own runs say of one arm.

    Attributes:
        mixture: the arm.
        mean: mean objective over its seeds; NaN if none finished.
        sd: standard deviation over its seeds; NaN from fewer than two.
        n: seeds that finished.
        difference: mean of objective - natural's, over the seeds that both finished.
        p: one-sided p-value of the paired t test that the arm is not better than natural.
        confidence: how sure it is that the arm is better: 1 - p, with p multiplied by the number
            of arms that challenge natural (Bonferroni), for the best of them is chosen by the same
            runs; NaN from fewer than two pairs.
    """

    mixture: Mixture
    mean: float
    sd: float
    n: int
    difference: float
    p: float
    confidence: float


@dataclass(frozen=True)
class Verdict:
    """How a selection ended.

    Attributes:
        winner: name of the promoted arm.
        promoted: its mixture.
        improved: whether it is another than natural.
        reason: a sentence.
        arms: report by arm.
    """

    winner: str
    promoted: Mixture
    improved: bool
    reason: str
    arms: Mapping[str, ArmReport]


@dataclass(frozen=True)
class Selection:
    """Pulls finalists with fresh seeds until the budget ends, then judges.

    Has no state: everything follows from the trials in the ledger, so that a resumed selection
    asks for what the uninterrupted one would have.

    Attributes:
        arms: mixture by name; must hold `natural`.
        fidelity: at which they are run.
        objective: lower is better.
        seeds: fresh ones, used in this order by every arm; none that the search has used.
        confidence: that the gate asks for, in (0.5, 1).
        budget: runs in all for `successive-rejects`; None gives every arm every seed.
        rule: `repeat` runs every arm with every seed. `successive-rejects` (fixed-budget best
            arm, optimal up to constants by 1605.09004) drops the worst arm after each phase and
            spends its runs on the others; natural is never dropped, the gate needs it.
        round: of the specs.

    Raises:
        StudyError: there is no natural arm, a seed is named twice, or there are too few.
    """

    arms: Mapping[str, Mixture]
    fidelity: Fidelity
    objective: Objective
    seeds: Sequence[int]
    confidence: float = 0.95
    budget: int | None = None
    rule: Rule = "repeat"
    round: int = 0

    def __post_init__(self) -> None:
        if NATURAL not in self.arms:
            raise StudyError(
                "the natural mixture is not among the arms, so nothing can be beaten",
                where="selection.arms",
                mend="Add it under the name 'natural'",
            )
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:
            raise StudyError(
                f"seeds {list(self.seeds)} are not at least two different ones",
                where="selection.seeds",
                mend="Give two or more, better five, that differ from the search's seed",
            )
        if not 0.5 < self.confidence < 1:
            raise StudyError(f"{self.confidence} is not in (0.5, 1)", where="selection.confidence")

    @property
    def schedule(self) -> list[int]:
        """Pulls that every live arm has had by the end of each phase; one arm goes after each.

        Successive Rejects: with K arms and n runs, n_k = ceil((n - K) / (L (K + 1 - k))),
        L = 1/2 + sum_{i=2..K} 1/i, for k = 1 ... K - 1, at most as many as there are seeds.
        """
        k = len(self.arms)
        if self.rule == "repeat" or k < 2 or self.budget is None:
            return [len(self.seeds)]
        log_bar = 0.5 + sum(1 / i for i in range(2, k + 1))
        pulls = [
            math.ceil(max(0, self.budget - k) / (log_bar * (k + 1 - phase)))
            for phase in range(1, k)
        ]
        # two pulls at least: one gives no deviation, and natural is paired with all
        return [min(max(2, n), len(self.seeds)) for n in pulls]

    def next_pulls(self, trials: Sequence[Trial]) -> list[TrialSpec]:
        """The runs to start now; empty while a phase is still running, and at the end.

        Args:
            trials: of the ledger; those of other roles or arms are ignored. A failed run counts
                as pulled: its arm goes on with what it has.
        """
        live, target = self._phase(trials)
        pulled = {(t.spec.arm, t.spec.seed) for t in self.pulls(trials)}
        return [
            TrialSpec(self.arms[arm], self.fidelity, seed, Role.SELECT, self.round, arm)
            for seed in self.seeds[:target]
            for arm in live
            if (arm, seed) not in pulled
        ]

    def live(self, trials: Sequence[Trial]) -> list[str]:
        """The arms not rejected so far."""
        return self._phase(trials)[0]

    def done(self, trials: Sequence[Trial]) -> bool:
        """Whether every run has ended, so that `verdict` is final."""
        waiting = any(t.state in (State.WAITING, State.RUNNING) for t in self.pulls(trials))
        return not waiting and not self.next_pulls(trials)

    def verdict(self, trials: Sequence[Trial]) -> Verdict:
        """Promote the best live arm if it surely beats natural, else natural itself.

        The gate is a one-sided t test on the differences to natural, paired by seed. Of several
        candidates the one with the least mean is tested (see `ArmReport.confidence`).
        """
        values, arms = self.values(trials), self.reports(trials)
        challengers = [a for a in self.live(trials) if a != NATURAL and arms[a].n]
        natural = self.arms[NATURAL]
        if not challengers or not arms[NATURAL].n:
            said = "no arm finished a run beside natural's, so natural is promoted"
            return Verdict(NATURAL, natural, False, said, arms)
        best = min(challengers, key=lambda a: arms[a].difference)
        report, rivals = arms[best], len(self.arms) - 1
        sure = report.confidence if math.isfinite(report.confidence) else 0.0
        pairs = len(values[best].keys() & values[NATURAL].keys())
        facts = (
            f"{best} differs from natural by {report.difference:+.4f} over {pairs} shared seeds, "
            f"better with confidence {sure:.3f}"
        )
        if rivals > 1:
            facts += f" (corrected for {rivals} challengers)"
        if sure >= self.confidence and report.difference < 0:
            said = f"{facts}, which reaches the {self.confidence:g} asked for"
            return Verdict(best, self.arms[best], True, said, arms)
        said = f"{facts}, not the {self.confidence:g} asked for, so natural is promoted"
        return Verdict(NATURAL, natural, False, said, arms)

    def reports(self, trials: Sequence[Trial]) -> dict[str, ArmReport]:
        """What the runs so far say of each arm."""
        values = self.values(trials)
        return {name: self._report(name, values) for name in self.arms}

    def pulls(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those of `trials` that are runs of this selection, in ledger order."""
        mine = [
            t
            for t in trials
            if t.spec.role is Role.SELECT
            and self.arms.get(t.spec.arm) == t.spec.mixture
            and t.spec.fidelity == self.fidelity
            and t.spec.seed in self.seeds
        ]
        return sorted(mine, key=lambda t: t.number)

    def values(self, trials: Sequence[Trial]) -> dict[str, dict[int, float]]:
        """Objective by arm and seed of the complete runs; the first where one was run twice."""
        found: dict[str, dict[int, float]] = {name: {} for name in self.arms}
        for trial in self.pulls(trials):
            if trial.complete:
                value = self.objective.value(trial.metrics)
                found[trial.spec.arm].setdefault(trial.spec.seed, value)
        return found

    def _phase(self, trials: Sequence[Trial]) -> tuple[list[str], int]:
        """Live arms and the pulls that each should have by now."""
        own, values = self.pulls(trials), self.values(trials)
        live = list(self.arms)
        for phase, target in enumerate(self.schedule):
            wanted = {(arm, seed) for arm in live for seed in self.seeds[:target]}
            ended = {
                (t.spec.arm, t.spec.seed) for t in own if t.state in (State.COMPLETE, State.FAILED)
            }
            if not wanted <= ended or phase == len(self.schedule) - 1:
                return live, target
            rejectable = [arm for arm in live if arm != NATURAL]
            if len(rejectable) < 2:  # the last challenger meets natural in every phase left
                continue
            used = self.seeds[:target]
            live.remove(max(rejectable, key=lambda arm: _mean(values[arm], used)))
        return live, self.schedule[-1]

    def _report(self, arm: str, values: Mapping[str, Mapping[int, float]]) -> ArmReport:
        mine, base = values[arm], values[NATURAL]
        runs = np.array(list(mine.values()))
        gaps = np.array([mine[seed] - base[seed] for seed in mine if seed in base])
        p = _paired_p(gaps) if arm != NATURAL else math.nan
        return ArmReport(
            mixture=self.arms[arm],
            mean=float(runs.mean()) if len(runs) else math.nan,
            sd=float(runs.std(ddof=1)) if len(runs) > 1 else math.nan,
            n=len(runs),
            difference=float(gaps.mean()) if len(gaps) else math.inf,
            p=p,
            confidence=1 - min(1.0, p * (len(self.arms) - 1)) if math.isfinite(p) else math.nan,
        )


def _mean(values: Mapping[int, float], seeds: Sequence[int]) -> float:
    """Mean over those of `seeds` that finished; infinite where none did, so that it goes first."""
    kept = [values[seed] for seed in seeds if seed in values]
    return float(np.mean(kept)) if kept else math.inf


def _paired_p(gaps: np.ndarray) -> float:
    """One-sided p-value of mean(gaps) >= 0; NaN from fewer than two."""
    from scipy.stats import t

    if len(gaps) < 2:
        return math.nan
    error = float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    if error == 0:
        return 0.0 if gaps.mean() < 0 else 1.0
    return float(t.cdf(gaps.mean() / error, df=len(gaps) - 1))
