"""Looks at the evaluations of a full run as they come; warns, and keeps what was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixopt.core.trials import CurvePoint
from mixopt.io.trial_files import curve_in
from mixopt.pipelines.study.early_warning import (
    OWN_TO_DO,
    START_TO_DO,
    WHAT_TO_DO,
    other_start,
    rise,
    seed_deviation,
)
from mixopt.pipelines.study.expected_band import CARRY_OVER, comparison
from mixopt.pipelines.study.session import Session
from mixopt.study.records import read_verdict
from mixopt.study.watched import Kind, Remark, Watched, read_watched
from mixopt.workers.proxy_task import Work


class FullRunWatch:
    """Says what is to be said of a full run's evaluations, each thing once.

    Args:
        session: of the study.
        work: the training that the promotion ends with.
        before: metrics of the upcycled model that a trainer of the user's was given; else empty.

    Raises:
        StudyError: the curve of the baseline's full run cannot be used.
    """

    def __init__(
        self, session: Session, work: Work, before: Mapping[str, float] | None = None
    ) -> None:
        self._before = before or {}
        self._folder, self._label = Path(work.folder), work.key
        self._display, self._objective = session.display, session.objective
        promote = session.study.promote
        own = promote is not None and promote.trainer is not None
        to_do = OWN_TO_DO if own else WHAT_TO_DO
        self._advice = {
            Kind.START: START_TO_DO,
            Kind.RISE: to_do,
            Kind.WORSE: f"{to_do}. {CARRY_OVER}",
        }
        self._seed_std = seed_deviation(read_verdict(session.home))
        self._comparison = comparison(session, self._folder, work.job.tokens)
        self._curve: Sequence[CurvePoint] | None = None
        kept = read_watched(self._folder.parent)
        self._explained: set[Kind] = set()  # what to do is said once of each kind
        self._said = {(it.tokens, it.kind) for it in kept.remarks}
        if self._comparison is not None:
            self._display.say(f"{self._label}: {self._comparison.about}", style="dim")

    def look(self) -> None:
        """Look at what was evaluated since the last time."""
        curve = curve_in(self._folder)
        if curve == self._curve:
            return
        self._curve, seen = curve, self._watched(curve)
        for remark in seen.remarks:
            if (remark.tokens, remark.kind) not in self._said:
                self._said.add((remark.tokens, remark.kind))
                self._say(remark)
        seen.write(self._folder.parent)

    def _watched(self, curve: Sequence[CurvePoint]) -> Watched:
        remarks = [
            Remark(curve[last].tokens, Kind.RISE, text)
            for last in range(len(curve))
            if (text := rise(curve[: last + 1], self._objective, self._seed_std))
        ]
        if text := other_start(curve, self._objective, self._before):
            remarks.insert(0, Remark(curve[0].tokens, Kind.START, text))
        if self._comparison is None:
            return Watched((), self._advised(remarks))
        rows = self._comparison.compared(curve)
        remarks += self._comparison.remarks(rows)
        return Watched(tuple(rows), self._advised(sorted(remarks, key=lambda it: it.tokens)))

    def _advised(self, remarks: Sequence[Remark]) -> tuple[Remark, ...]:
        return tuple(
            dataclasses.replace(it, advice=self._advice.get(it.kind, "")) for it in remarks
        )

    def _say(self, remark: Remark) -> None:
        again = remark.kind in self._explained
        self._explained.add(remark.kind)
        line = f"{self._label}: {remark.text if again else remark.said}"
        if remark.kind is Kind.BETTER:
            self._display.say(line, style="dim")
        else:
            self._display.warn(line)
