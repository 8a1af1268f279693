"""Selection: the finalists with fresh seeds, and the gate that decides what is promoted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.trials import Trial
from mixopt.io import files
from mixopt.io.json_values import finite
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.pipelines.views.wording import before_selection
from mixopt.search.optimum import Recommendation
from mixopt.selection.gate import (
    NATURAL,
    PROJECTED,
    CandidateReport,
    Selection,
    best_observed,
    finalists,
)
from mixopt.selection.looks import Look, Looks
from mixopt.study.looks_taken import keep_looks, looks_taken
from mixopt.study.model import StudyModel, search_trials, study_model
from mixopt.study.records import read_verdict
from mixopt.study.rounds import Judged
from mixopt.study.settings import digest
from mixopt.surrogates.noise import Forecast

FRESH = 1000  # selection's seeds begin here above the study's; the search never gets that far
VERDICT = "verdict.json"
REFERENCES = (NATURAL, PROJECTED, "uniform", "projected uniform")  # candidates that no search found


def select(session: Session) -> dict[str, Any]:
    """Run the finalists, or what is left of them, and write `verdict.json`.

    Everything follows from the ledger: the same trials give the same finalists and verdict. Runs
    that an earlier call lost to the infrastructure are run once more.

    Returns:
        The content of `verdict.json`.

    Raises:
        StudyError: runs were lost again, so that there is no verdict.
    """
    trials = search_trials(session.ledger.trials())
    before = settled(session)
    if before:
        return before
    looks = _looks(session)
    model = study_model(session.study, session.fidelity, trials)
    choice = model.choice
    known = sum(t.complete for t in trials)
    session.display.say(f"fitting {known} trials with {choice.name}, looking for the optimum …")
    found = model.optimum(session.space)
    foretold = model.forecast(trials, found.mixture, (found.mean, found.std))
    session.display.say(before_selection(foretold, session.objective))
    selection = _selection(session, found, trials)
    look = looks.at(_look_basis(session, trials, selection), selection.confidence)
    selection = dataclasses.replace(selection, look=look)
    session.display.say(_before_look(look))
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
        run_trials(session, "selection", [*unfinished, *added])
    selection.check_complete(session.ledger.trials())
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
    said = _verdict(session, selection, found, model)
    said["of"] = _basis(session, trials)
    files.write_json(session.home / VERDICT, said)
    session.tracker.verdict(said)
    return said


def settled(session: Session) -> dict[str, Any]:
    """The verdict that is there, if it follows from the trials and settings of now; else empty.

    Raises:
        StudyError: the study file plans other looks than were fixed at the first.
    """
    _looks(session)  # a study file that plans other looks is refused, whatever is there
    verdict = read_verdict(session.home)
    basis = _basis(session, search_trials(session.ledger.trials()))
    return verdict if verdict.get("of") == basis else {}


def _basis(session: Session, trials: Sequence[Trial]) -> str:
    """Identity of what a verdict follows from: the search's trials, and what was asked for."""
    study = session.study
    asked = [
        study.select.model_dump(exclude={"looks"}),
        study.search.surrogate,
        dict(session.objective.weights),
    ]
    asked.append(study.space.model_dump())
    return digest([*asked, [(t.number, t.state) for t in trials]])


def _looks(session: Session) -> Looks:
    """The looks taken at the study so far, or those that the study file plans.

    Raises:
        StudyError: the study file plans another number than was fixed at the first look.
    """
    planned = session.study.select.looks
    looks = looks_taken(session.ledger, session.home)
    if looks is None:
        looks = Looks(planned)
        before = read_verdict(session.home).get("of")
        if before:  # judged before looks were recorded
            looks = looks.take(looks.at(before, session.study.select.confidence))
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
    """What the next verdict may promote, before anything is run for it."""
    if look.number > look.planned:
        return (
            f"select.looks: {look.planned} of {look.planned} looks are used up, so this one is "
            "measured but cannot promote"
        )
    return (
        f"look {look.number} of {look.planned}: promotes at an adjusted p-value of at most "
        f"{look.level:.3g}"
    )


def _selection(session: Session, found: Recommendation, trials: Sequence[Trial]) -> Selection:
    settings, study = session.study.select, session.study
    allowed = [t for t in trials if session.space.contains(t.spec.mixture)]
    observed = best_observed(allowed, session.objective)
    candidates = finalists(found.mixture, observed, session.space)
    rejects = settings.rule == "successive-rejects"
    # Successive rejects spends on the last candidates what it saves on the first: up to twice the
    # seeds.
    seeds = settings.seeds * (2 if rejects else 1)
    return Selection(
        candidates=candidates,
        fidelity=session.fidelity,
        objective=session.objective,
        seeds=range(study.seed + FRESH, study.seed + FRESH + seeds),
        confidence=settings.confidence,
        budget=settings.seeds * len(candidates) if rejects else None,
        rule=settings.rule,
        round=study.search.rounds + 1,
    )


def _verdict(
    session: Session,
    selection: Selection,
    found: Recommendation,
    model: StudyModel,
) -> dict[str, Any]:
    trials = session.ledger.trials()
    verdict = selection.verdict(trials)
    weights = np.stack([mixture.array for mixture in selection.candidates.values()])
    mean, std = model.fitted().predict(weights).compose(session.objective)
    candidates = [
        _candidate(session, name, report, selection.pulls(trials))
        | _foretold(model.forecast(trials, report.mixture, said), report)
        for (name, report), said in zip(
            verdict.candidates.items(), zip(mean.tolist(), std.tolist(), strict=True), strict=True
        )
    ]
    foretold = model.forecast(trials, found.mixture, (found.mean, found.std))
    searched = [
        candidate
        for candidate in candidates
        if candidate["name"] not in REFERENCES and candidate["difference"] is not None
    ]
    best = min(searched, key=lambda candidate: candidate["difference"], default=None)
    if verdict.improved:  # of two that are close, the one that was promoted
        best = next(
            (candidate for candidate in searched if candidate["name"] == verdict.winner), best
        )
    return {
        "baseline": NATURAL,
        "promoted": verdict.winner,
        "improved": verdict.improved,
        "found": best["name"] if best else None,
        "reason": verdict.reason,
        "confidence": selection.confidence,
        "level": selection.level,
        "look": selection.look and {"number": selection.look.number, "of": selection.look.planned},
        "mixture": verdict.promoted.as_dict(),
        "candidates": candidates,
        "recommended": found.mixture.as_dict(),
        "interval": list(foretold.within()),
        "interval_of_run": list(foretold.within(runs=1)),
        "interval_of_this_seed": list(foretold.this_seed),
        "seed_scatter": foretold.scatter and dataclasses.asdict(foretold.scatter),
        "unconstrained": found.unconstrained.as_dict(),
        "unconstrained_mean": found.unconstrained_mean,
        "binding": list(found.binding),
        "prices": found.prices,
        "kl": finite(found.kl),
        "kl_penalty": found.kl_penalty,
        "surrogate": model.choice.name,
        "surrogate_scores": {
            name: finite(dataclasses.asdict(scores)) for name, scores in model.choice.scores.items()
        },
    }


def _candidate(
    session: Session, name: str, report: CandidateReport, trials: Sequence[Trial]
) -> dict[str, Any]:
    runs = [t.result for t in trials if t.spec.candidate == name and t.result is not None]
    return {
        "name": name,
        "mixture": report.mixture.as_dict(),
        "mean": finite(report.mean),
        "std": finite(report.sd),
        "n": report.n,
        "values": [session.objective.value(run.metrics) for run in runs],
        "difference": finite(report.difference),
        "difference_low": finite(report.low),
        "difference_high": finite(report.high),
        "adjusted_p": finite(report.adjusted_p),
        "tokens": sum(run.cost.tokens for run in runs),
        "device_seconds": sum(run.cost.device_seconds for run in runs),
    }


def _foretold(said: Forecast, report: CandidateReport) -> dict[str, Any]:
    """What the search foretold of a candidate, and whether the mean over its fresh seeds is within.

    `predicted_std` is for the search's own seed, the interval for as many fresh ones as ran.
    """
    low, high = said.within(runs=report.n or math.inf)
    return {
        "predicted_mean": said.mean,
        "predicted_std": said.std,
        "predicted_low": low,
        "predicted_high": high,
        "inside": low <= report.mean <= high if report.n else None,
    }
