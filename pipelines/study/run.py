"""`mixopt run STUDY.yaml`: search, select, promote, from wherever the study stands.

The same as a Ray job:
    ray job submit --working-dir . -- python -m mixopt run STUDY.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mixopt.core.errors import StudyError
from mixopt.io import files
from mixopt.pipelines.study import champion, plan_steps, promote, search, select
from mixopt.pipelines.study.full_run_elsewhere import FullRunWaits
from mixopt.pipelines.study.notify import notifying
from mixopt.pipelines.study.own_promotion import full_run_flops
from mixopt.pipelines.study.plan_trials import planned_larger, planned_trials
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.study.standing import read_standing
from mixopt.pipelines.study.timed import time_left
from mixopt.pipelines.study.transfer import OrderLost, check_transfer, require_transfer
from mixopt.pipelines.study.trials import TrialsWait
from mixopt.pipelines.views.closing import print_closing
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import Display, make_console, make_error_console
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.mlflow.problem import problem
from mixopt.pipelines.views.report import write_report
from mixopt.study import identity
from mixopt.study.ledger_checks import refuse_lost
from mixopt.study.locked import require_begun
from mixopt.study.results import Verdict
from mixopt.study.settings import Study, load_study
from mixopt.study.stopped import keeping_stop

Step = Literal["search", "select", "promote", "run"]
WHOLE = {
    "search": "whole search",
    "select": "whole selection",
    "promote": "whole promotion",
    "run": "whole study",
}


def run_study(path: Path, step: Step = "run", *, as_json: bool = False) -> None:
    """Run one step of the study at `path`, or with `run` all of them, doing only what is not done.

    Args:
        path: the study file.
        step: which.
        as_json: print progress on stderr, and in the end what `mixopt status --json` prints.

    Raises:
        StudyError: it is not the step's turn; the command that comes first is named.
        MixoptError: whatever stops it; everything finished until then is kept.
    """
    if step in ("select", "promote"):
        _require_trials(path, first=f"mixopt search {path}")
    console = make_error_console() if as_json else make_console()
    display = Display(console, whole=WHOLE[step])
    with open_session(path, display, trains=True) as session:
        study = session.study
        display.total, display.home = _planned_flops(session, step), study.home
        if study.trainer is not None and not study.elsewhere:
            display.left = time_left(session, step)
        # MLflow's database is made and migrated here, before any worker exists.
        session.tracker.study_started()
        with notifying(session, step):
            _run_steps(session, step)
        if not as_json:
            print_closing(study, session.ledger, session.space.domains, console)
    if as_json:
        print_json(read_standing(path).to_json())


def _run_steps(session: Session, step: Step) -> None:
    """Run the steps, then bring the views up to date."""
    try:
        with keeping_stop(session.home, unless=TrialsWait):
            _steps(session, step)
    except (TrialsWait, OrderLost):  # a person has to act, and sees by the views on what
        _views(session)
        raise
    except BaseException:  # also Ctrl-C: MLflow should not show a dead study as running
        session.tracker.study_ended(failed=True)
        raise
    _views(session)


def _planned_flops(session: Session, step: Step) -> float:
    """What the bar of the whole command counts to."""
    study, full_run = session.study, 0.0
    own = None if study.promote is None else study.promote.trainer
    if study.promote is not None and own is not None and not own.elsewhere:
        full_run = full_run_flops(session, study.promote) if step in ("promote", "run") else 0.0
    if study.trainer is None:
        return full_run + plan_steps.planned_flops(study, session.corpus, step, session.models)
    larger = session.larger_flops * planned_larger(study, step)
    return full_run + larger + session.trial_flops * planned_trials(study, session.data, step)


def _require_trials(path: Path, first: str = "") -> Study:
    """The study at `path`; refused if it has not begun, or has lost its ledger."""
    study = load_study(path)
    require_begun(study, first)
    owner = identity.read(study.home)
    if owner is not None:
        refuse_lost(study.ledger_url, owner)
    return study


def _steps(session: Session, step: Step) -> None:
    if step in ("search", "run"):
        search.search(session)
    if step == "search":
        return
    search.require_complete(session)
    if step == "promote":
        verdict = verdict_or_refuse(session)
        require_transfer(session, verdict)
    else:
        verdict = select.select(session)
        check_transfer(session, verdict)
    files.keep_json(session.home / "mixture.json", verdict.mixture.as_dict())
    if step == "run" and session.study.promote is not None and verdict.level == 0:
        session.display.warn("no look is left (select.looks), so no full run begins by itself")
        return
    if step == "promote" or (step == "run" and session.study.promote is not None):
        require_guardrails(session.study, verdict)
        try:
            promote.promote(session, verdict)
        except FullRunWaits as waits:
            session.display.say(str(waits))


def require_guardrails(study: Study, verdict: Verdict) -> None:
    """Refuse to promote a mixture that is not shown to keep to the guardrails.

    Only the projection of a baseline that lies outside the space can be such a one.

    Raises:
        StudyError: naming the guardrails.
    """
    if broken := verdict.winner.broken:
        raise StudyError(
            f"the {verdict.promoted} mixture is not shown to keep to the guardrails "
            f"({', '.join(it.metric for it in broken)}), and no other candidate passed the gate",
            where=f"{study.path}: guardrails",
            hint="Allow more, or widen the space so that the baseline lies in it; with "
            "select.looks left, more seeds may show that it holds",
        )


def verdict_or_refuse(session: Session) -> Verdict:
    """The verdict on today's trials.

    Raises:
        StudyError: there is none.
    """
    verdict = select.current_verdict(session)
    if verdict is None:
        raise StudyError(
            "there is no verdict on its trials, so no mixture to promote",
            where=str(session.study.path),
            hint=f"Run `{command('select', session.study.path)}` first",
        )
    return verdict


def _views(session: Session) -> None:
    """Bring MLflow up to date with the ledger, and write the report."""
    session.show()
    report = write_report(session.study)
    session.tracker.artifacts(report)
    champion.decide_champion(session)  # last: it trains nothing, but runs on a worker that may fail


def sync_study(path: Path) -> None:
    """Rebuild MLflow's view of the study at `path` from its ledger and folder.

    Raises:
        StudyError: it has not begun, or MLflow is switched off.
        LedgerError: its ledger cannot be used.
        MixoptError: MLflow cannot be used.
    """
    if not _require_trials(path).mlflow.enabled:
        raise StudyError(
            "MLflow is switched off", where=f"{path}: mlflow.enabled", hint="Set it to true"
        )
    with open_session(path) as session:
        tracker, trials = session.tracker, session.ledger.trials()
        if not (tracker.study_started() and session.show()):
            assert tracker.error is not None  # it is enabled
            raise problem(session.study, tracker.error)
        tracker.artifacts(write_report(session.study))
        champion.decide_champion(session)
        session.display.say(f"MLflow shows all {len(trials)} trials of {session.study.name}")
