"""The check before a promotion is paid for: the order of mixtures at a larger size (`select.at`).

    transfer.json     what the runs there showed; follows from the ledger

Where the order does not hold the study stops, until `mixopt overrule` records why it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.core.trials import Failure, Fidelity, Role, Trial, TrialSpec
from mixopt.io import files
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.transfer_words import transfer_lines
from mixopt.selection.results import Candidate
from mixopt.selection.transfer import LEVEL, Agreement, Runs, Transfer, agreement
from mixopt.study.data import TrainingData
from mixopt.study.hashes import digest
from mixopt.study.records import read_transfer
from mixopt.study.results import Verdict
from mixopt.study.sections import LargerSize
from mixopt.study.settings import Study
from mixopt.study.snapshot import read_snapshot
from mixopt.study.trainings import larger_fidelity

FILE = "transfer.json"  # in a study folder
SEEDS = 2000  # above the study's: those of selection begin 1000 before


class OrderLost(StudyError):
    """The order of the mixtures does not hold at a larger size, and nobody has overruled that."""


def check_transfer(session: Session, verdict: Verdict) -> Transfer | None:
    """Run the baseline and the best candidates at `select.at`, or what is left of it, and judge.

    None where the study has no such size, or promotes the baseline: then nothing is to carry over.

    Raises:
        OrderLost: the order does not hold there, and nobody has overruled that.
        StudyError: runs were lost.
    """
    at, fidelity = session.study.select.at, larger_fidelity(session.study, session.data)
    if at is None or fidelity is None or not verdict.improved:
        return None
    compared = compared_there(verdict, at)
    specs = _specs(session, verdict, at, fidelity, compared)
    trials = add_missing(session.ledger, session.space, specs)
    again = [session.ledger.add(trial.spec) for trial in _lost(trials)]
    done = run_trials(session, "larger size", [*trials, *again], session.larger_flops)
    if lost := _lost(done[len(trials) :]) if again else _lost(done):
        raise StudyError(
            f"no comparison at the larger size: trials {', '.join(str(t.number) for t in lost)} "
            "were lost for another reason than their recipe",
            where=str(session.study.path),
            hint="See to the cause, then run the same command again: it runs them once more",
        )
    found = _judged(session, verdict, fidelity, at.seeds, compared, done)
    files.keep_json(session.home / FILE, found.to_json())
    session.tracker.transfer(found, session.ledger.overruled().get(found.basis))
    for line in transfer_lines(found, session.ledger.overruled(), session.objective.sign):
        session.display.say(line)
    if not found.kept and found.basis not in session.ledger.overruled():
        raise _lost_order(session.study, found)
    return found


def require_transfer(session: Session, verdict: Verdict) -> None:
    """Refuse a promotion that the check at the larger size does not allow, or was not made for.

    Raises:
        OrderLost: the order does not hold there, and nobody has overruled that.
        StudyError: the check is missing.
    """
    _require(session.study, session.data, verdict, session.ledger.overruled)


def require_transfer_to_leave(study: Study, verdict: Verdict) -> None:
    """The same of a mixture that leaves for another trainer; needs no open session.

    Raises:
        OrderLost: as `require_transfer`.
        StudyError: the check is missing.
        LedgerError: the ledger, which knows what was overruled, cannot be reached.
    """
    if study.select.at is not None and verdict.improved:
        _require(study, study.training_data(), verdict, lambda: read_snapshot(study).overruled)


def _require(
    study: Study,
    data: TrainingData,
    verdict: Verdict,
    overruled: Callable[[], Mapping[str, str]],
) -> None:
    at, fidelity = study.select.at, larger_fidelity(study, data)
    if at is None or fidelity is None or not verdict.improved:
        return
    found = read_transfer(study)
    if found is None or found.basis != _basis(verdict, fidelity, at):
        raise StudyError(
            "the order of the mixtures is not checked at the larger size yet (select.at)",
            where=str(study.path),
            hint=f"Run `{command('select', study.path)}` first",
        )
    if not found.kept and found.basis not in overruled():
        raise _lost_order(study, found)


def overrule(path: Path, why: str) -> None:
    """Record that the study at `path` goes on in spite of its check at a larger size.

    Raises:
        StudyError: no reason is given, or there is nothing to overrule.
        MixoptError: the study cannot be opened.
    """
    if not why.strip():
        raise StudyError("no reason is given", where="--why", hint="Say why in a sentence")
    with open_session(path) as session:
        found = read_transfer(session.study)
        if found is None or found.kept:
            raise StudyError(
                "no check at a larger size has stopped the study",
                where=str(path),
                hint=f"See where it stands: {command('status', path)}",
            )
        session.ledger.keep_overruled(found.basis, why.strip())
        session.tracker.transfer(found, why.strip())
        session.display.say(f"recorded. Next: {command('run', path)}")


def compared_there(verdict: Verdict, at: LargerSize) -> list[Candidate]:
    """The baseline, the promoted candidate, and the best of the others."""
    others = [
        it
        for it in verdict.candidates
        if it.name not in (verdict.baseline, verdict.promoted) and it.difference is not None
    ]
    others.sort(key=lambda it: it.difference or 0.0)
    return [verdict.candidates[0], verdict.winner, *others[: at.candidates - 1]]


def _specs(
    session: Session,
    verdict: Verdict,
    at: LargerSize,
    fidelity: Fidelity,
    compared: Sequence[Candidate],
) -> list[TrialSpec]:
    """Every mixture with every seed; the seeds are of neither search nor selection."""
    first = session.study.seed + SEEDS
    number = session.study.search.rounds + 2  # selection's is one less
    return [
        TrialSpec(it.mixture, fidelity, seed, Role.TRANSFER, number, it.name)
        for seed in range(first, first + at.seeds)
        for it in compared
    ]


def _lost(trials: Sequence[Trial]) -> list[Trial]:
    """Those that ended without an answer: neither measured, nor diverged, nor given up."""
    final = (Failure.DIVERGED, Failure.GIVEN_UP)
    return [t for t in trials if t.ended and not t.complete and t.failure not in final]


def _basis(verdict: Verdict, fidelity: Fidelity, at: LargerSize) -> str:
    size = [fidelity.model, fidelity.params, fidelity.tokens]
    mixtures = [[it.name, it.mixture.as_dict()] for it in compared_there(verdict, at)]
    return digest([verdict.basis, mixtures, size, at.seeds])


def _judged(
    session: Session,
    verdict: Verdict,
    fidelity: Fidelity,
    seeds: int,
    compared: Sequence[Candidate],
    trials: Sequence[Trial],
) -> Transfer:
    at = session.study.select.at
    assert at is not None
    small = _runs(session, compared, session.ledger.trials(), Role.SELECT)
    found = agreement(small, _runs(session, compared, trials, Role.TRANSFER))
    return Transfer(
        baseline=verdict.baseline,
        promoted=verdict.promoted,
        verdict=verdict.basis,
        fidelity=fidelity,
        seeds=seeds,
        rows=found.rows,
        correlation=found.correlation,
        order_p=found.order_p,
        gain_p=found.gain_p,
        kept=found.kept,
        reason=_reason(found, verdict),
        basis=_basis(verdict, fidelity, at),
    )


def _runs(
    session: Session, compared: Sequence[Candidate], trials: Sequence[Trial], role: Role
) -> Runs:
    """Objective by candidate and seed of the complete runs with that role."""
    found: dict[str, dict[int, float]] = {it.name: {} for it in compared}
    for it in compared:
        for trial in trials:
            value = session.objective.of_trial(trial)
            spec = trial.spec
            same = (spec.role, spec.candidate, spec.mixture) == (role, it.name, it.mixture)
            if same and value is not None:
                found[it.name].setdefault(spec.seed, value)
    return found


def _reason(found: Agreement, verdict: Verdict) -> str:
    """Whether the order holds, and why, as a sentence without its end."""
    if found.correlation is None or found.gain_p is None or found.order_p is None:
        return f"{verdict.baseline} and {verdict.promoted} cannot be compared there: runs diverged"
    if found.gain_p < LEVEL:
        return (
            f"{verdict.promoted} is no better than {verdict.baseline} there; noise would do that "
            f"to a gain of half the size in {found.gain_p:.1%} of such checks"
        )
    if found.order_p < LEVEL:
        return (
            f"the order is another one; noise would do that to differences of half the size in "
            f"{found.order_p:.1%} of such checks"
        )
    if found.gain_p < 1:
        return (
            f"{verdict.promoted} is no better than {verdict.baseline} there, but noise alone would "
            f"do that to a gain of half the size in {found.gain_p:.0%} of such checks: more seeds "
            "(select.at.seeds) would tell"
        )
    if found.reversal >= LEVEL:
        return (
            "the order holds; but noise could have reversed a gain of half the size in "
            f"{found.reversal:.0%} of such checks"
        )
    return "the order holds"


def _lost_order(study: Study, found: Transfer) -> OrderLost:
    return OrderLost(
        f"the order of the mixtures does not hold at {count(found.fidelity.tokens)} tokens "
        f"(select.at): {found.reason}",
        where=str(study.home / FILE),
        hint="Search nearer to the promoted size in a new study (proxy.tokens, proxy.model), or go "
        f"on by `{command('overrule', study.path, '--why', 'your reason')}`",
    )
