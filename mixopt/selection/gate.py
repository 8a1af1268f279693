"""The gate before a promotion: which candidate is promoted, and whether that can be said yet."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.core.errors import StudyError
from mixopt.core.trials import Trial
from mixopt.selection.gate_words import Reason
from mixopt.selection.reports import reports
from mixopt.selection.results import Candidate, Decision
from mixopt.selection.runs import Selection


def judge(selection: Selection, trials: Sequence[Trial]) -> Decision:
    """Promote the best of the candidates that pass the gate; the fallback if none does.

    A candidate passes whose difference to the baseline is below 0 at an adjusted p-value of at
    most the selection's level, and that keeps to the guardrails.

    Raises:
        StudyError: a run that was asked for has not ended or was lost to the infrastructure, or
            every run of the baseline or of its projection failed.
    """
    check_complete(selection, trials)
    found, fallback = reports(selection, trials), selection.fallback
    never = (selection.baseline, *selection.barred)
    rest = [name for name in selection.live(trials) if name not in never]
    differences = {
        name: difference
        for name in rest
        if (difference := found[name].difference) is not None
        and _passes(found[name], selection.level)
    }
    kept = {name: d for name, d in differences.items() if not found[name].broken}
    promoted = min(kept, key=kept.__getitem__, default=fallback)
    why = Reason(selection, found, selection.values(trials))
    if kept:
        reason = why.promoted(promoted)
    elif differences:
        reason = why.guardrails_broken(min(differences, key=differences.__getitem__))
    else:
        reason = why.none_passes(rest)
    if not kept:
        reason += why.fallback_broken()
    return Decision(
        baseline=selection.baseline,
        promoted=promoted,
        improved=bool(kept),
        reason=reason,
        confidence=selection.confidence,
        level=selection.level,
        look=1 if selection.look is None else selection.look.number,
        looks=1 if selection.look is None else selection.look.planned,
        candidates=tuple(found.values()),
    )


def check_complete(selection: Selection, trials: Sequence[Trial]) -> None:
    """Refuse to judge before every run that was asked for has an answer.

    Raises:
        StudyError: a run has not ended or was lost, or the baseline has no value.
    """
    lost = selection.lost(trials)
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
    if not selection.done(trials):
        raise StudyError(
            "no verdict: runs that were asked for have not ended",
            where="selection",
            hint="Run `mixopt select` until they have",
        )
    values = selection.values(trials)
    needed = dict.fromkeys((selection.baseline, selection.fallback))
    silent = [name for name in needed if not values[name]]
    if silent:
        raise StudyError(
            f"no verdict: every run of the {silent[0]} mixture diverged, "
            "so nothing can be compared",
            where="selection",
            hint="Lower the learning rate in a new study",
        )


def _passes(report: Candidate, level: float) -> bool:
    if report.difference is None or report.adjusted_p is None:
        return False
    return report.difference < 0 and report.adjusted_p <= level and level > 0
