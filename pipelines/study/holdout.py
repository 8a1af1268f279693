"""Held-out trials: mixtures whose results are predicted, the predictions hashed, and then run.

    holdout.json      written once, when the search has ended; its SHA-256 goes to the ledger

A driver that is killed anywhere goes on with the predictions that are there.
"""

from __future__ import annotations

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.trials import Role, Trial, TrialSpec
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.search import designs
from mixopt.selection.results import Predicted
from mixopt.study.holdout import (
    FILE,
    HeldOut,
    Holdout,
    file_digest,
    read_holdout,
    write_holdout,
)
from mixopt.study.locked import design_space
from mixopt.study.model import study_model
from mixopt.study.queries import search_trials

SEEDS = 500  # above the study's: those of held-out trials begin here, of selection 500 further on


def run_holdout(session: Session) -> list[Trial]:
    """Predict the held-out trials and run them, or what is left of it; none if none are asked for.

    Raises:
        StudyError: the predictions were changed, or are of another number of trials.
    """
    study, ledger = session.study, session.ledger
    if not study.search.holdout and ledger.holdout() is None:
        return []
    held = _kept(session) or _predict(session)
    if ledger.holdout() is None:
        digest = file_digest(session.home)
        ledger.keep_holdout(digest)
        session.display.say(
            f"{len(held.trials)} held-out trials are predicted by {held.surrogate} from "
            f"{held.learned} trials; {FILE} has SHA-256 {digest[:12]}…"
        )
        session.tracker.predicted(digest)
    trials = add_missing(ledger, session.space, [it.spec for it in held.trials])
    return run_trials(session, "held-out trials", trials)


def missing_holdout(session: Session) -> int:
    """How many held-out trials have not ended.

    Raises:
        StudyError: the predictions were changed, or are of another number of trials.
    """
    held = _kept(session)
    if held is None:
        return session.study.search.holdout
    ended = [trial for trial in session.ledger.trials() if trial.spec.role is Role.HOLDOUT]
    return len(held.trials) - sum(trial.ended for trial in ended)


def _kept(session: Session) -> Holdout | None:
    """The predictions that were made; None before."""
    digest, asked = session.ledger.holdout(), session.study.search.holdout
    if digest is None and not (asked and (session.home / FILE).exists()):
        return None
    held = read_holdout(session.home, digest)
    if len(held.trials) != asked:
        raise StudyError(
            f"{len(held.trials)} held-out trials were predicted, and {asked} are asked for now",
            where=f"{session.study.path}: search.holdout",
            hint="Put it back, or hold out another number in a new study",
        )
    return held


def _predict(session: Session) -> Holdout:
    """Draw the held-out mixtures, predict a run of each, and write that down."""
    study, trials = session.study, session.ledger.trials()
    searched = search_trials(trials)
    taken = np.array([trial.spec.mixture.array for trial in searched])
    space, search = design_space(study, session.space), study.search
    with study.naming():
        mixtures = designs.extend(space, taken, search.holdout, study.seed, search.design)
    model = study_model(study, session.fidelity, searched)
    weights = np.stack([mixture.array for mixture in mixtures])
    means, stds = model.fitted().predict(weights).compose(session.objective)
    held: list[HeldOut] = []
    scatter = None
    for mixture, mean, std in zip(mixtures, means.tolist(), stds.tolist(), strict=True):
        forecast = model.forecast(trials, mixture, (mean, std))
        scatter = forecast.scatter
        # without repeats nothing is known of other seeds than the search's own
        seed = study.seed if scatter is None else study.seed + SEEDS + len(held)
        spec = TrialSpec(mixture, session.fidelity, seed, Role.HOLDOUT, search.rounds)
        held.append(HeldOut(spec, Predicted(mean, std, *forecast.within(runs=1))))
    found = Holdout(
        surrogate=model.name,
        learned=sum(trial.complete for trial in searched),
        weights=session.objective.weights,
        scatter=None if scatter is None else scatter.std,
        trials=tuple(held),
    )
    write_holdout(session.home, found)
    return found
