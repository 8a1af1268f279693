"""Selection: the finalists with fresh seeds, and the gate that decides what is promoted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.trials import Failure, Trial
from mixopt.io import files
from mixopt.pipelines.study.multipliers import compute_multipliers
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.pipelines.views.smallest_difference import smallest_difference_line
from mixopt.pipelines.views.time_left import TRIALS
from mixopt.pipelines.views.wording import before_selection
from mixopt.search.optimum import Recommendation
from mixopt.selection.candidates import NATURAL, PROPOSED, SAME, best_observed, finalists
from mixopt.selection.gate import check_complete, judge
from mixopt.selection.guarded import keeping_to
from mixopt.selection.looks import Look, Looks
from mixopt.selection.results import Candidate, Predicted
from mixopt.selection.runs import Selection
from mixopt.study import smallest_difference
from mixopt.study.hashes import digest
from mixopt.study.looks_taken import keep_looks, looks_taken
from mixopt.study.model import StudyModel, study_model
from mixopt.study.queries import search_trials
from mixopt.study.records import read_verdict
from mixopt.study.results import Verdict
from mixopt.study.rounds import Judged

FRESH = 1000  # selection's seeds begin here above the study's; the search never gets that far
VERDICT = "verdict.json"


def select(session: Session) -> Verdict:
    """Run the finalists, or what is left of them, and write `verdict.json`.

    Everything follows from the ledger: the same trials give the same finalists and verdict. Runs
    that an earlier call lost to the infrastructure are run once more.

    Raises:
        StudyError: runs were lost again, so that there is no verdict.
    """
    trials = search_trials(session.ledger.trials())
    before = current_verdict(session)
    if before is not None:
        return before
    looks = _looks(session)
    model = study_model(session.study, session.fidelity, trials)
    choice = model.choice
    known = sum(t.complete for t in trials)
    session.display.say(f"fitting {known} trials with {choice.name}, looking for the optimum …")
    found = model.optimum(session.space)
    predicted = model.forecast(trials, found.mixture, (found.mean, found.std))
    session.display.say(before_selection(predicted, session.objective, trials))
    selection = _selection(session, found, trials)
    look = looks.at(_look_basis(session, trials, selection), selection.confidence)
    selection = dataclasses.replace(selection, look=look)
    if session.study.elsewhere and not look.level:
        _refuse_runs(session, selection)
    session.display.say(_before_look(look))
    unspent = selection.next_pulls(session.ledger.trials())
    if look.level > 0 and len(selection.candidates) > 1 and unspent:
        seen = smallest_difference.of_selection(selection, session.ledger.trials())
        session.display.say(smallest_difference_line(seen, session.objective))
    for trial in selection.lost(session.ledger.trials()):
        session.ledger.add(trial.spec)
    while True:
        pulls = selection.next_pulls(session.ledger.trials())
        unfinished = [
            t
            for t in session.ledger.trials()
            if t.spec.candidate in selection.candidates and not t.ended
        ]
        if not pulls and not unfinished:
            break
        added = add_missing(session.ledger, session.space, pulls)
        left = session.display.left
        if left is not None and session.study.select.rule == "repeat":
            left.expect(TRIALS, len(unfinished) + len(added))  # planned were as many at most
        run_trials(session, "selection", [*unfinished, *added])
    check_complete(selection, session.ledger.trials())
    keep_looks(session.ledger, session.home, looks.take(look))  # before its verdict is known
    asked = session.study.select
    session.ledger.keep_judged(
        Judged(
            look.number,
            asked.rule,
            asked.seeds,
            look.confidence,
            choice.name,
            session.objective.weights,
        )
    )
    verdict = _verdict(session, selection, found, model, _basis(session, trials))
    files.write_json(session.home / VERDICT, verdict.to_json())
    session.tracker.verdict(verdict)
    return verdict


def _refuse_runs(session: Session, selection: Selection) -> None:
    """Refuse to hand out runs that can promote nothing: they cost what others train.

    Raises:
        StudyError: some are missing.
    """
    missing = selection.next_pulls(session.ledger.trials())
    if missing:
        raise StudyError(
            f"no look is left, so that {len(missing)} further trainings could promote nothing; "
            "none is handed out",
            where=f"{session.study.path}: select.looks",
            hint="The last verdict stands. Plan more looks in a new study",
        )


def current_verdict(session: Session) -> Verdict | None:
    """The verdict in the study folder; None unless it follows from today's trials and settings.

    Raises:
        StudyError: the study file plans other looks than were fixed at the first.
    """
    _looks(session)  # a study file that plans other looks is refused, whatever is there
    verdict = read_verdict(session.home)
    basis = _basis(session, search_trials(session.ledger.trials()))
    return verdict if verdict is not None and verdict.basis == basis else None


def _basis(session: Session, trials: Sequence[Trial]) -> str:
    """Identity of what a verdict follows from: the search's trials, and what was asked for."""
    study = session.study
    return digest(
        [
            study.select.model_dump(exclude={"looks", "at"}),
            study.search.surrogate,
            dict(session.objective.weights),
            study.space.model_dump(),
            [(t.number, t.state) for t in trials],
            *_compared(session),
            *_corrected(session),
            *(dataclasses.asdict(guardrail) for guardrail in study.guarded()),
        ]
    )


def _compared(session: Session) -> list[list[Any]]:
    """The baselines as part of a basis; nothing for natural alone, as before there were others."""
    found = session.baselines
    return [] if list(found) == [NATURAL] else [[[n, m.as_dict()] for n, m in found.items()]]


def _corrected(session: Session) -> list[Any]:
    """The trials that were corrected as part of a basis, of the search and of selection."""
    return [
        [t.number, *(it.to_json() for it in t.replaced)]
        for t in session.ledger.trials()
        if t.replaced
    ]


def _looks(session: Session) -> Looks:
    """The looks taken at the study so far, or those that the study file plans.

    Raises:
        StudyError: the study file plans another number than was fixed at the first look.
    """
    planned = session.study.select.looks
    looks = looks_taken(session.ledger, session.home) or Looks(planned)
    if looks.planned != planned:
        raise StudyError(
            f"{looks.planned} was fixed at the study's first look, and {planned} is asked for now",
            where=f"{session.study.path}: select.looks",
            hint="Put it back, or plan other looks in a new study",
        )
    return looks


def _look_basis(session: Session, trials: Sequence[Trial], selection: Selection) -> str:
    """Identity of a look: a verdict's basis, and the candidates that follow from it."""
    candidates = {name: mixture.as_dict() for name, mixture in selection.candidates.items()}
    return digest([_basis(session, trials), candidates])


def _before_look(look: Look) -> str:
    """At what the next verdict passes a candidate, before anything is run for it."""
    if look.number > look.planned:
        return (
            f"select.looks: {look.planned} of {look.planned} looks are used up, so this one is "
            "measured, but no candidate can pass"
        )
    return (
        f"look {look.number} of {look.planned}: a candidate passes at an adjusted p-value of at "
        f"most {look.level:.3g}"
    )


def _selection(session: Session, found: Recommendation, trials: Sequence[Trial]) -> Selection:
    settings, study = session.study.select, session.study
    allowed = [t for t in trials if session.space.contains(t.spec.mixture)]
    kept = keeping_to(study.guarded(), allowed, session.space.reference)
    observed = best_observed(kept, session.objective)
    diverged = [t.spec.mixture for t in trials if t.failure is Failure.DIVERGED]
    candidates = finalists(found.mixture, observed, session.space, session.baselines, diverged)
    first, *others = session.baselines
    if any(found.mixture.distance(other) < SAME for other in diverged):
        session.display.warn("a training diverged on the recommended mixture: it is no finalist")
    seeds, budget = settings.runs(len(candidates))
    return Selection(
        candidates=candidates,
        fidelity=session.fidelity,
        objective=session.objective,
        seeds=range(study.seed + FRESH, study.seed + FRESH + seeds),
        confidence=settings.confidence,
        budget=budget,
        rule=settings.rule,
        round=study.search.rounds + 1,
        baseline=first,
        barred=[
            name
            for name in others
            if not session.space.contains(mixture := session.baselines[name])
            or any(mixture.distance(other) < SAME for other in diverged)
        ],
        guardrails=study.guarded(),
    )


def _verdict(
    session: Session,
    selection: Selection,
    optimum: Recommendation,
    model: StudyModel,
    basis: str,
) -> Verdict:
    trials = session.ledger.trials()
    decision = judge(selection, trials)
    candidates = _predicted(model, trials, decision.candidates)
    predicted = model.forecast(trials, optimum.mixture, (optimum.mean, optimum.std))
    return Verdict(
        baseline=decision.baseline,
        promoted=decision.promoted,
        improved=decision.improved,
        reason=decision.reason,
        confidence=decision.confidence,
        level=decision.level,
        look=decision.look,
        looks=decision.looks,
        candidates=candidates,
        found=_best_proposed(candidates, decision.promoted if decision.improved else None),
        recommended=optimum.mixture,
        interval=predicted.within(),
        interval_of_run=predicted.within(runs=1),
        interval_of_this_seed=predicted.this_seed,
        seed_scatter=predicted.scatter,
        unconstrained=optimum.unconstrained,
        unconstrained_mean=optimum.unconstrained_mean,
        unguarded=optimum.unguarded,
        unguarded_mean=optimum.unguarded_mean,
        guards=optimum.guards,
        binding=tuple(optimum.binding),
        prices=optimum.prices,
        kl=optimum.kl if math.isfinite(optimum.kl) else None,
        kl_penalty=optimum.kl_penalty,
        surrogate=model.choice.name,
        surrogate_scores=model.choice.scores,
        multipliers=compute_multipliers(session.study, session.fidelity, candidates, trials),
        basis=basis,
    )


def _predicted(
    model: StudyModel, trials: Sequence[Trial], candidates: Sequence[Candidate]
) -> tuple[Candidate, ...]:
    """The candidates with the model's predictions of their means over the seeds that ran."""
    weights = np.stack([candidate.mixture.array for candidate in candidates])
    means, stds = model.fitted().predict(weights).compose(model.settings.objective)
    found = []
    for candidate, mean, std in zip(candidates, means.tolist(), stds.tolist(), strict=True):
        forecast = model.forecast(trials, candidate.mixture, (mean, std))
        predicted = Predicted(mean, std, *forecast.within(runs=candidate.n or math.inf))
        found.append(dataclasses.replace(candidate, predicted=predicted))
    return tuple(found)


def _best_proposed(candidates: Sequence[Candidate], promoted: str | None) -> str | None:
    """The best candidate that the search proposed; of two that are close, the promoted one."""
    differences = {
        candidate.name: candidate.difference
        for candidate in candidates
        if candidate.name in PROPOSED and candidate.difference is not None
    }
    if promoted in differences:
        return promoted
    return min(differences, key=differences.__getitem__, default=None)
