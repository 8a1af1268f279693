"""Choosing under a fixed budget: finalists, fresh seeds, and the gate before a promotion.

The finalist of a search looks better than it is, for it was picked among many by noisy numbers.
So finalists are run again with seeds that the search never used, and only these runs count.
Equal seeds share initialization and data order, so that mixtures are compared seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.formatting import p_text, signed
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.trials import Failure, Fidelity, Role, State, Trial, TrialSpec
from mixopt.selection.candidates import NATURAL, projected
from mixopt.selection.comparison import compare, seeds_to_pass
from mixopt.selection.guarded import guarded
from mixopt.selection.guarded_words import broken_guardrail, kept_guardrails
from mixopt.selection.looks import Look
from mixopt.selection.paired import (
    MOST_SEEDS,
    gaps,
    half_interval,
    one_sided_p,
    seeds_needed,
    silent,
)
from mixopt.selection.results import Candidate, Decision
from mixopt.selection.trade_offs import trade_offs

Rule = Literal["repeat", "successive-rejects"]


def best_observed(trials: Sequence[Trial], objective: Objective) -> Mixture | None:
    """The mixture with the least mean objective over its complete trials; None without any."""
    values: dict[tuple[int, ...], list[float]] = {}
    mixtures: dict[tuple[int, ...], Mixture] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if (value := objective.of_trial(trial)) is not None:
            key = trial.spec.mixture.key
            mixtures.setdefault(key, trial.spec.mixture)
            values.setdefault(key, []).append(value)
    best = min(values, key=lambda key: float(np.mean(values[key])), default=None)
    return None if best is None else mixtures[best]


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
    """Pulls finalists with fresh seeds until the budget ends, then judges.

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

    def verdict(self, trials: Sequence[Trial]) -> Decision:
        """Promote the best of the candidates that pass the gate; `fallback` if none does.

        A candidate passes whose difference to the baseline is below 0 at an adjusted p-value of at
        most `level`.

        Raises:
            StudyError: a run that was asked for has not ended or was lost to the infrastructure,
                or every run of the baseline or of its projection failed.
        """
        self.check_complete(trials)
        reports = self.reports(trials)
        never = (self.baseline, *self.barred)
        rest = [name for name in self.live(trials) if name not in never]
        differences = {
            name: difference
            for name in rest
            if (difference := reports[name].difference) is not None and self._passes(reports[name])
        }
        kept = {name: d for name, d in differences.items() if not reports[name].broken}
        promoted = min(kept, key=kept.__getitem__, default=self.fallback)
        if kept:
            allowed = self._allowed(reports[promoted].adjusted_p)
            reason = f"{self._facts(promoted, trials)}, at most the {allowed}"
            reason += kept_guardrails(reports[promoted])
        elif differences:
            better = min(differences, key=differences.__getitem__)
            broken = "; ".join(map(broken_guardrail, reports[better].broken))
            reason = (
                f"{self._facts(better, trials)}, but it is not shown to keep to the guardrails "
                f"({broken}), so {self.fallback} is selected"
            )
        else:
            reason = self._refusal(rest, trials)
        if not kept and reports[self.fallback].broken:
            broken = "; ".join(map(broken_guardrail, reports[self.fallback].broken))
            reason += (
                f". {self.fallback} is not shown to keep to the guardrails either ({broken}), so "
                "it is not to be promoted"
            )
        return Decision(
            baseline=self.baseline,
            promoted=promoted,
            improved=bool(kept),
            reason=reason,
            confidence=self.confidence,
            level=self.level,
            look=1 if self.look is None else self.look.number,
            looks=1 if self.look is None else self.look.planned,
            candidates=tuple(reports.values()),
        )

    def _refusal(self, candidates: Sequence[str], trials: Sequence[Trial]) -> str:
        """Why none of `candidates` is promoted, and what would decide it."""
        reports, end = self.reports(trials), f"so {self.fallback} is selected"
        if silent(self.values(trials)):
            return (
                "seeds change nothing: the runs of each candidate gave the same objective with "
                f"every seed, and no difference can be told from chance, {end}. Let the trainer "
                "use its job's seed, in a new study"
            )
        tested = {name: p for name in candidates if (p := reports[name].p) is not None}
        if not tested:
            return f"no candidate shares two finished seeds with {self.baseline}, {end}"
        best = min(tested, key=tested.__getitem__)
        facts = self._facts(best, trials)
        if self.look is not None and self.level == 0:
            some = "looks" if self.look.planned > 1 else "look"
            return (
                f"{facts}; the {self.look.planned} {some} that the study planned (select.looks) "
                f"came before this one, {end}. Plan more looks in a new study"
            )
        allowed = self._allowed(reports[best].adjusted_p)
        return f"{facts}, above the {allowed}, {end}{self._way_on(best, trials)}"

    def _way_on(self, name: str, trials: Sequence[Trial]) -> str:
        """How many seeds would pass, as a further sentence; empty if none would."""
        seeds = self._seeds_asked(name, trials)
        if not seeds:
            return ""
        would = f"{seeds} seeds with this difference and scatter would pass"
        if self.look is not None and self.look.number >= self.look.planned:
            return f". No look is left (select.looks); in a new study {would}"
        return f". {would}"

    def digits(self, p: float | None) -> int:
        """Digits with which `p` and the level are shown, so that they are seen to differ."""
        if p is None:
            return 3
        telling = (d for d in range(3, 9) if f"{p:.{d}g}" != f"{self.level:.{d}g}")
        return next(telling, 3)

    def _allowed(self, p: float | None) -> str:
        """The largest p-value that passes, with as many digits as `p` beside it."""
        allowed = f"{self.level:.{self.digits(p)}g} allowed"
        if self.look is None or self.look.planned == 1:
            return allowed
        return f"{allowed} at look {self.look.number} of {self.look.planned}"

    def _seeds_asked(self, name: str, trials: Sequence[Trial]) -> int | None:
        """Seeds at which the difference and scatter of the candidate would pass; None if never."""
        values = self.values(trials)
        layout = self._layout(values)
        if layout is not None:
            row = self._rows.index(name)
            return seeds_to_pass(layout, row, self.level, MOST_SEEDS)
        differences = gaps(values[name], values[self.baseline])
        return seeds_needed(differences, self.level / (len(self.candidates) - 1))

    @property
    def _rows(self) -> list[str]:
        """The candidates, the baseline first."""
        return [self.baseline, *(name for name in self.candidates if name != self.baseline)]

    def _layout(self, values: Mapping[str, Mapping[int, float]]) -> np.ndarray | None:
        """Objective (candidates, seeds), the baseline's first; None where a run is missing."""
        runs = [values[name] for name in self._rows]
        if len(runs) < 2 or any(len(row) < len(self.seeds) for row in runs):
            return None
        return np.array([[row[seed] for seed in self.seeds] for row in runs])

    @property
    def fallback(self) -> str:
        """The candidate that is promoted if none beats the baseline: that, or its projection."""
        stand_in = projected(self.baseline)
        return stand_in if stand_in in self.candidates else self.baseline

    def _passes(self, report: Candidate) -> bool:
        if report.difference is None or report.adjusted_p is None:
            return False
        return report.difference < 0 and report.adjusted_p <= self.level and self.level > 0

    def _facts(self, name: str, trials: Sequence[Trial]) -> str:
        """What the paired runs of a candidate and the baseline show, in words."""
        report, values = self.reports(trials)[name], self.values(trials)
        pairs = len(values[name].keys() & values[self.baseline].keys())
        rivals = len(self.candidates) - 1
        shown = (report.difference, report.difference_low, report.difference_high)
        difference, low, high = (math.nan if value is None else value for value in shown)
        if self.objective.sign == -1:
            difference, low, high = -difference, -high, -low
        p = math.nan if report.adjusted_p is None else report.adjusted_p
        return (
            f"{name} differs from {self.baseline} by {signed(difference)} "
            f"(90 % interval {signed(low)} to {signed(high)}) over {pairs} shared seeds, "
            f"adjusted p-value {p_text(p, self.digits(report.adjusted_p))}"
            + (f" (for {rivals} candidates)" if rivals > 1 else "")
        )

    def check_complete(self, trials: Sequence[Trial]) -> None:
        """Refuse to judge before every run that was asked for has an answer.

        Raises:
            StudyError: a run has not ended or was lost, or the baseline has no value.
        """
        lost = self.lost(trials)
        if lost:
            names = ", ".join(
                f"{t.number} ({t.spec.candidate}, seed {t.spec.seed}: {t.failure or 'failed'})"
                for t in lost
            )
            raise StudyError(
                f"no verdict: selection's runs were lost for another reason than their recipe: "
                f"trials {names}",
                where="selection",
                hint="See to the cause, then run the same command again: it runs them once more",
            )
        if not self.done(trials):
            raise StudyError(
                "no verdict: runs that were asked for have not ended",
                where="selection",
                hint="Run `mixopt select` until they have",
            )
        values = self.values(trials)
        silent = [
            name for name in dict.fromkeys((self.baseline, self.fallback)) if not values[name]
        ]
        if silent:
            raise StudyError(
                f"no verdict: every run of the {silent[0]} mixture diverged, "
                "so nothing can be compared",
                where="selection",
                hint="Lower the learning rate in a new study",
            )

    def reports(self, trials: Sequence[Trial]) -> dict[str, Candidate]:
        """What the runs so far show of each candidate, by name, the baseline first."""
        values, pulls = self.values(trials), self.pulls(trials)
        found = {name: self._report(name, values, pulls) for name in self._rows}
        unseeded = silent(values)

        def metric_runs(metric: str) -> dict[str, dict[int, float]]:
            runs = self._runs(metric, trials)
            return {name: _first(own) for name, own in runs.items()} if unseeded else runs

        for guardrail in self.guardrails:
            runs = metric_runs(guardrail.metric)
            for name, it in guarded(guardrail, runs, self._rows, self.seeds, self.level).items():
                found[name] = replace(found[name], guarded=(*found[name].guarded, it))
        weights = self.objective.weights
        for name, each in trade_offs(weights, metric_runs, self._rows, len(self.seeds)).items():
            found[name] = replace(found[name], trade_offs=each)
        if unseeded:  # equal runs are one run: no interval, no p-value
            return {
                name: replace(
                    report, difference_low=None, difference_high=None, p=None, adjusted_p=None
                )
                for name, report in found.items()
            }
        layout = self._layout(values)
        if layout is None:
            return found
        joint = compare(layout)
        for row, name in enumerate(self._rows[1:]):
            difference, half = float(joint.difference[row]), float(joint.half[row])
            found[name] = replace(
                found[name],
                difference_low=_finite(difference - half),
                difference_high=_finite(difference + half),
                p=_finite(float(joint.p[row])),
                adjusted_p=_finite(float(joint.adjusted_p[row])),
            )
        return found

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

    def _runs(self, metric: str, trials: Sequence[Trial]) -> dict[str, dict[int, float]]:
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

    def _report(
        self, name: str, values: Mapping[str, Mapping[int, float]], pulls: Sequence[Trial]
    ) -> Candidate:
        mine, costs = (
            values[name],
            [t.result.cost for t in pulls if t.spec.candidate == name and t.result is not None],
        )
        runs, differences = np.array(list(mine.values())), gaps(mine, values[self.baseline])
        difference = float(differences.mean()) if len(differences) else math.nan
        p = one_sided_p(differences) if name != self.baseline else math.nan
        half = half_interval(differences) if name != self.baseline else math.nan
        return Candidate(
            name=name,
            mixture=self.candidates[name],
            n=len(runs),
            mean=float(runs.mean()) if len(runs) else None,
            std=float(runs.std(ddof=1)) if len(runs) > 1 else None,
            values=tuple(mine.values()),
            difference=_finite(difference),
            difference_low=_finite(difference - half),
            difference_high=_finite(difference + half),
            p=_finite(p),
            adjusted_p=None if math.isnan(p) else min(1.0, p * (len(self.candidates) - 1)),
            tokens=sum(cost.tokens for cost in costs),
            device_seconds=sum(cost.device_seconds for cost in costs),
        )


def _first(runs: Mapping[int, float]) -> dict[int, float]:
    """The first of `runs`: what equal ones tell."""
    return dict(list(runs.items())[:1])


def _answers(trial: Trial) -> bool:
    """Whether a run is final: it has a value, it diverges, or a person has given it up."""
    return trial.complete or trial.failure in (Failure.DIVERGED, Failure.GIVEN_UP)


def _mean(values: Mapping[int, float], seeds: Sequence[int]) -> float:
    """Mean over those of `seeds` that finished; infinite where none did, so that it goes first."""
    kept = [values[seed] for seed in seeds if seed in values]
    return float(np.mean(kept)) if kept else math.inf


def _finite(value: float) -> float | None:
    """`value`, or None where it could not be measured."""
    return value if math.isfinite(value) else None
