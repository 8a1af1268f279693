"""The search: an initial design, rounds of proposals, held-out trials; all in the ledger."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mixopt.core.errors import StudyError
from mixopt.core.space import MixtureSpace
from mixopt.core.trials import Fidelity, Role, Trial, TrialSpec
from mixopt.io import token_losses
from mixopt.io.trial_files import trial_folder
from mixopt.pipelines.study.enqueue import missing_enqueued, run_enqueued
from mixopt.pipelines.study.holdout import missing_holdout, run_holdout
from mixopt.pipelines.study.pruned import pruning_limits
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.trials import add_missing, run_trials
from mixopt.pipelines.views.reliability import reliability_warnings
from mixopt.search import proposers
from mixopt.search.guards import GuardedSpace
from mixopt.study.locked import design_space
from mixopt.study.model import SurrogateFactory, study_model
from mixopt.study.queries import search_trials
from mixopt.study.reliability import study_reliability
from mixopt.study.rounds import Round
from mixopt.study.settings import Study


def design_specs(study: Study, space: MixtureSpace, fidelity: Fidelity) -> list[TrialSpec]:
    """The initial design at the study's seed, then the repeats of its baseline.

    The baseline is that which the study was begun with, whatever its file compares with by now.
    """
    specs = [
        TrialSpec(mixture, fidelity, study.seed, Role.DESIGN)
        for mixture in study.initial_design(design_space(study, space))
    ]
    baseline = specs[0].mixture
    for repeat in range(1, study.search.repeats + 1):
        specs.append(TrialSpec(baseline, fidelity, study.seed + repeat, Role.REPEAT))
    return specs


def search(session: Session) -> list[Trial]:
    """Run the design, all rounds, and the held-out trials, or what is left of them.

    Rounds are synchronous: round r is proposed from the trials of the rounds before it, so that a
    resumed study proposes what the uninterrupted one would have.

    Returns:
        The search's trials: those that are learned from.

    Raises:
        StudyError: the proposer needs what the trials so far did not keep, or predictions of the
            held-out trials were changed.
    """
    study = session.study
    check_kept(session)
    _run_initial_design(session)
    for line in reliability_warnings(study_reliability(study, session.ledger.trials())):
        session.display.warn(line)
    run_enqueued(session)
    for number in range(1, study.search.rounds + 1):
        run_trials(session, f"round {number} of {study.search.rounds}", _batch(session, number))
    run_holdout(session)
    return search_trials(session.ledger.trials())


def _batch(session: Session, number: int) -> list[Trial]:
    """The trials of round `number`, asked for if they are not in the ledger yet."""
    trials = search_trials(session.ledger.trials())
    before = [t for t in trials if t.spec.round < number]
    batch = [t for t in trials if t.spec.round == number and t.spec.role is Role.SEARCH]
    asked = session.ledger.rounds().get(number)
    if asked is None:
        session.display.say(f"round {number}: fitting {len(before)} trials, proposing …")
        asked = propose(session, before, number)
        session.ledger.keep_round(asked)
    if len(batch) < len(asked.specs):
        limits = pruning_limits(session, before)
        batch = add_missing(session.ledger, session.space, asked.specs, limits)
    return batch


def require_complete(session: Session) -> None:
    """Refuse what comes after the search while trials of it are missing.

    Raises:
        StudyError: some have not ended; the command that trains them is named. Or predictions of
            the held-out trials were changed.
    """
    study = session.study
    trials = search_trials(session.ledger.trials())
    ended = Counter(t.spec.round for t in trials if t.ended and t.spec.role is not Role.ENQUEUED)
    rounds = session.ledger.rounds()
    asked = [len(design_specs(study, session.space, session.fidelity))]
    for number in range(1, study.search.rounds + 1):
        known = rounds.get(number)
        asked.append(len(known.specs) if known else study.search.batch)
    missing = sum(max(0, number - ended[part]) for part, number in enumerate(asked))
    enqueued, held_out = missing_enqueued(session), missing_holdout(session)
    if lacking := missing + enqueued + held_out:
        of = sum(asked) + enqueued + study.search.holdout
        raise StudyError(
            f"the search is not complete: {lacking} of its {of} trials have not ended",
            where=str(study.path),
            hint=f"Run `mixopt search {study.path}` first",
        )


def check_kept(session: Session) -> None:
    """Refuse a proposer that needs what trials of before it was chosen did not keep.

    Raises:
        StudyError: a complete trial keeps no losses of the tokens that the proposer goes by.
    """
    study = session.study
    needed = {f"loss/{domain}" for domain in session.kept_domains}
    trials = search_trials(session.ledger.trials())
    proposed = max((t.spec.round for t in trials), default=0) >= study.search.rounds
    if not needed or proposed:
        return
    lacking = [
        t.number
        for t in trials
        if t.complete and not needed <= token_losses.kept(trial_folder(session.home, t.number))
    ]
    if lacking:
        some = ", ".join(map(str, lacking[:5])) + (", …" if len(lacking) > 5 else "")
        raise StudyError(
            f"the proposer {study.search.proposer!r} needs the loss of every token of "
            f"{', '.join(session.kept_domains)}, and {len(lacking)} of {len(trials)} trials did "
            f"not keep it ({some}): they were trained for another proposer or objective",
            where=f"{study.path}: search.proposer",
            hint="Choose another proposer, or begin a new study with this one",
        )


def _run_initial_design(session: Session) -> None:
    """Train the design and its repeats; with a pruner a first part goes before the rest.

    The limits of the rest follow from that part alone, and are written down with each trial.
    """
    study, ledger, space = session.study, session.ledger, session.space
    specs, pruner = design_specs(study, space, session.fidelity), study.search.pruner
    first = len(specs) if pruner is None else pruner.startup_trials
    if first >= len(specs):
        run_trials(session, "initial design", add_missing(ledger, space, specs))
        return
    startup = add_missing(ledger, space, specs[:first])
    done = run_trials(session, "initial design, startup", startup)
    rest = add_missing(ledger, space, specs[first:], pruning_limits(session, done))
    run_trials(session, "initial design", rest)


def propose(session: Session, before: Sequence[Trial], number: int) -> Round:
    """Round `number`, asked for by the trials of the rounds before it and the settings of now."""
    study = session.study
    kind = proposers.find(study.search.proposer)
    model = study_model(study, session.fidelity, before)
    surrogate, space = SurrogateFactory(model), session.space
    if kind.informed and (guards := model.guards(space)) is not None:
        space = GuardedSpace.of(space, guards)
    token_predictions = predictions(session.home, session.kept_domains)
    proposer = kind(
        space=space,
        objective=session.objective,
        fidelity=session.fidelity,
        surrogate=surrogate,
        seed=study.seed,
        trial_seed=study.seed,
        **({"predictions": token_predictions} if kind.needs_token_losses else {}),
    )
    with study.naming():
        specs = proposer.propose(before, study.search.batch)
    return Round(
        number,
        study.search.proposer,
        surrogate.name,
        session.objective.weights,
        [dataclasses.replace(spec, round=number) for spec in specs],
    )


def predictions(home: Path, domains: Sequence[str]) -> Callable[[Trial], dict[str, np.ndarray]]:
    """A function from a complete trial to metric → (t,) log-probabilities of its tokens.

    The function raises a CheckpointError where the trial's folder has lost them.

    Args:
        home: the study folder.
        domains: the validation domains whose tokens' losses are kept.
    """

    def of(trial: Trial) -> dict[str, np.ndarray]:
        kept = token_losses.read(trial_folder(home, trial.number) / token_losses.TOKENS)
        # a token that is certain may cost a rounding error less than nothing
        return {f"bpb/{d}": np.minimum(-kept[f"loss/{d}"], 0.0) for d in domains}

    return of
