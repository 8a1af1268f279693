"""Why the gate decided as it did, in words: what the runs show, and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixopt.core.formatting import p_text, signed
from mixopt.selection.comparison import seeds_to_pass
from mixopt.selection.guarded_words import broken_guardrail, kept_guardrails
from mixopt.selection.paired import MOST_SEEDS, gaps, seeds_needed, silent
from mixopt.selection.reports import objective_layout
from mixopt.selection.results import Candidate
from mixopt.selection.runs import Selection


@dataclass(frozen=True)
class Reason:
    """The reason of a decision.

    Attributes:
        selection: that is judged.
        reports: of each candidate, by name.
        values: objective by candidate and seed of the complete runs.
    """

    selection: Selection
    reports: Mapping[str, Candidate]
    values: Mapping[str, Mapping[int, float]]

    def promoted(self, name: str) -> str:
        """Why a candidate is promoted."""
        report = self.reports[name]
        facts, allowed = self._facts(name), self._allowed(report.adjusted_p)
        return f"{facts}, at most the {allowed}{kept_guardrails(report)}"

    def guardrails_broken(self, name: str) -> str:
        """Why the best of those that are better is not promoted."""
        return (
            f"{self._facts(name)}, but it is not shown to keep to the guardrails "
            f"({self._broken(name)}), so {self.selection.fallback} is selected"
        )

    def none_passes(self, candidates: Sequence[str]) -> str:
        """Why none of `candidates` is promoted, and what would decide it."""
        look, end = self.selection.look, f"so {self.selection.fallback} is selected"
        if silent(self.values):
            return (
                "seeds change nothing: the runs of each candidate gave the same objective with "
                f"every seed, and no difference can be told from chance, {end}. Let the trainer "
                "use its job's seed, in a new study"
            )
        tested = {name: p for name in candidates if (p := self.reports[name].p) is not None}
        if not tested:
            return f"no candidate shares two finished seeds with {self.selection.baseline}, {end}"
        best = min(tested, key=tested.__getitem__)
        facts = self._facts(best)
        if look is not None and self.selection.level == 0:
            some = "looks" if look.planned > 1 else "look"
            return (
                f"{facts}; the {look.planned} {some} that the study planned (select.looks) "
                f"came before this one, {end}. Plan more looks in a new study"
            )
        allowed = self._allowed(self.reports[best].adjusted_p)
        return f"{facts}, above the {allowed}, {end}{self._way_on(best)}"

    def fallback_broken(self) -> str:
        """What is to be said where the fallback breaks guardrails itself; else empty."""
        fallback = self.selection.fallback
        if not self.reports[fallback].broken:
            return ""
        return (
            f". {fallback} is not shown to keep to the guardrails either "
            f"({self._broken(fallback)}), so it is not to be promoted"
        )

    def _broken(self, name: str) -> str:
        return "; ".join(map(broken_guardrail, self.reports[name].broken))

    def _facts(self, name: str) -> str:
        """What the paired runs of a candidate and the baseline show."""
        report, baseline = self.reports[name], self.selection.baseline
        pairs = len(self.values[name].keys() & self.values[baseline].keys())
        rivals = len(self.selection.candidates) - 1
        shown = (report.difference, report.difference_low, report.difference_high)
        difference, low, high = (math.nan if value is None else value for value in shown)
        if self.selection.objective.sign == -1:
            difference, low, high = -difference, -high, -low
        p = math.nan if report.adjusted_p is None else report.adjusted_p
        return (
            f"{name} differs from {baseline} by {signed(difference)} "
            f"(90 % interval {signed(low)} to {signed(high)}) over {pairs} shared seeds, "
            f"adjusted p-value {p_text(p, digits(report.adjusted_p, self.selection.level))}"
            + (f" (for {rivals} candidates)" if rivals > 1 else "")
        )

    def _allowed(self, p: float | None) -> str:
        """The largest p-value that passes, with as many digits as `p` beside it."""
        level, look = self.selection.level, self.selection.look
        allowed = f"{level:.{digits(p, level)}g} allowed"
        if look is None or look.planned == 1:
            return allowed
        return f"{allowed} at look {look.number} of {look.planned}"

    def _way_on(self, name: str) -> str:
        """How many seeds would pass, as a further sentence; empty if none would."""
        seeds, look = self._seeds_asked(name), self.selection.look
        if not seeds:
            return ""
        would = f"{seeds} seeds with this difference and scatter would pass"
        if look is not None and look.number >= look.planned:
            return f". No look is left (select.looks); in a new study {would}"
        return f". {would}"

    def _seeds_asked(self, name: str) -> int | None:
        """Seeds at which the difference and scatter of the candidate would pass; None if never."""
        selection, layout = self.selection, objective_layout(self.selection, self.values)
        if layout is not None:
            row = selection.rows.index(name)
            return seeds_to_pass(layout, row, selection.level, MOST_SEEDS)
        differences = gaps(self.values[name], self.values[selection.baseline])
        return seeds_needed(differences, selection.level / (len(selection.candidates) - 1))


def digits(p: float | None, level: float) -> int:
    """Digits with which a p-value and the level are shown, so that they are seen to differ.

    >>> digits(0.0999, 0.1), digits(0.09999, 0.1)
    (3, 4)
    """
    if p is None:
        return 3
    telling = (d for d in range(3, 9) if f"{p:.{d}g}" != f"{level:.{d}g}")
    return next(telling, 3)
