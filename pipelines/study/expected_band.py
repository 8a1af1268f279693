"""A full run beside the baseline's, and the band that their difference is expected in.

The baseline's full run is the file that `promote.baseline_curve` names, or else an earlier
promotion of this study on the baseline with the same settings, finished or not. The band follows
from the pairs of runs that compared both mixtures with the same seeds: those at the larger size
(`select.at`) where there are two, else the selection's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixopt.core.formatting import count, signed
from mixopt.core.objective import Objective
from mixopt.core.trials import CurvePoint, Fidelity, Role, Trial
from mixopt.io.trial_files import curve_in, read_curve
from mixopt.pipelines.study.baseline_curve import BaselineCurve, given_curve, known_evaluations
from mixopt.pipelines.study.promotion_folder import promotion_folder
from mixopt.pipelines.study.session import Session
from mixopt.selection.band import Curve, Place, expected, value_at
from mixopt.selection.results import Candidate
from mixopt.study.records import read_result, read_verdict
from mixopt.study.trainings import larger_fidelity
from mixopt.study.watched import Compared, Kind, Remark

CARRY_OVER = (
    "If all looks right, the advantage did not carry over to this size: compare the mixtures at a "
    "larger one (select.at)"
)


@dataclass(frozen=True)
class Pairs:
    """Runs of the promoted mixture and of the baseline with the same seeds.

    Attributes:
        curves: share of the training → objective, of either.
        of: their size, for a person.
    """

    curves: Sequence[tuple[Curve, Curve]]
    of: str

    @property
    def text(self) -> str:
        """What they are."""
        return f"{len(self.curves)} pair{'' if len(self.curves) == 1 else 's'} of {self.of}"


@dataclass(frozen=True)
class Comparison:
    """What a full run is compared with.

    Attributes:
        reference: the baseline's full run.
        pairs: that its difference to the promoted one is expected from.
        objective: of the study.
        tokens: of the full run.
        evaluations: of the full run; 0 where they are not known.
    """

    reference: BaselineCurve
    pairs: Pairs
    objective: Objective
    tokens: int
    evaluations: int = 0

    @property
    def about(self) -> str:
        """What is compared, before it begins."""
        note = self.reference.note(self.tokens, self.evaluations)
        line = f"compared with the baseline's full run, {note}. "
        if expected(self.pairs.curves, 1.0) is None:
            few = len(self.pairs.curves) < 2
            why = "two are needed" if few else "their seeds change no difference"
            return f"{line}No band: of {self.pairs.text}; {why}"
        return f"{line}The difference is expected from {self.pairs.text}"

    def compared(self, curve: Sequence[CurvePoint]) -> list[Compared]:
        """The evaluations of a full run that the baseline's has evaluations around."""
        found = (
            (point, value, value_at(self.reference.points, point.tokens))
            for point, value in _values(curve, self.objective)
        )
        return [self._row(point, mine - base) for point, mine, base in found if base is not None]

    def _row(self, point: CurvePoint, difference: float) -> Compared:
        sign = self.objective.sign
        row = Compared(point.tokens, point.seconds, sign * difference)
        band = expected(self.pairs.curves, min(1.0, point.tokens / self.tokens))
        if band is None:
            return row
        low, high = sorted((sign * band.low, sign * band.high))
        return Compared(row.tokens, row.seconds, row.difference, low, high, band.place(difference))

    def remarks(self, rows: Sequence[Compared]) -> list[Remark]:
        """A warning where the difference leaves the band on the bad side; a note, once, else."""
        found: list[Remark] = []
        before: Place | None = None
        for row in rows:
            if row.place is Place.WORSE and before is not Place.WORSE:
                found.append(Remark(row.tokens, Kind.WORSE, self._outside(row, "worse")))
            noted = any(it.kind is Kind.BETTER for it in found)
            if row.place is Place.BETTER and not noted:
                found.append(Remark(row.tokens, Kind.BETTER, self._outside(row, "better")))
            before = row.place or before
        return found

    def _outside(self, row: Compared, how: str) -> str:
        assert row.low is not None
        assert row.high is not None
        return (
            f"the difference to the baseline's full run ({self.reference.name}) is "
            f"{signed(row.difference)} after {count(row.tokens)} tokens, {how} than the expected "
            f"{signed(row.low)} to {signed(row.high)} (95 % for one more pair, from "
            f"{self.pairs.text})"
        )


def comparison(session: Session, folder: Path, tokens: int) -> Comparison | None:
    """What the full run in that folder is compared with.

    Args:
        session: the open study.
        folder: of the promotion's last training.
        tokens: that it trains on.

    Returns:
        None without a baseline's full run, or where the baseline itself is promoted.

    Raises:
        StudyError: the file that the study names cannot be used.
    """
    verdict = read_verdict(session.home)
    baseline = None if verdict is None else verdict.candidate(verdict.baseline)
    if verdict is None or baseline is None or verdict.promoted == verdict.baseline:
        return None
    reference = given_curve(session.study) or _earlier(session, baseline, folder.name)
    if reference is None:
        return None
    pairs = _pairs(session, verdict.winner, baseline)
    assert session.study.promote is not None
    evaluations = known_evaluations(session.study.promote)
    return Comparison(reference, pairs, session.objective, tokens, evaluations)


def _earlier(session: Session, baseline: Candidate, training: str) -> BaselineCurve | None:
    """The curve of an earlier promotion on the baseline with the settings of now."""
    promote, objective = session.study.promote, session.objective
    assert promote is not None
    folder = promotion_folder(session, promote, baseline.mixture)
    ended = read_result(folder)
    points = curve_in(folder / training) or ([] if ended is None else list(ended.curve))
    curve = [(float(point.tokens), value) for point, value in _values(points, objective)]
    return BaselineCurve(f"promotion {folder.name}", curve) if curve else None


def _pairs(session: Session, promoted: Candidate, baseline: Candidate) -> Pairs:
    """The pairs at the larger size where there are two, else the selection's."""
    trials, larger = session.ledger.trials(), larger_fidelity(session.study, session.data)
    there = [t for t in trials if t.spec.role is Role.TRANSFER and t.spec.fidelity == larger]
    if larger is not None and len(found := _of_seeds(session, there, promoted, baseline)) > 1:
        return Pairs(found, f"runs at select.at ({_size(larger)}), not of this size")
    selected = [t for t in trials if t.spec.role is Role.SELECT]
    found = _of_seeds(session, selected, promoted, baseline)
    return Pairs(found, f"proxies ({_size(session.fidelity)}), not of this size")


def _of_seeds(
    session: Session, trials: Sequence[Trial], promoted: Candidate, baseline: Candidate
) -> list[tuple[Curve, Curve]]:
    """Curves of both with each seed that both finished."""
    mine, base = (_curves(session, trials, candidate) for candidate in (promoted, baseline))
    return [(mine[seed], base[seed]) for seed in mine if seed in base]


def _curves(session: Session, trials: Sequence[Trial], candidate: Candidate) -> dict[int, Curve]:
    """Curves by seed of the candidate's complete runs: share of the training → objective."""
    found: dict[int, Curve] = {}
    for trial in trials:
        spec = trial.spec
        same = (spec.candidate, spec.mixture) == (candidate.name, candidate.mixture)
        if same and trial.complete and trial.result is not None:
            values = _values(read_curve(session.home, trial), session.objective)
            tokens = trial.result.cost.tokens
            curve = [(point.tokens / tokens, value) for point, value in values]
            found.setdefault(spec.seed, curve)
    return found


def _values(points: Sequence[CurvePoint], objective: Objective) -> list[tuple[CurvePoint, float]]:
    """The points that have all metrics of the objective, with its value."""
    needed = objective.metrics
    return [
        (point, objective.value(point.comparable))
        for point in points
        if all(name in point.comparable for name in needed)
    ]


def _size(fidelity: Fidelity) -> str:
    params = f"{count(fidelity.params)} parameters, " if fidelity.params_known else ""
    return f"{params}{count(fidelity.tokens)} tokens"
