"""Which promoted model is `champion`: compared on the study's own text, or approved by a person.

The decision is kept in the study's folder; MLflow's aliases follow from it, now or at the next
`mixopt sync`.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from mixopt.core.errors import StudyError
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.mlflow.registered_model import registered_name
from mixopt.study import champion
from mixopt.study.champion import ChampionDecision, Standing
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion


def decide_champion(session: Session) -> None:
    """Decide about the study's promotion, unless that is done, and show it in MLflow.

    Needs the registry: while MLflow cannot be used nothing is decided, and nothing is lost.
    """
    promotion = read_promotion(session.home)
    if promotion is None:
        return
    found = session.tracker.registered(promotion.key)
    if found is None:
        return
    decision = champion.read_decision(session.home, promotion.key)
    if decision is None or not (
        decision.key == found.decision or decision.holds_against(found.standing)
    ):
        decision = _decide(session, promotion, found.standing)
        if decision is None:
            return
        champion.keep_decision(session.home, decision)
    if decision.key != found.decision and session.tracker.decided(decision):
        session.display.say(
            f"registered as {decision.alias} (version {found.version}): {decision.reason}"
        )


def approve_promotion(path: Path, why: str) -> None:
    """Make the promoted model of the study at `path` the champion.

    Raises:
        StudyError: no reason is given, nothing is promoted, or it is the champion already.
        MixoptError: the study cannot be opened.
    """
    if not why.strip():
        raise StudyError("no reason is given", where="--why", hint="Say why in a sentence")
    with open_session(path) as session:
        promotion = read_promotion(session.home)
        if promotion is None:
            raise StudyError(
                "no model is promoted yet",
                where=str(path),
                hint=f"Run `{command('promote', path)}` first",
            )
        found = session.tracker.registered(promotion.key)
        before = champion.read_decision(session.home, promotion.key)
        standing = None if found is None else found.standing
        if standing is not None and standing.promotion == promotion.key:
            raise StudyError("its model is the champion already", where=str(path))
        decision = champion.approved(promotion.key, why.strip(), before, standing)
        champion.keep_decision(session.home, decision)
        shown = found is not None and session.tracker.decided(decision)
        later = "" if shown else f"; `{command('sync', path)}` shows it in MLflow"
        if not session.study.mlflow.enabled:
            later = "; MLflow is switched off, so no registry shows it"
        version = "" if found is None else f", version {found.version}"
        model = f"{registered_name(session.study)}{version} (promotion {promotion.key[:8]})"
        session.display.say(f"approved as champion: {model}{later}")


def _decide(
    session: Session, promotion: Promotion, standing: Standing | None
) -> ChampionDecision | None:
    """The decision about `promotion`; None if there is none for now."""
    verdict, settings = read_verdict(session.home), session.study.promote
    if verdict is None or not verdict.mixture.same_as(promotion.mixture):
        return None  # the study has judged again since: its next promotion is decided about
    tokenizer = session.corpus.tokenizer_hash if promotion.upcycled else None
    decision = champion.decided_without_comparison(
        promotion.key, verdict.improved, standing, tokenizer, trained=promotion.trained
    )
    if decision is None:
        assert standing is not None  # else it is decided
        decision = _compared(session, promotion, standing)
    if decision is None:
        return None
    manual = settings is not None and settings.approve == "manual"
    if manual and (standing is None or standing.promotion != promotion.key):
        return champion.waiting(decision)
    return decision


def _compared(
    session: Session, promotion: Promotion, standing: Standing
) -> ChampionDecision | None:
    """The decision by comparing both models; None while MLflow cannot be used."""
    if not promotion.upcycled:
        return champion.not_evaluable(promotion.key, standing)
    other = [name for name in session.objective.weights if not name.startswith("bpb/")]
    if other:
        return champion.not_comparable(
            promotion.key, standing, f"the objective weighs {other[0]}, not only bits per byte"
        )
    place = session.home / "promotion" / ".champion"
    shutil.rmtree(place, ignore_errors=True)  # of a driver that was killed
    try:
        session.tracker.download_champion(place)
        if not place.is_dir():
            if session.tracker.registered(promotion.key) is None:
                return None  # MLflow is down now: at the next sync
            return champion.not_comparable(promotion.key, standing, "its files are gone")
        measured = _measure(session, promotion, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if "unreadable" in measured:
        return champion.not_comparable(promotion.key, standing, str(measured["unreadable"]))
    return champion.decided_by_difference(promotion.key, standing, measured)


def _measure(session: Session, promotion: Promotion, standing: Path) -> dict[str, Any]:
    """Both models on the study's validation text, evaluated on a worker; see `challenge`."""
    from mixopt.workers.champion_job import Challenge, challenge_on_cluster

    weights, promote = session.objective.weights, session.study.upcycling
    recipe = session.recipe("promote") if promotion.trained else session.evaluation_recipe()
    session.connect()
    session.display.say("comparing the promoted model with the champion")
    ask = Challenge(
        new=str(session.home / "promotion" / promotion.model),
        standing=str(standing),
        corpus=str(session.study.corpus_path),
        recipe=dataclasses.asdict(recipe),
        weights={name.removeprefix("bpb/"): weight for name, weight in weights.items()},
        weighed=session.weighed,
        verified=session.verified,
        document_mask=promote is not None and promote.model.document_mask,
    )
    return challenge_on_cluster(ask, session.resources, session.display.warn)
